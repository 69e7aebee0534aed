//! The root file system of a sandbox: overlay, kernel file systems, devices, binds, and the few files in `/etc` that
//! depend on the sandbox. Everything here happens inside the sandbox's own user and mount namespaces.

use std::path::Path;

use microsandbox_contract::{BindSpec, IdMap, Pinned, RootSpec, TmpfsSpec};
use microsandbox_rooted::make;
use microsandbox_rooted::open::{Rule, open};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::mounts::Opt;
use crate::targets::{Refusal, Targets};
use crate::views::{self, Around, Tree, Views};
use crate::{devices, idmapped, mounts, pinned};
use microsandbox_contract::Step;
use microsandbox_contract::note::{Failure, failed};
use microsandbox_sys::process::Creator;

const LAYER_HINT: &str = "load the image again, and check that the product home can be read by the user who runs this";
const OVERLAY_HINT: &str = "the kernel must allow overlay file systems in user namespaces (Linux 5.11 or newer) and \
     the product home must be on a file system that supports them (not NFS, FUSE or another overlay)";
const MOUNT_HINT: &str =
    "the kernel refused a mount inside the sandbox; in a container host, /proc and /sys must not be masked";
const BIND_HINT: &str =
    "check that the source exists and can be read, and that the target in the image is of the same kind";

/// Files in `/proc` that describe or control the whole machine: `/dev/null` or an empty directory is put over them.
const PROC_MASKED: [&str; 12] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "scsi",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
];
const PROC_READONLY: [&str; 4] = ["bus", "fs", "irq", "sys"];
const SYS_MASKED: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// Of `/dev`: room for some files of programs that expect to write there.
pub const DEV_OPTIONS: [Opt<'static>; 3] =
    [Opt::Text("mode", "755"), Opt::Text("size", "65536"), Opt::Text("nr_inodes", "1024")];
/// Terminals of one sandbox: all of them together draw on one count of the machine (`kernel.pty.max`, 4,096).
const MAX_TERMINALS: &str = "64";
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What a bind shows.
pub enum Source {
    /// Detached mounts made by the runtime while it had the host's rights.
    Tree(Tree),
    /// A path opened in this mount namespace.
    Path(OwnedFd),
    /// The source does not exist, and the caller declared it optional.
    Absent,
}

/// Descriptors of everything the root is made of, opened in the sandbox's mount namespace.
pub struct Parts {
    lowers: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
    /// The working directory, opened while it may still be: mapped ids cannot search the sandbox's directory.
    here: OwnedFd,
    sources: Vec<Source>,
}

/// What the runtime made ready with the rights of the host, all of it detached mounts.
#[derive(Default)]
pub struct Prepared {
    /// The sandbox directory.
    pub own: Option<OwnedFd>,
    /// Those with other ids than their files carry.
    pub layers: Vec<Option<OwnedFd>>,
    pub binds: Vec<Option<Source>>,
}

/// Opens layers and bind sources. The working directory is the sandbox directory: what lies beneath it is reachable
/// whatever the directories above it allow.
pub fn open_parts(spec: &RootSpec, prepared: Prepared) -> Result<Parts, Failure> {
    let step = Step::OpenLayers;
    let open_dir = |path: &Path| pinned::open(path, &spec.pinned, OFlags::DIRECTORY);
    let mut lowers = Vec::with_capacity(spec.lowers.len());
    for lower in &spec.lowers {
        let fd =
            open_dir(&lower.path).map_err(failed(step, format!("open layer {}", lower.path.display()), LAYER_HINT))?;
        lowers.push(fd);
    }
    let here = open_dir(".".as_ref()).map_err(failed(step, "open the sandbox directory", LAYER_HINT))?;
    // After everything has been opened by its path: each covers what it shows, in this mount namespace, which is thrown away. An
    // overlay takes no detached mount for a layer before Linux 6.15.
    let cover = |place: OwnedFd, tree: Option<OwnedFd>| match tree {
        Some(tree) => mounts::attach(&tree, &place).map(|()| tree),
        None => Ok(place),
    };
    let here = cover(here, prepared.own).map_err(failed(step, "cover the sandbox directory", LAYER_HINT))?;
    if !prepared.layers.is_empty() {
        let covered = lowers.into_iter().zip(prepared.layers).map(|(place, tree)| cover(place, tree));
        lowers = covered.collect::<Result<_, Errno>>().map_err(failed(step, "cover a layer", LAYER_HINT))?;
    }
    let part = |name: &str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::openat(&here, name, flags, Mode::empty()).map_err(failed(step, format!("open {name}"), LAYER_HINT))
    };
    let (upper, work) = (part("upper")?, part("work")?);
    let mut sources = Vec::with_capacity(spec.binds.len());
    for (bind, tree) in spec.binds.iter().zip(prepared.binds) {
        sources.push(match tree {
            Some(source) => source,
            None => open_source(bind, &spec.pinned)?,
        });
    }
    Ok(Parts { lowers, upper, work, here, sources })
}

fn open_source(bind: &BindSpec, pins: &[Pinned]) -> Result<Source, Failure> {
    match pinned::open(&bind.source, pins, OFlags::empty()) {
        Ok(fd) => Ok(Source::Path(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) if bind.optional => Ok(Source::Absent),
        Err(error) => Err(Failure::call(
            Step::OpenLayers,
            format!("open mount source {}", bind.source.display()),
            error,
            if error == Errno::STALE { pinned::HINT } else { BIND_HINT },
        )),
    }
}

/// Makes bind `bind` ready with the runtime's own rights: its source need not be reachable for the sandbox's ids.
/// `owner` maps the ids of the host.
pub fn prepare_source(
    bind: &BindSpec,
    pins: &[Pinned],
    ids: &IdMap,
    owner: Option<BorrowedFd<'_>>,
    creator: Creator,
) -> Result<Source, Failure> {
    let source = match open_source(bind, pins)? {
        Source::Path(fd) => fd,
        other => return Ok(other),
    };
    let tree = bind_tree(bind, &source).map_err(failed(
        Step::OpenLayers,
        format!("copy mount {}", bind.source.display()),
        BIND_HINT,
    ))?;
    let map = |mount: &OwnedFd| {
        let shown = match bind.shown_as {
            Some(inside) => {
                let stat = fs::fstat(&source)?;
                Some(idmapped::shown_as(ids, (stat.st_uid, stat.st_gid), inside, creator)?)
            }
            None => None,
        };
        match shown.as_ref().map(OwnedFd::as_fd).or(owner.filter(|_| bind.host_ids)) {
            Some(owner) => microsandbox_sys::mount::set_attributes(mount, false, 0, libc::MS_PRIVATE, Some(owner)),
            None => Ok(()),
        }
    };
    let around = tree.around.iter().map(|around| &around.directory);
    std::iter::once(&tree.mount).chain(around).try_for_each(map).map_err(failed(
        Step::OpenLayers,
        format!("map the ids of mount {}", bind.source.display()),
        "this file system or kernel has no id-mapped mounts; use a named volume, or a directory on another file system",
    ))?;
    Ok(Source::Tree(tree))
}

fn bind_tree(bind: &BindSpec, source: &OwnedFd) -> Result<Tree, Errno> {
    let mount = mounts::copy_tree(source)?;
    restrict_bind(bind, &mount)?;
    let needs_around = bind.readonly && bind.view && !make::is_dir(source)?;
    // Without it the file is bound plainly, and the report says so.
    let around = if needs_around { around(bind, source).ok() } else { None };
    Ok(Tree { mount, around })
}

fn around(bind: &BindSpec, file: &OwnedFd) -> Result<Around, Errno> {
    let around = views::around(&bind.source, file)?;
    mounts::restrict(&around.directory, mounts::RDONLY | mounts::NOSUID | mounts::NODEV)?;
    Ok(around)
}

/// A bind of the home that is ready but for what it forbids.
pub fn prepare_home_source(bind: &BindSpec, mount: OwnedFd) -> Result<Source, Failure> {
    restrict_bind(bind, &mount).map_err(failed(
        Step::OpenLayers,
        format!("restrict mount {}", bind.source.display()),
        BIND_HINT,
    ))?;
    Ok(Source::Tree(Tree { mount, around: None }))
}

fn restrict_bind(bind: &BindSpec, tree: &OwnedFd) -> Result<(), Errno> {
    let mut attributes = mounts::NOSUID | mounts::NODEV;
    if bind.readonly {
        attributes |= mounts::RDONLY;
    }
    if bind.noexec {
        attributes |= mounts::NOEXEC;
    }
    mounts::restrict(tree, attributes)
}

/// Mounts the overlay and returns its root. It is attached on the working directory, which nothing sees after the
/// pivot.
pub fn mount_overlay(parts: &Parts) -> Result<OwnedFd, Failure> {
    let step = Step::MountOverlay;
    clear_volatile_mark(&parts.work).map_err(failed(step, "prepare the work directory", OVERLAY_HINT))?;
    let root = mounts::overlay(&parts.lowers, &parts.upper, &parts.work, &parts.here).map_err(failed(
        step,
        format!("mount an overlay of {} layers", parts.lowers.len()),
        OVERLAY_HINT,
    ))?;
    mounts::attach(&root, &parts.here).map_err(failed(step, "attach the overlay", OVERLAY_HINT))?;
    Ok(root)
}

/// Attaches another tree over the overlay, on the same directory: for a tenant whose root is not the overlay itself.
pub fn attach_here(tree: &OwnedFd, parts: &Parts) -> Result<(), Errno> {
    mounts::attach(tree, &parts.here)
}

/// An overlay mounted as volatile leaves a mark; the kernel refuses the next mount until that mark is removed.
/// The upper directory is complete as long as the host did not lose power, and no worse than its other files if it did.
fn clear_volatile_mark(work: &OwnedFd) -> Result<(), Errno> {
    let mark = "work/incompat/volatile";
    for (name, flags) in [(format!("{mark}/dirty"), fs::AtFlags::empty()), (mark.to_owned(), fs::AtFlags::REMOVEDIR)] {
        match fs::unlinkat(work, name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Groups whose programs may send echo requests without privileges (Linux, `ip-sysctl.rst`).
const PING_GROUPS: &str = "sys/net/ipv4/ping_group_range";

/// What each user inside may have of kernel objects that are counted for the creator of the sandbox as well (Linux,
/// `sysctl/user.rst`): half of the instances that the kernel gives a user, so that the other half stays where the creator is
/// an ordinary user. New user namespaces are refused by the filter already.
const USER_LIMITS: [(&str, &str); 3] =
    [("max_inotify_instances", "64"), ("max_inotify_watches", "65536"), ("max_user_namespaces", "0")];

/// Attaches the directory of our own devices, if there is one: what is masked elsewhere is masked with one of them.
pub fn place_devices(root: &OwnedFd, own: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let Some(own) = own else { return Ok(()) };
    let placed = make::replace_with_dir(root, "dev").and_then(|dev| mounts::attach(own, dev));
    placed.map_err(failed(Step::MountDev, "attach /dev", MOUNT_HINT))
}

/// A fresh `/proc` of the sandbox's own process namespace, without what concerns the whole machine.
pub fn mount_proc(root: &OwnedFd, id_count: u32, devices: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mounted = (|| {
        let proc = mounts::fresh("proc", &[], attributes)?;
        allow_ping(&proc, id_count);
        limit_users(&proc)?;
        mounts::attach(&proc, make::replace_with_dir(root, "proc")?)?;
        for name in PROC_READONLY {
            if let Some(target) = existing(&proc, name)? {
                let tree = mounts::copy_tree(&target)?;
                mounts::restrict(&tree, mounts::RDONLY)?;
                mounts::attach(&tree, target)?;
            }
        }
        mask(&proc, &PROC_MASKED, devices)
    })();
    mounted.map_err(failed(Step::MountProc, "mount /proc", MOUNT_HINT))
}

/// Lets every group of the sandbox `ping` in its own network, in which there is the loopback. A kernel without the setting
/// has no such sockets either.
fn allow_ping(proc: &OwnedFd, id_count: u32) {
    if let Ok(file) = fs::openat(proc, PING_GROUPS, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(file, format!("0 {}", id_count.saturating_sub(1)).as_bytes());
    }
}

/// Lowers what users inside may have, while this process may. A kernel without one of the objects has no setting for it.
fn limit_users(proc: &OwnedFd) -> Result<(), Errno> {
    let settings = match fs::openat(proc, "sys/user", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    for (name, limit) in USER_LIMITS {
        match fs::openat(&settings, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => {}
            file => drop(rustix::io::write(file?, limit.as_bytes())?),
        }
    }
    Ok(())
}

/// A read-only `/sys` of the sandbox's own network namespace. Where the kernel refuses it, `/sys` stays empty.
pub fn mount_sys(root: &OwnedFd, devices: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mounted = (|| {
        let target = make::replace_with_dir(root, "sys")?;
        let sys = match mounts::fresh("sysfs", &[], attributes) {
            Err(Errno::PERM | Errno::ACCESS) => return Ok(()),
            result => result?,
        };
        mounts::attach(&sys, target)?;
        mask(&sys, &SYS_MASKED, devices)
    })();
    mounted.map_err(failed(Step::MountSys, "mount /sys", MOUNT_HINT))
}

/// Puts `/dev/null` over files and an empty read-only directory over directories; what does not exist needs no mask.
fn mask(root: &OwnedFd, names: &[&str], devices: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    for name in names {
        let Some(target) = existing(root, name)? else { continue };
        let cover = if make::is_dir(&target)? {
            let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            mounts::fresh("tmpfs", &[Opt::Text("size", "0"), Opt::Text("mode", "755")], flags)?
        } else {
            devices::null(devices)?
        };
        mounts::attach(&cover, target)?;
    }
    Ok(())
}

fn existing(root: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, Errno> {
    match fs::openat(root, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A small `/dev` with the devices every program expects and terminals of its own; `own` is the attached directory of our own
/// devices. Shared memory is limited by its mount: there may be no control group that limits it.
pub fn mount_dev(root: &OwnedFd, id_count: u32, shm_bytes: u64, own: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    mount_dev_parts(root, id_count, shm_bytes, own).map_err(failed(Step::MountDev, "mount /dev", MOUNT_HINT))
}

fn mount_dev_parts(root: &OwnedFd, id_count: u32, shm_bytes: u64, own: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let plain = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let full = plain | MountAttrFlags::MOUNT_ATTR_NODEV;
    let dev = match own {
        Some(own) => rustix::io::fcntl_dupfd_cloexec(own, 0)?,
        None => {
            let dev = mounts::fresh("tmpfs", &DEV_OPTIONS, full)?;
            mounts::attach(&dev, make::replace_with_dir(root, "dev")?)?;
            devices::bind_host(&devices::PROGRAMS, &dev)?;
            dev
        }
    };
    for (name, target) in DEVICE_LINKS {
        fs::symlinkat(target, &dev, name)?;
    }
    let mut pts = vec![
        Opt::Flag("newinstance"),
        Opt::Text("ptmxmode", "0666"),
        Opt::Text("mode", "620"),
        Opt::Text("max", MAX_TERMINALS),
    ];
    // Group `tty`, where the mapping contains that group.
    if id_count > 5 {
        pts.push(Opt::Text("gid", "5"));
    }
    mounts::attach(mounts::fresh("devpts", &pts, plain)?, make::replace_with_dir(&dev, "pts")?)?;
    let size = shm_bytes.to_string();
    let shm = mounts::fresh("tmpfs", &[Opt::Text("mode", "1777"), Opt::Text("size", &size)], full)?;
    mounts::attach(shm, make::replace_with_dir(&dev, "shm")?)?;
    // Message queues are a kernel option; without them the directory is empty.
    let queues = make::replace_with_dir(&dev, "mqueue")?;
    if let Ok(mqueue) = mounts::fresh("mqueue", &[], full) {
        mounts::attach(mqueue, queues)?;
    }
    Ok(())
}

/// A place for the views of read-only mounts.
pub fn views(parts: &Parts) -> Result<Views, Failure> {
    Views::new(&parts.work).map_err(failed(Step::MountBinds, "prepare read-only mounts", BIND_HINT))
}

/// Binds and temporary file systems, outer targets before inner ones. Without `views`, every bind is a plain one: the kernel of a
/// virtual machine has sockets, locks and watches of its own.
pub fn mount_requested(
    root: &OwnedFd,
    spec: &RootSpec,
    parts: &Parts,
    mut views: Option<&mut Views>,
) -> Result<(), Failure> {
    enum Wanted<'a> {
        Tmpfs(&'a TmpfsSpec),
        Bind(&'a BindSpec, &'a Source),
    }
    let depth = |path: &str| path.split('/').filter(|part| !part.is_empty()).count();
    let mut wanted: Vec<(usize, Wanted<'_>)> =
        spec.tmpfs.iter().map(|t| (depth(&t.target), Wanted::Tmpfs(t))).collect();
    wanted.extend(spec.binds.iter().zip(&parts.sources).map(|(b, s)| (depth(&b.target), Wanted::Bind(b, s))));
    wanted.sort_by_key(|(depth, _)| *depth);
    let mut targets = Targets::new(root).map_err(failed(Step::MountBinds, "look at the root directory", BIND_HINT))?;
    for (depth, item) in &wanted {
        let target = match item {
            Wanted::Tmpfs(tmpfs) => &tmpfs.target,
            Wanted::Bind(bind, _) => &bind.target,
        };
        if *depth == 0 {
            return Err(Failure::new(
                Step::MountBinds,
                format!("mount target {target:?} is the root itself"),
                BIND_HINT,
            ));
        }
        let mounted = match item {
            Wanted::Tmpfs(tmpfs) => mount_tmpfs(tmpfs, &targets),
            Wanted::Bind(bind, source) => mount_bind(bind, source, &mut targets, views.as_deref_mut()),
        };
        mounted.map_err(|refusal| refusal.of(target, BIND_HINT))?;
    }
    Ok(())
}

fn mount_tmpfs(spec: &TmpfsSpec, targets: &Targets<'_>) -> Result<(), Refusal> {
    let size = spec.size_bytes.to_string();
    let mode = format!("{:o}", spec.mode & 0o7777);
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, spec.readonly);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, spec.noexec);
    let tree = mounts::fresh("tmpfs", &[Opt::Text("size", &size), Opt::Text("mode", &mode)], attributes)?;
    Ok(mounts::attach(tree, targets.directory(&spec.target)?)?)
}

fn mount_bind(
    bind: &BindSpec,
    source: &Source,
    targets: &mut Targets<'_>,
    views: Option<&mut Views>,
) -> Result<(), Refusal> {
    let own;
    let tree = match source {
        Source::Absent => return Ok(()),
        Source::Tree(tree) => tree,
        Source::Path(path) => {
            own = bind_tree(bind, path)?;
            &own
        }
    };
    let target =
        if make::is_dir(&tree.mount)? { targets.directory(&bind.target)? } else { targets.file(&bind.target)? };
    let attached = show(bind, tree, &target, views)?;
    if bind.host_ids {
        targets.close(&attached)?;
    }
    Ok(())
}

/// Attaches the bind, as a view where it is to be one.
fn show(bind: &BindSpec, tree: &Tree, target: &OwnedFd, views: Option<&mut Views>) -> Result<OwnedFd, Errno> {
    match views.filter(|_| bind.readonly && bind.view) {
        // Only what the user mounts is refreshed: a system directory changes with an upgrade.
        Some(views) => views.attach(tree, target.as_fd(), &bind.target, bind.noexec, bind.host_ids),
        None => {
            mounts::attach(&tree.mount, target)?;
            rustix::io::fcntl_dupfd_cloexec(&tree.mount, 0)
        }
    }
}

/// `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`, on the first boot of a sandbox: what the image ships of them
/// belongs to another machine. Later boots keep what the sandbox made of them.
pub fn write_etc(root: &OwnedFd, parts: &Parts, hostname: &str) -> Result<(), Failure> {
    let written = (|| {
        let etc = match open(root, "/etc", OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), Rule::PLAIN) {
            Err(Errno::NOENT) => make::replace_with_dir(root, "etc")?,
            // An image whose /etc is a symlink or a file gets none of these files.
            Err(Errno::LOOP | Errno::NOTDIR) => return Ok(()),
            result => result?,
        };
        let ours = |name: &str| fs::statat(&parts.upper, format!("etc/{name}"), fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if !ours("hostname") {
            make::write_file(&etc, "hostname", format!("{hostname}\n").as_bytes(), 0o644)?;
        }
        if !ours("hosts") {
            let hosts =
                format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback {hostname}\n");
            make::write_file(&etc, "hosts", hosts.as_bytes(), 0o644)?;
        }
        if !ours("resolv.conf") {
            make::write_file(&etc, "resolv.conf", b"# This sandbox has no network beyond its loopback.\n", 0o644)?;
        }
        Ok(())
    })();
    match written {
        // A root whose /etc belongs to ids outside of the mapping keeps what it has.
        Err(Errno::ACCESS | Errno::PERM | Errno::OVERFLOW) => Ok(()),
        result => result,
    }
    .map_err(failed(Step::WriteEtc, "write /etc/hostname, /etc/hosts, /etc/resolv.conf", MOUNT_HINT))
}
