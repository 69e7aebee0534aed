//! The virtual machine driver: `msb-vmm` runs the agent on a kernel of its own, and is itself the tenant of the jail,
//! because guest and monitor are one security context (libkrun's own security notes say so).
//!
//! The overlay that would be a container's root becomes a directory of the monitor's, which it shows to the guest over
//! virtio-fs. The monitor's own root holds that directory, a directory for sockets, `/dev/kvm`, and its own entries of
//! `/proc`; nothing else.

mod device;

use microsandbox_contract::{
    self as contract, Accelerator, LaunchSpec, Mechanism, MechanismName, MechanismState, ResourceLimits, RootSpec,
};
use microsandbox_protocol::message::{Machine, MachineTmpfs};
use microsandbox_rooted::make;
use microsandbox_sys::{descriptor, signal};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, CWD, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::net::SocketFlags;

use super::jailed::{self, INSIDE_HINT, Jail, StepLog, Tenant};
use super::{Boot, Control, Driver, Guest};
use crate::directory::{self, SandboxDir};
use crate::steps::Steps;
use microsandbox_contract::Step;
use microsandbox_contract::monitor::{MachineSpec, fd};
use microsandbox_contract::note::{Failure, failed};
use microsandbox_jail::mounts::{self, Opt};
use microsandbox_jail::rootfs::{self, Parts};
use microsandbox_jail::targets::Targets;
use microsandbox_jail::{caps, ids, seccomp};

/// Memory of the monitor beside the guest's: its own heap and stacks, device queues, caches of the file server.
const MEMORY_OVERHEAD_MIB: u64 = 64;
/// Threads of the monitor beside the virtual processors.
const THREADS_OVERHEAD: u32 = 32;
/// In `runtime/`, for the sockets between host and monitor.
const SOCKETS: &str = "vm";
const CONTROL_SOCKET: &str = "control.sock";

/// The driver itself has no state.
pub struct Microvm;

impl Driver for Microvm {
    fn boot(&self, boot: Boot<'_>, steps: &mut Steps) -> Result<Guest, Failure> {
        let spec = boot.spec;
        let missing = |what: &str| {
            Failure::new(Step::ReadSpec, format!("no {what} was handed over"), "install the package again")
        };
        let machine = MachineSpec {
            cpus: u8::try_from(spec.limits.cpus).unwrap_or(u8::MAX),
            memory_mib: spec.limits.memory_mib,
            kernel: spec.kernel.ok_or_else(|| missing("kernel"))?,
            hands_over: spec.hands_over(),
            private_files: is_private(&spec.root),
            origin_ns: steps.origin_ns(),
        };
        steps.begin(Step::BindSocket);
        let (sockets, control) = bind_control_socket(boot.dir, ids::root_ids(&spec.ids)).map_err(failed(
            Step::BindSocket,
            "bind the private channel",
            directory::HINT,
        ))?;
        steps.finish(Step::BindSocket);
        let monitor = Monitor {
            program: boot.vmm.ok_or_else(|| missing("monitor"))?,
            agent: boot.agent.ok_or_else(|| missing("agent"))?,
            kernel: boot.kernel.ok_or_else(|| missing("kernel library"))?,
            spec: sealed(&machine).map_err(failed(Step::ReadSpec, "write the machine's description", ""))?,
            device: device::prepare()?,
            sockets: None,
        };
        let mut guest = jailed::boot(spec, boot.dir, boot.own_ids, monitor, Control::Awaited(control), steps)?;
        guest.sockets = Some(sockets);
        Ok(guest)
    }

    fn machine(&self, spec: &LaunchSpec) -> Option<Machine> {
        let tmpfs = spec.root.tmpfs.iter().map(|tmpfs| MachineTmpfs {
            target: tmpfs.target.clone(),
            size_bytes: tmpfs.size_bytes,
            mode: tmpfs.mode,
            readonly: tmpfs.readonly,
            noexec: tmpfs.noexec,
        });
        Some(Machine {
            hostname: spec.hostname.clone(),
            shm_bytes: super::shm_bytes(spec),
            pids: spec.limits.pids,
            tmpfs: tmpfs.collect(),
        })
    }
}

/// Layers of archives and what the product itself put under `/.msb` never change; a directory of this machine may, at any
/// time.
fn is_private(root: &RootSpec) -> bool {
    root.lowers.iter().all(|lower| !lower.host_ids) && root.binds.iter().all(|bind| bind.target.starts_with("/.msb/"))
}

/// A directory that the monitor shares with the runtime, and the socket in it where the agent's channel arrives. Both
/// belong to the inside root: no other user can open them.
fn bind_control_socket(dir: &SandboxDir, inside_root: (u32, u32)) -> Result<(OwnedFd, OwnedFd), Errno> {
    let owner = (fs::Uid::from_raw(inside_root.0), fs::Gid::from_raw(inside_root.1));
    match fs::mkdirat(&dir.runtime, SOCKETS, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let sockets = fs::openat(&dir.runtime, SOCKETS, flags, Mode::empty())?;
    for dir in [&sockets, &dir.runtime] {
        directory::remove_file(dir, "agent.sock")?;
    }
    let control = directory::listen(&sockets, CONTROL_SOCKET, SocketFlags::NONBLOCK, 1)?;
    fs::chownat(&sockets, CONTROL_SOCKET, Some(owner.0), Some(owner.1), fs::AtFlags::SYMLINK_NOFOLLOW)?;
    fs::fchown(&sockets, Some(owner.0), Some(owner.1))?;
    Ok((sockets, control))
}

fn sealed(machine: &MachineSpec) -> Result<OwnedFd, Errno> {
    let text = serde_json::to_vec(machine).map_err(|_| Errno::INVAL)?;
    let file = fs::memfd_create("msb-machine", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = &text[..];
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    fs::fcntl_add_seals(
        &file,
        fs::SealFlags::SEAL | fs::SealFlags::SHRINK | fs::SealFlags::GROW | fs::SealFlags::WRITE,
    )?;
    fs::seek(&file, fs::SeekFrom::Start(0))?;
    Ok(file)
}

/// The monitor as a tenant.
struct Monitor {
    program: OwnedFd,
    agent: OwnedFd,
    kernel: OwnedFd,
    spec: OwnedFd,
    device: device::Kvm,
    /// Opened inside, while the ids of the host still reach it.
    sockets: Option<OwnedFd>,
}

impl Tenant for Monitor {
    fn memory_bound(&self, spec: &LaunchSpec) -> String {
        format!("by the size of the machine, {} MiB, and what its monitor needs", spec.limits.memory_mib)
    }

    fn kind(&self) -> (contract::Driver, Option<Accelerator>) {
        (contract::Driver::Microvm, Some(Accelerator::Kvm))
    }

    fn limits(&self, spec: &LaunchSpec) -> ResourceLimits {
        ResourceLimits {
            cpus: spec.limits.cpus,
            memory_mib: spec.limits.memory_mib.saturating_add(MEMORY_OVERHEAD_MIB),
            pids: spec.limits.cpus.saturating_add(THREADS_OVERHEAD),
        }
    }

    fn keeps_groups(&self) -> bool {
        self.device.needs_groups()
    }

    fn open(&mut self) -> Result<(), Failure> {
        let path = format!("runtime/{SOCKETS}");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let sockets = fs::openat(CWD, path, flags, Mode::empty()).map_err(failed(
            Step::OpenLayers,
            "open the directory of the sockets",
            directory::HINT,
        ))?;
        self.sockets = Some(sockets);
        Ok(())
    }

    fn mount_root(
        &self,
        jail: &Jail<'_>,
        parts: &Parts,
        root: OwnedFd,
        log: &mut StepLog<'_>,
    ) -> Result<OwnedFd, Failure> {
        let spec = jail.spec;
        log.step(Step::WriteEtc, || {
            make_mount_points(&root).map_err(failed(
                Step::WriteEtc,
                "make the mount points of the guest",
                INSIDE_HINT,
            ))?;
            rootfs::write_etc(&root, parts, &spec.hostname)
        })?;
        log.step(Step::MountBinds, || {
            // Temporary file systems are the guest's own: its memory, its kernel. Their places are made here.
            let targets =
                Targets::new(&root).map_err(failed(Step::MountBinds, "look at the root directory", INSIDE_HINT))?;
            for tmpfs in &spec.root.tmpfs {
                targets.directory(&tmpfs.target).map_err(|refusal| refusal.of(&tmpfs.target, INSIDE_HINT))?;
            }
            let binds = RootSpec { tmpfs: Vec::new(), ..spec.root.clone() };
            rootfs::mount_requested(&root, &binds, parts, None)
        })?;
        log.step(Step::FurnishMonitor, || {
            self.own_root(parts, &root).map_err(failed(
                Step::FurnishMonitor,
                "make the root directory of the monitor",
                INSIDE_HINT,
            ))
        })
    }

    fn drop_privileges(&self, jail: &Jail<'_>) -> Result<Mechanism, Errno> {
        // What the guest creates has the mode that the guest says; sockets are the monitor's own.
        rustix::process::umask(Mode::from_raw_mode(0));
        let _ = rustix::process::setsid();
        if jail.pids_by_rlimit {
            caps::limit_processes(jail.spec.limits.cpus.saturating_add(THREADS_OVERHEAD))?;
        }
        // The file server holds a descriptor for each file that its guest has in use.
        caps::raise_files()?;
        caps::drop_to(caps::MONITOR)?;
        let kept = "the monitor, inside its user namespace: chown dac_override fowner fsetid setgid setuid";
        Ok(Mechanism::new(MechanismName::Capabilities, MechanismState::On, kept))
    }

    fn hand_over(&self, jail: &Jail<'_>) -> Result<(), Errno> {
        let null = fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        signal::default_all();
        signal::unblock_all();
        let places: [(BorrowedFd<'_>, i32); 8] = [
            (null.as_fd(), 0),
            (null.as_fd(), 1),
            (jail.console.as_fd(), 2),
            (self.spec.as_fd(), fd::SPEC),
            (self.kernel.as_fd(), fd::KERNEL),
            (self.agent.as_fd(), fd::AGENT),
            (jail.console.as_fd(), fd::CONSOLE),
            (jail.notes.as_fd(), fd::NOTES),
        ];
        // Lifted above every target, so that no source is overwritten before it is placed.
        let mut lifted = Vec::with_capacity(places.len());
        for (source, target) in places {
            lifted.push((rustix::io::fcntl_dupfd_cloexec(source, 64)?, target));
        }
        for (source, target) in &lifted {
            descriptor::place(source, *target)?;
        }
        descriptor::close_on_exec_from(fd::FIRST_CLOSED)
    }

    fn filter(&self) -> Result<Mechanism, Errno> {
        seccomp::install_for_monitor()?;
        Ok(Mechanism::new(MechanismName::Seccomp, MechanismState::On, "allow list of a monitor, default deny"))
    }

    fn last_step(&self) -> Step {
        Step::ExecuteMonitor
    }

    fn program(&self) -> Option<(BorrowedFd<'_>, Vec<&'static std::ffi::CStr>)> {
        Some((self.program.as_fd(), vec![c"msb-vmm"]))
    }
}

/// Where the guest's kernel file systems go, whatever the image has there.
fn make_mount_points(root: &OwnedFd) -> Result<(), Errno> {
    ["proc", "sys", "dev"].iter().try_for_each(|name| make::replace_with_dir(root, name).map(drop))
}

impl Monitor {
    /// A tiny read-only tree with the four things that the monitor uses.
    fn own_root(&self, parts: &Parts, guest: &OwnedFd) -> Result<OwnedFd, Errno> {
        let plain =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
        let options = [Opt::Text("mode", "755"), Opt::Text("size", "65536"), Opt::Text("nr_inodes", "64")];
        // With everything that is mounted in it; before the new tree lies over it.
        let guest = mounts::copy_tree(guest)?;
        let top = mounts::fresh("tmpfs", &options, plain)?;
        rootfs::attach_here(&top, parts)?;
        let place = |name: &str| make::replace_with_dir(&top, name);
        mounts::attach(guest, place("root")?)?;
        let sockets = self.sockets.as_ref().ok_or(Errno::BADF)?;
        let sockets = mounts::copy_tree(sockets)?;
        mounts::restrict(&sockets, mounts::NOSUID | mounts::NODEV | mounts::NOEXEC)?;
        mounts::attach(sockets, place("sockets")?)?;
        // The file server opens files anew through its own descriptors.
        mounts::attach(mounts::fresh("proc", &[Opt::Text("subset", "pid")], plain)?, place("proc")?)?;
        self.device.attach(&place("dev")?)?;
        mounts::freeze(&top)?;
        Ok(top)
    }
}
