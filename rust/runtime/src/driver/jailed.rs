//! The steps that every tenant of the jail goes through: namespaces, ids, control groups, the overlay, and at the end the
//! tenant's own program. What differs between tenants is a [`Tenant`].

use std::path::PathBuf;

use microsandbox_contract::{
    Accelerator, Driver, IdMap, IsolationReport, LaunchSpec, Mechanism, MechanismName, MechanismState, ResourceLimits,
    isolation::replace,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use super::{Control, Guest, refresh};
use crate::directory::{self, SandboxDir};
use crate::own_ids::OwnIds;
use crate::steps::Steps;
use microsandbox_cgroups::{Cgroups, Controller, Join, supervisor};
use microsandbox_contract::Step;
use microsandbox_contract::note::Note;
use microsandbox_contract::note::{Failure, failed};
use microsandbox_jail::idmapped::{self, HomeMounts};
use microsandbox_jail::rootfs::{self, Parts, Prepared};
use microsandbox_jail::{ids, mounts, namespaces, seccomp};
use microsandbox_sys::process::{self, Cloned, Creator};

const CLONE_HINT: &str = "user namespaces must be allowed (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
     kernel.apparmor_restrict_unprivileged_userns)";
/// The hint of steps that happen inside.
pub const INSIDE_HINT: &str =
    "the kernel refused a step that works inside user namespaces; a security module may forbid it";

const NO_DISK_LIMIT: &str = "neither the root of the sandbox nor its volumes have a quota of bytes or inodes; below \
     disk.host_headroom nothing is created, loaded or written to a volume from outside";

/// What runs in a jail.
pub trait Tenant {
    /// For the report: the driver, and what accelerates it.
    fn kind(&self) -> (Driver, Option<Accelerator>);
    /// What its control groups allow: the sandbox's limits and what the tenant needs beside them.
    fn limits(&self, spec: &LaunchSpec) -> ResourceLimits {
        spec.limits
    }
    /// What bounds its memory without a control group, for the report.
    fn memory_bound(&self, spec: &LaunchSpec) -> String;
    /// Whether the supplementary groups of the user stay: they are what opens a device of the host.
    fn keeps_groups(&self) -> bool {
        false
    }
    /// Whether its read-only mounts are views.
    fn has_views(&self) -> bool {
        false
    }
    /// With the ids of the host still, inside the new mount namespace: opens what only those ids may reach.
    fn open(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    /// As the inside root: mounts everything on and beside the overlay; the result becomes the root directory.
    fn mount_root(
        &self,
        jail: &Jail<'_>,
        parts: &Parts,
        root: OwnedFd,
        log: &mut StepLog<'_>,
    ) -> Result<OwnedFd, Failure>;
    /// Gives up what the program must not have, and says what that leaves.
    fn drop_privileges(&self, jail: &Jail<'_>) -> Result<Mechanism, Errno>;
    /// Puts the program's descriptors in their places; everything else closes when it is executed.
    fn hand_over(&self, jail: &Jail<'_>) -> Result<(), Errno>;
    /// Installs the program's system call filter.
    fn filter(&self) -> Result<Mechanism, Errno>;
    /// The step that executing the program is.
    fn last_step(&self) -> Step;
    /// The program, its name and its arguments; none for a probe.
    fn program(&self) -> Option<(BorrowedFd<'_>, Vec<&'static std::ffi::CStr>)>;
}

/// What the child has of its parent.
pub struct Jail<'a> {
    pub spec: &'a LaunchSpec,
    /// One byte arrives when the ids are mapped.
    go: OwnedFd,
    joins: Vec<Join>,
    pub notes: OwnedFd,
    pub console: OwnedFd,
    /// Takes the views whose names are refreshed.
    pub refresh: Option<OwnedFd>,
    /// No control group bounds the number of processes.
    pub pids_by_rlimit: bool,
    /// No control group bounds the memory.
    pub memory_by_rlimit: bool,
}

/// Boots `tenant`; `control` is the runtime's way to the agent.
pub fn boot(
    spec: &LaunchSpec,
    dir: &SandboxDir,
    own_ids: &mut OwnIds,
    tenant: impl Tenant,
    control: Control,
    steps: &mut Steps,
) -> Result<Guest, Failure> {
    steps.begin(Step::MakeCgroups);
    let note = |paths: &[PathBuf]| record_cgroups(paths, dir);
    let mut cgroups = Cgroups::create(&spec.name, &spec.sandbox_dir, &tenant.limits(spec), note);
    record_cgroups(&supervisor::with_supervisors(cgroups.paths()), dir);
    steps.finish(Step::MakeCgroups);
    if let Err(failure) = settle_limits(spec, &tenant, &mut cgroups) {
        cgroups.remove();
        return Err(failure);
    }
    let (driver, accelerator) = tenant.kind();
    match start(spec, dir, own_ids, tenant, &mut cgroups, steps) {
        Ok(started) => {
            let mut mechanisms = started.mechanisms;
            mechanisms.extend(cgroups.mechanisms.iter().cloned());
            mechanisms.push(Mechanism::new(MechanismName::DiskLimit, MechanismState::Off, NO_DISK_LIMIT));
            let isolation = IsolationReport { driver: driver.into(), accelerator, mechanisms };
            Ok(Guest {
                pid: started.pid,
                pidfd: started.pidfd,
                notes: Some(started.notes),
                console: Some(started.console),
                control: Some(control),
                _refresher: started.refresher,
                sockets: None,
                cgroups,
                isolation,
            })
        }
        Err(failure) => {
            cgroups.remove();
            Err(failure)
        }
    }
}

/// What bounds the memory where no control group does; refused where the configuration demands control groups.
fn settle_limits(spec: &LaunchSpec, tenant: &impl Tenant, cgroups: &mut Cgroups) -> Result<(), Failure> {
    if !cgroups.limits(Controller::Memory) {
        let lost = cgroups.mechanisms.iter().find(|entry| entry.name == MechanismName::MemoryLimit);
        let why = lost.and_then(|entry| entry.reason.clone()).unwrap_or_default();
        let reason = format!("{}: {why}", tenant.memory_bound(spec));
        let entry = Mechanism::new(MechanismName::MemoryLimit, MechanismState::Degraded, reason);
        replace(&mut cgroups.mechanisms, entry);
    }
    let missing = cgroups.mechanisms.iter().find(|entry| entry.state != MechanismState::On);
    match missing.filter(|_| spec.strict_limits) {
        None => Ok(()),
        Some(entry) => {
            let (name, why) = (entry.name.as_str(), entry.reason.as_deref().unwrap_or_default());
            let text = format!("the configuration has limits = \"strict\", and {name} does not hold: {why}");
            Err(Failure::new(Step::MakeCgroups, text, "delegate control groups, or set limits to \"available\""))
        }
    }
}

/// Names the groups in `runtime/cgroups.json`: what cleans up after a kill removes them. Without this file, a killed boot
/// leaves empty groups until the next start of the sandbox.
fn record_cgroups(paths: &[PathBuf], dir: &SandboxDir) {
    if let Ok(text) = serde_json::to_vec(paths) {
        let _ = directory::publish(&dir.runtime, "cgroups.json", &text);
    }
}

struct Started {
    pid: i32,
    pidfd: OwnedFd,
    notes: OwnedFd,
    console: OwnedFd,
    refresher: Option<refresh::Refresher>,
    mechanisms: Vec<Mechanism>,
}

fn start(
    spec: &LaunchSpec,
    dir: &SandboxDir,
    own_ids: &mut OwnIds,
    tenant: impl Tenant,
    cgroups: &mut Cgroups,
    steps: &mut Steps,
) -> Result<Started, Failure> {
    let mut mechanisms = id_mechanisms(&spec.ids, own_ids);

    steps.begin(Step::AttachLayers);
    // A new mount namespace takes the working directory along into its own copy of the mounts; descriptors it does not, but for
    // those of detached mounts.
    rustix::process::fchdir(&dir.root).map_err(failed(Step::AttachLayers, "enter the sandbox directory", ""))?;
    let (prepared, note) = prepare(spec, own_ids)?;
    mechanisms.extend(note);
    steps.finish(Step::AttachLayers);

    steps.begin(Step::CloneInit);
    let pipe = |what: &str| {
        pipe_with(PipeFlags::CLOEXEC).map_err(failed(Step::CloneInit, format!("make the {what} pipe"), ""))
    };
    let (go_read, go_write) = pipe("go")?;
    let (notes, notes_write) = pipe("notes")?;
    let (console, console_write) = pipe("console")?;
    for read_end in [&notes, &console] {
        fs::fcntl_setfl(read_end, OFlags::NONBLOCK).map_err(failed(Step::CloneInit, "prepare the pipes", ""))?;
    }
    // A process inside that holds the write end may open it anew.
    let (uid, gid) = ids::root_ids(&spec.ids);
    fs::fchown(&console_write, Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid))).map_err(failed(
        Step::CloneInit,
        "hand the console over",
        "",
    ))?;
    let wants_refresh = tenant.has_views() && refresh::is_wanted(spec);
    let started = wants_refresh.then(|| refresh::start(own_ids.creator())).transpose().map_err(failed(
        Step::CloneInit,
        "start the process that refreshes read-only mounts",
        "",
    ))?;
    let (refresher, refresh) = started.unzip();
    let jail = Jail {
        spec,
        refresh,
        go: go_read,
        joins: cgroups.open_joins(),
        notes: notes_write,
        console: console_write,
        pids_by_rlimit: !cgroups.limits(Controller::Pids),
        memory_by_rlimit: !cgroups.limits(Controller::Memory),
    };
    let (cloned, in_v2) =
        clone(own_ids.creator(), cgroups).map_err(failed(Step::CloneInit, "create the namespaces", CLONE_HINT))?;
    let (pid, pidfd) = match cloned {
        Cloned::Child => {
            // The runtime's ends: only without them here does its death show.
            drop((go_write, notes, console));
            child(&jail, prepared, tenant, steps)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((jail, prepared, tenant));
    steps.finish(Step::CloneInit);

    let end = |failure: Failure| {
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
        failure
    };
    steps.begin(Step::MapIds);
    ids::write_maps(pid, &spec.ids).map_err(|message| end(Failure::new(Step::MapIds, message, ids::MAP_HINT)))?;
    if !in_v2 {
        cgroups.join_v2(pid);
    }
    steps.finish(Step::MapIds);
    rustix::io::write(&go_write, b"g").map_err(failed(Step::MapIds, "release the child", "")).map_err(end)?;
    Ok(Started { pid, pidfd, notes, console, refresher, mechanisms })
}

/// Into the v2 leaf from the first instruction on, where the kernel and its owner allow that.
fn clone(creator: Creator, cgroups: &Cgroups) -> Result<(Cloned, bool), Errno> {
    let leaf = cgroups
        .v2_leaf()
        .and_then(|path| fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok());
    if let Some(leaf) = &leaf
        && let Ok(cloned) = namespaces::clone_init(creator, Some(leaf.as_fd()))
    {
        return Ok((cloned, true));
    }
    Ok((namespaces::clone_init(creator, None)?, false))
}

/// As host root the runtime makes the mounts that take its rights: those that map ids, and of sources that the sandbox's ids may
/// not reach.
fn prepare(spec: &LaunchSpec, own_ids: &mut OwnIds) -> Result<(Prepared, Option<Mechanism>), Failure> {
    let creator = own_ids.creator();
    let (mut layers, note) = idmapped::host_layers(spec, creator);
    let (own, of_home) = match own_ids.mounts() {
        Some(HomeMounts { own, layers: of_home, binds }) => {
            layers = layers.into_iter().zip(of_home).map(|(host, home)| host.or(home)).collect();
            (Some(own), binds)
        }
        None => (None, spec.root.binds.iter().map(|_| None).collect()),
    };
    let privileged = rustix::process::geteuid().is_root();
    let wanted = privileged && spec.root.binds.iter().any(|bind| bind.host_ids);
    let owner = if wanted { idmapped::owner(&spec.ids, creator)? } else { None };
    let owner = owner.as_ref().map(|fd| fd.as_fd());
    let binds = spec.root.binds.iter().zip(of_home).map(|(bind, of_home)| match (of_home, privileged) {
        (Some(tree), _) => rootfs::prepare_home_source(bind, tree).map(Some),
        (None, true) => rootfs::prepare_source(bind, &spec.root.pinned, &spec.ids, owner, creator).map(Some),
        (None, false) => Ok(None),
    });
    let binds = binds.collect::<Result<_, Failure>>()?;
    Ok((Prepared { own, layers, binds }, note))
}

fn id_mechanisms(ids: &IdMap, own_ids: &OwnIds) -> Vec<Mechanism> {
    use MechanismState::{Degraded, On};
    let range = match ids {
        IdMap::Range { base, count } if ids.is_shared() => Mechanism::new(
            MechanismName::IdRange,
            Degraded,
            format!("ids {base}..{}, shared with the users of the user namespace of this process", base + count),
        ),
        IdMap::Range { base, count } => match own_ids.shared() {
            Some(why) => Mechanism::new(
                MechanismName::IdRange,
                Degraded,
                format!("host ids {base}..{}, shared with the other sandboxes of this home: {why}", base + count),
            ),
            None => Mechanism::new(
                MechanismName::IdRange,
                On,
                format!("host ids {base}..{}, of this run alone", base + count),
            ),
        },
        IdMap::Subordinate { sub_uid, count, .. } => Mechanism::new(
            MechanismName::IdRange,
            Degraded,
            format!(
                "inside root is the calling user, other ids are host ids {sub_uid}..{}; all sandboxes of this user share \
                 them, and what the kernel counts for each user: only root gives a sandbox ids of its own",
                sub_uid + count
            ),
        ),
        IdMap::Single { uid, .. } => Mechanism::new(
            MechanismName::IdRange,
            Degraded,
            format!(
                "only root exists inside, as host uid {uid}, which all sandboxes of this user share with what the kernel \
                 counts for that user; chown to other ids and su cannot work: add ranges to /etc/subuid and /etc/subgid and \
                 install newuidmap for more"
            ),
        ),
    };
    use MechanismName as Name;
    let mut all = vec![Mechanism::on(Name::UserNamespace), range];
    let namespaces =
        [Name::PidNamespace, Name::MountNamespace, Name::IpcNamespace, Name::UtsNamespace, Name::NetNamespace];
    all.extend(namespaces.map(Mechanism::on));
    all
}

/// Runs in the child, never returns.
fn child(jail: &Jail<'_>, prepared: Prepared, mut tenant: impl Tenant, steps: &Steps) -> ! {
    let mut log = StepLog { steps, notes: jail.notes.as_fd(), lines: String::new() };
    let Err(failure) = become_tenant(jail, prepared, &mut tenant, &mut log);
    log.note(&Note::Failed(failure));
    log.send();
    process::exit_now(1)
}

/// Collects notes, and writes all of them to a pipe just before the program is executed.
pub struct StepLog<'a> {
    steps: &'a Steps,
    notes: BorrowedFd<'a>,
    lines: String,
}

impl StepLog<'_> {
    /// Adds a note.
    pub fn note(&mut self, note: &Note) {
        // Notes are plain data; serializing them cannot fail.
        self.lines.push_str(&serde_json::to_string(note).unwrap_or_default());
        self.lines.push('\n');
    }

    fn send(&mut self) {
        let _ = rustix::io::write(self.notes, self.lines.as_bytes());
        self.lines.clear();
    }

    /// Does a step and notes when it was done.
    pub fn step<T>(&mut self, step: Step, run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        if self.steps.is_failpoint(step) {
            self.note(&Note::Failpoint);
            self.send();
            // The runtime kills itself now, and this process dies with its parent.
            loop {
                std::thread::park();
            }
        }
        let result = run()?;
        self.note(&Note::Done(step, self.steps.now_us()));
        Ok(result)
    }
}

fn become_tenant(
    jail: &Jail<'_>,
    prepared: Prepared,
    tenant: &mut impl Tenant,
    log: &mut StepLog<'_>,
) -> Result<std::convert::Infallible, Failure> {
    let spec = jail.spec;
    let inside = |step, action| failed(step, action, INSIDE_HINT);
    let mut byte = [0; 1];
    if rustix::io::read(&jail.go, &mut byte) != Ok(1) {
        // The runtime is gone, or has given up: no process would read a failure reported here.
        process::exit_now(1);
    }
    die_with_parent(jail, Step::JoinCgroups)?;
    let lost = log.step(Step::JoinCgroups, || Ok(jail.joins.iter().flat_map(Join::join).collect::<Vec<_>>()))?;
    for line in lost {
        log.note(&Note::Mechanism(line));
    }
    // Still with the ids of the host outside the mapping: what those may reach can be opened now.
    let parts = log.step(Step::OpenLayers, || {
        mounts::make_private().map_err(inside(Step::OpenLayers, "make the mounts private"))?;
        tenant.open()?;
        rootfs::open_parts(&spec.root, prepared)
    })?;
    log.step(Step::EnterIds, || {
        enter_ids(&spec.ids, tenant.keeps_groups()).map_err(inside(Step::EnterIds, "become the inside root"))
    })?;
    // A change of ids or capabilities clears the death signal.
    die_with_parent(jail, Step::EnterIds)?;
    let namespace = namespaces::enter_cgroup_namespace();
    log.note(&Note::Mechanism(match namespace {
        Ok(()) => Mechanism::on(MechanismName::CgroupNamespace),
        Err(error) => Mechanism::new(MechanismName::CgroupNamespace, MechanismState::Off, error.to_string()),
    }));
    let overlay = log.step(Step::MountOverlay, || rootfs::mount_overlay(&parts))?;
    let root = tenant.mount_root(jail, &parts, overlay, log)?;
    log.step(Step::PivotRoot, || mounts::pivot(&root).map_err(inside(Step::PivotRoot, "change the root directory")))?;
    let capabilities = log.step(Step::DropPrivileges, || {
        tenant.drop_privileges(jail).map_err(inside(Step::DropPrivileges, "give up privileges"))
    })?;
    die_with_parent(jail, Step::DropPrivileges)?;
    log.note(&Note::Mechanism(capabilities));
    log.note(&Note::Mechanism(Mechanism::on(MechanismName::NoNewPrivs)));
    let filter = log.step(Step::InstallFilter, || {
        tenant.hand_over(jail).map_err(inside(Step::InstallFilter, "arrange the program's descriptors"))?;
        let filter = || {
            if jail.spec.guards_modes() {
                seccomp::install_mode_guard()?;
            }
            tenant.filter()
        };
        filter().map_err(inside(Step::InstallFilter, "install the system call filter"))
    })?;
    log.note(&Note::Mechanism(filter));
    log.step(tenant.last_step(), || Ok(()))?;
    log.send();
    let Some((program, arguments)) = tenant.program() else { process::exit_now(0) };
    let error = process::exec_fd(program, &arguments);
    Err(Failure::call(
        tenant.last_step(),
        format!("execute {}", arguments.first().copied().unwrap_or_default().to_string_lossy()),
        error,
        "this is a fault of the build: report it",
    ))
}

fn die_with_parent(jail: &Jail<'_>, step: Step) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed(
        step,
        "bind the sandbox's life to the runtime's",
        INSIDE_HINT,
    ))?;
    // The runtime may have died before that: then the read end of the notes pipe is closed.
    let mut notes = [PollFd::new(&jail.notes, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut notes, Some(&now)).is_ok() && notes[0].revents().contains(PollFlags::ERR) {
        process::exit_now(1);
    }
    Ok(())
}

fn enter_ids(map: &IdMap, keep_groups: bool) -> Result<(), Errno> {
    if ids::allows_setgroups(map) && !keep_groups {
        rustix::thread::set_thread_groups(&[])?;
    }
    let (uid, gid) = (fs::Uid::ROOT, fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // A process that changed its ids is not dumpable, and its own /proc entries would not be its own.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
}
