//! The namespace driver: the agent runs as PID 1 of its own namespaces on the host's kernel.

use microsandbox_contract::{
    self as contract, Accelerator, IdMap, LaunchSpec, Mechanism, MechanismName, MechanismState, ResourceLimits,
};
use microsandbox_protocol::machine::HANDOVER_ARGUMENT;
use microsandbox_sys::{descriptor, inherited, signal};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::jailed::{self, INSIDE_HINT, Jail, StepLog, Tenant};
use super::{Boot, Control, Driver, Guest, refresh};
use crate::directory;
use crate::steps::Steps;
use microsandbox_contract::Step;
use microsandbox_contract::note::{Failure, Note, failed};
use microsandbox_jail::rootfs::{self, Parts};
use microsandbox_jail::{caps, devices, ids, namespaces, seccomp};

/// Descriptors the agent starts with; everything else is closed when it is executed.
const AGENT_LISTENER: i32 = 3;
const AGENT_PRIVATE: i32 = 4;
const FIRST_CLOSED: u32 = 5;
/// Clients that may wait for the agent to accept them.
const BACKLOG: i32 = 128;

/// The driver itself has no state.
pub struct Container;

impl Driver for Container {
    fn boot(&self, boot: Boot<'_>, steps: &mut Steps) -> Result<Guest, Failure> {
        steps.begin(Step::BindSocket);
        let listener = directory::listen(&boot.dir.runtime, "agent.sock", SocketFlags::empty(), BACKLOG)
            .map_err(failed(Step::BindSocket, "bind runtime/agent.sock", directory::HINT))?;
        let (ours, private) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(failed(Step::BindSocket, "make the private channel", ""))?;
        fs::fcntl_setfl(&ours, OFlags::NONBLOCK).map_err(failed(Step::BindSocket, "make the private channel", ""))?;
        steps.finish(Step::BindSocket);
        let agent = Agent {
            program: boot.agent,
            listener,
            private,
            hands_over: boot.spec.hands_over(),
            devices: own_devices(&boot.spec.ids),
        };
        jailed::boot(boot.spec, boot.dir, boot.own_ids, agent, Control::Connected(ours), steps).inspect_err(|_| {
            let _ = directory::remove_file(&boot.dir.runtime, "agent.sock");
        })
    }
}

/// Device nodes of our own. An ordinary user may not make any, nor may root in some containers: there the host's are bound.
fn own_devices(map: &IdMap) -> Option<OwnedFd> {
    let is_root = rustix::process::geteuid().is_root();
    is_root.then(|| devices::own(&devices::PROGRAMS, &rootfs::DEV_OPTIONS, ids::root_ids(map)).ok()).flatten()
}

/// Whether programs that look at the size of the machine see that of the sandbox.
fn machine_size(limits: ResourceLimits) -> Mechanism {
    let about = rustix::system::sysinfo();
    let memory_mib = (about.totalram as u64).saturating_mul(u64::from(about.mem_unit)) >> 20;
    let cpus = rustix::thread::sched_getaffinity(None).map_or(0, |set| set.count());
    if limits.cpus >= cpus && limits.memory_mib >= memory_mib {
        return Mechanism::on(MechanismName::MachineSize);
    }
    let reason = format!(
        "programs see the {cpus} processors and {memory_mib} MiB of this machine, not their limits of {} and {} MiB",
        limits.cpus, limits.memory_mib
    );
    Mechanism::new(MechanismName::MachineSize, MechanismState::Off, reason)
}

/// The agent as a tenant.
struct Agent {
    program: Option<OwnedFd>,
    listener: OwnedFd,
    private: OwnedFd,
    hands_over: bool,
    /// Its `/dev`, with our own nodes.
    devices: Option<OwnedFd>,
}

impl Tenant for Agent {
    fn kind(&self) -> (contract::Driver, Option<Accelerator>) {
        (contract::Driver::Container, None)
    }

    fn memory_bound(&self, spec: &LaunchSpec) -> String {
        let tmpfs: u64 = spec.root.tmpfs.iter().map(|tmpfs| tmpfs.size_bytes).sum();
        format!(
            "by RLIMIT_DATA, {} MiB of private memory for each process, and by the sizes of its tmpfs mounts, {} MiB; not for \
             all processes together, and not for files without a name (memfd)",
            spec.limits.memory_mib,
            (tmpfs.saturating_add(super::shm_bytes(spec))) >> 20
        )
    }

    fn has_views(&self) -> bool {
        true
    }

    fn mount_root(
        &self,
        jail: &Jail<'_>,
        parts: &Parts,
        root: OwnedFd,
        log: &mut StepLog<'_>,
    ) -> Result<OwnedFd, Failure> {
        let spec = jail.spec;
        let inside = |step, action| failed(step, action, INSIDE_HINT);
        let id_count = ids::count(&spec.ids);
        let devices = self.devices.as_ref().map(AsFd::as_fd);
        log.step(Step::MountProc, || {
            rootfs::place_devices(&root, devices)?;
            rootfs::mount_proc(&root, id_count, devices)
        })?;
        log.step(Step::MountSys, || rootfs::mount_sys(&root, devices))?;
        let shm_bytes = super::shm_bytes(spec);
        log.step(Step::MountDev, || rootfs::mount_dev(&root, id_count, shm_bytes, devices))?;
        log.step(Step::WriteEtc, || rootfs::write_etc(&root, parts, &spec.hostname))?;
        let mut views = rootfs::views(parts)?;
        log.step(Step::MountBinds, || rootfs::mount_requested(&root, &spec.root, parts, Some(&mut views)))?;
        if let Some(mechanism) = views.mechanism() {
            log.note(&Note::Mechanism(mechanism));
        }
        // A probe has no size.
        if self.program.is_some() {
            log.note(&Note::Mechanism(machine_size(spec.limits)));
        }
        if let Some(refresher) = &jail.refresh {
            refresh::hand_over(refresher, &views.live())
                .map_err(inside(Step::MountBinds, "hand over the read-only mounts"))?;
        }
        log.step(Step::StartNetwork, || {
            namespaces::loopback_up().map_err(inside(Step::StartNetwork, "bring up the loopback interface"))?;
            rustix::system::sethostname(spec.hostname.as_bytes())
                .map_err(inside(Step::StartNetwork, "set the host name"))
        })?;
        Ok(root)
    }

    fn drop_privileges(&self, jail: &Jail<'_>) -> Result<Mechanism, Errno> {
        // Fails only for a process that leads its group already.
        let _ = rustix::process::setsid();
        if jail.pids_by_rlimit {
            caps::limit_processes(jail.spec.limits.pids)?;
        }
        if jail.memory_by_rlimit {
            caps::limit_data(jail.spec.limits.memory_mib)?;
        }
        let asked = jail.spec.bootstrap.rlimits.iter().filter(|limit| limit.resource == "nofile");
        let files = asked.map(|limit| limit.hard).fold(inherited::OPEN_FILES, u64::max);
        inherited::limit_open_files(files)?;
        caps::drop_to(caps::PROGRAMS)?;
        let kept = "inside its user namespace: chown dac_override fowner fsetid kill setgid setuid net_bind_service";
        Ok(Mechanism::new(MechanismName::Capabilities, MechanismState::On, kept))
    }

    fn hand_over(&self, jail: &Jail<'_>) -> Result<(), Errno> {
        let null = fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        signal::default_all();
        signal::unblock_all();
        // None of the sources has one of the target numbers: those were open when the runtime started.
        descriptor::place(&null, 0)?;
        descriptor::place(&null, 1)?;
        descriptor::place(&jail.console, 2)?;
        descriptor::place(&self.listener, AGENT_LISTENER)?;
        descriptor::place(&self.private, AGENT_PRIVATE)?;
        descriptor::close_on_exec_from(FIRST_CLOSED)
    }

    fn filter(&self) -> Result<Mechanism, Errno> {
        seccomp::install()?;
        Ok(Mechanism::new(MechanismName::Seccomp, MechanismState::On, "allow list, default deny"))
    }

    fn last_step(&self) -> Step {
        Step::ExecuteAgent
    }

    fn program(&self) -> Option<(BorrowedFd<'_>, Vec<&'static std::ffi::CStr>)> {
        let arguments = if self.hands_over { vec![c"msb-agent", HANDOVER_ARGUMENT] } else { vec![c"msb-agent"] };
        self.program.as_ref().map(|program| (program.as_fd(), arguments))
    }
}
