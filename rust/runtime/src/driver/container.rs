//! The namespace driver: the agent runs as PID 1 of its own namespaces on the host's kernel.

use microsandbox_protocol::launch::{IdMap, IsolationReport, LaunchSpec, Mechanism, MechanismState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use super::{Boot, Driver, Guest, Note};
use crate::failure::{Failure, failed};
use crate::jail::cgroups::{Cgroups, Join, mechanism};
use crate::jail::{caps, idmapped, ids, mounts, namespaces, seccomp};
use crate::rootfs::{self, Source};
use crate::steps::{Step, Steps};
use crate::syscall::{self, Cloned};

/// Descriptors the agent starts with; everything else is closed when it is executed.
const AGENT_LISTENER: i32 = 3;
const AGENT_PRIVATE: i32 = 4;
const FIRST_CLOSED: u32 = 5;

const CLONE_HINT: &str = "user namespaces must be allowed (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
     kernel.apparmor_restrict_unprivileged_userns)";
const INSIDE_HINT: &str =
    "the kernel refused a step that works inside user namespaces; a security module may forbid it";

/// The driver itself has no state.
pub struct Container;

/// What the child needs of its parent.
struct Inheritance<'a> {
    spec: &'a LaunchSpec,
    agent: Option<OwnedFd>,
    listener: OwnedFd,
    private: OwnedFd,
    /// One byte arrives when the ids are mapped.
    go: OwnedFd,
    joins: Vec<Join>,
    notes: OwnedFd,
    console: OwnedFd,
    attached: Vec<Option<String>>,
    trees: Vec<Option<Source>>,
    pids_by_rlimit: bool,
}

impl Driver for Container {
    fn boot(&self, boot: Boot<'_>, steps: &mut Steps) -> Result<Guest, Failure> {
        steps.begin(Step::MakeCgroups);
        let spec = boot.spec;
        let mut cgroups = Cgroups::create(&spec.name, &spec.sandbox_dir, &spec.limits);
        cgroups.record(&boot.dir.runtime);
        steps.finish(Step::MakeCgroups);
        match start(boot, &mut cgroups, steps) {
            Ok((pid, pidfd, notes, console, mut mechanisms)) => {
                mechanisms.extend(cgroups.mechanisms.iter().cloned());
                let isolation = IsolationReport { driver: "container".into(), accelerator: None, mechanisms };
                Ok(Guest { pid, pidfd, notes: Some(notes), console: Some(console), cgroups, isolation })
            }
            Err(failure) => {
                cgroups.remove();
                Err(failure)
            }
        }
    }
}

type Started = (i32, OwnedFd, OwnedFd, OwnedFd, Vec<Mechanism>);

fn start(boot: Boot<'_>, cgroups: &mut Cgroups, steps: &mut Steps) -> Result<Started, Failure> {
    let spec = boot.spec;
    let mut mechanisms = id_mechanisms(&spec.ids);

    steps.begin(Step::AttachLayers);
    // A new mount namespace takes the working directory along into its own copy of the mounts; descriptors it does not.
    rustix::process::fchdir(&boot.dir.root).map_err(failed(Step::AttachLayers, "enter the sandbox directory", ""))?;
    let (attached, note) = idmapped::attach_layers(spec)?;
    mechanisms.extend(note);
    let trees = prepare_sources(spec)?;
    steps.finish(Step::AttachLayers);

    steps.begin(Step::CloneInit);
    let pipe = |what: &str| {
        pipe_with(PipeFlags::CLOEXEC).map_err(failed(Step::CloneInit, format!("make the {what} pipe"), ""))
    };
    let (go_read, go_write) = pipe("go")?;
    let (notes_read, notes_write) = pipe("notes")?;
    let (console_read, console_write) = pipe("console")?;
    for read_end in [&notes_read, &console_read] {
        fs::fcntl_setfl(read_end, OFlags::NONBLOCK).map_err(failed(Step::CloneInit, "prepare the pipes", ""))?;
    }
    let inheritance = Inheritance {
        spec,
        agent: boot.agent,
        listener: boot.listener,
        private: boot.private,
        go: go_read,
        joins: cgroups.open_joins(),
        notes: notes_write,
        console: console_write,
        attached,
        trees,
        pids_by_rlimit: !cgroups.limits_pids(),
    };
    let (cloned, in_v2) = clone(cgroups).map_err(failed(Step::CloneInit, "create the namespaces", CLONE_HINT))?;
    let (pid, pidfd) = match cloned {
        Cloned::Child => {
            // The runtime's ends: only without them here does its death show.
            drop((go_write, notes_read, console_read));
            child(inheritance, steps)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(inheritance);
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
    Ok((pid, pidfd, notes_read, console_read, mechanisms))
}

/// Into the v2 leaf from the first instruction on, where the kernel and its owner allow that.
fn clone(cgroups: &Cgroups) -> Result<(Cloned, bool), Errno> {
    let leaf = cgroups
        .v2_leaf()
        .and_then(|path| fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok());
    if let Some(leaf) = &leaf
        && let Ok(cloned) = namespaces::clone_init(Some(leaf.as_fd()))
    {
        return Ok((cloned, true));
    }
    Ok((namespaces::clone_init(None)?, false))
}

/// As host root the runtime may reach sources that the sandbox's ids may not; it makes those mounts itself.
fn prepare_sources(spec: &LaunchSpec) -> Result<Vec<Option<Source>>, Failure> {
    let privileged = rustix::process::geteuid().is_root();
    let prepare = |bind| if privileged { rootfs::prepare_source(bind).map(Some) } else { Ok(None) };
    spec.root.binds.iter().map(prepare).collect()
}

fn id_mechanisms(ids: &IdMap) -> Vec<Mechanism> {
    use MechanismState::{Degraded, On};
    let range = match ids {
        IdMap::Range { base, count } => mechanism("id_range", On, Some(format!("host ids {base}..{}", base + count))),
        IdMap::Subordinate { sub_uid, count, .. } => mechanism(
            "id_range",
            On,
            Some(format!("inside root is the calling user, other ids are host ids {sub_uid}..{}", sub_uid + count)),
        ),
        IdMap::Single { uid, .. } => mechanism(
            "id_range",
            Degraded,
            Some(format!(
                "only root exists inside, as host uid {uid}: chown to other ids and su cannot work; add ranges to \
                 /etc/subuid and /etc/subgid and install newuidmap for more"
            )),
        ),
    };
    let plain = |name| mechanism(name, On, None);
    let mut all = vec![plain("user_namespace"), range];
    all.extend(["pid_namespace", "mount_namespace", "ipc_namespace", "uts_namespace", "net_namespace"].map(plain));
    all
}

/// Runs in the child, never returns.
fn child(inheritance: Inheritance<'_>, steps: &Steps) -> ! {
    let mut told = Told { steps, notes: inheritance.notes.as_fd(), lines: String::new() };
    let Err(failure) = become_init(&inheritance, &mut told);
    told.tell(&Note::Failed(failure));
    told.send();
    syscall::exit_now(1)
}

/// Collects notes; a pipe takes all of them at once just before the program is executed.
struct Told<'a> {
    steps: &'a Steps,
    notes: rustix::fd::BorrowedFd<'a>,
    lines: String,
}

impl Told<'_> {
    fn tell(&mut self, note: &Note) {
        // Notes are plain data; serializing them cannot fail.
        self.lines.push_str(&serde_json::to_string(note).unwrap_or_default());
        self.lines.push('\n');
    }

    fn send(&mut self) {
        let _ = rustix::io::write(self.notes, self.lines.as_bytes());
        self.lines.clear();
    }

    fn step<T>(&mut self, step: Step, run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        if self.steps.is_failpoint(step) {
            self.tell(&Note::Failpoint);
            self.send();
            // The runtime kills itself now, and this process goes with it.
            loop {
                std::thread::park();
            }
        }
        let result = run()?;
        self.tell(&Note::Done(step, self.steps.now_us()));
        Ok(result)
    }
}

fn become_init(own: &Inheritance<'_>, told: &mut Told<'_>) -> Result<std::convert::Infallible, Failure> {
    let spec = own.spec;
    let inside = |step, action| failed(step, action, INSIDE_HINT);
    let mut byte = [0; 1];
    if rustix::io::read(&own.go, &mut byte) != Ok(1) {
        // The runtime is gone, or has given up; nobody listens to what would be said here.
        syscall::exit_now(1);
    }
    die_with_parent(own, Step::JoinCgroups)?;
    let lost = told.step(Step::JoinCgroups, || Ok(own.joins.iter().flat_map(Join::join).collect::<Vec<_>>()))?;
    for line in lost {
        told.tell(&Note::Mechanism(line));
    }
    // Still with the ids of the host outside the mapping: what those may reach can be opened now.
    let parts = told.step(Step::OpenLayers, || {
        mounts::make_private().map_err(inside(Step::OpenLayers, "make the mounts private"))?;
        rootfs::open_parts(&spec.root, &own.attached, own.trees.iter().map(reborrow).collect())
    })?;
    told.step(Step::EnterIds, || enter_ids(&spec.ids).map_err(inside(Step::EnterIds, "become the inside root")))?;
    // A change of ids or capabilities clears the death signal.
    die_with_parent(own, Step::EnterIds)?;
    let namespace = namespaces::enter_cgroup_namespace();
    told.tell(&Note::Mechanism(match namespace {
        Ok(()) => mechanism("cgroup_namespace", MechanismState::On, None),
        Err(error) => mechanism("cgroup_namespace", MechanismState::Off, Some(error.to_string())),
    }));
    let root = told.step(Step::MountOverlay, || rootfs::mount_overlay(&parts))?;
    told.step(Step::MountProc, || rootfs::mount_proc(&root))?;
    told.step(Step::MountSys, || rootfs::mount_sys(&root))?;
    let shm_bytes = spec.limits.memory_mib.saturating_mul(1 << 20) / 2;
    told.step(Step::MountDev, || rootfs::mount_dev(&root, ids::count(&spec.ids), shm_bytes))?;
    told.step(Step::WriteEtc, || rootfs::write_etc(&root, &parts, &spec.hostname))?;
    told.step(Step::MountBinds, || rootfs::mount_requested(&root, &spec.root, &parts))?;
    told.step(Step::StartNetwork, || {
        namespaces::loopback_up().map_err(inside(Step::StartNetwork, "bring up the loopback interface"))?;
        rustix::system::sethostname(spec.hostname.as_bytes()).map_err(inside(Step::StartNetwork, "set the host name"))
    })?;
    told.step(Step::PivotRoot, || mounts::pivot(&root).map_err(inside(Step::PivotRoot, "change the root directory")))?;
    told.step(Step::DropPrivileges, || {
        drop_privileges(own).map_err(inside(Step::DropPrivileges, "give up privileges"))
    })?;
    die_with_parent(own, Step::DropPrivileges)?;
    told.tell(&Note::Mechanism(mechanism(
        "capabilities",
        MechanismState::On,
        Some("inside its user namespace: chown dac_override fowner fsetid kill setgid setuid net_bind_service".into()),
    )));
    told.tell(&Note::Mechanism(mechanism("no_new_privs", MechanismState::On, None)));
    told.step(Step::InstallFilter, || {
        hand_over(own).map_err(inside(Step::InstallFilter, "arrange the agent's descriptors"))?;
        seccomp::install().map_err(inside(Step::InstallFilter, "install the system call filter"))
    })?;
    told.tell(&Note::Mechanism(mechanism("seccomp", MechanismState::On, Some("allow list, default deny".into()))));
    told.step(Step::ExecuteAgent, || Ok(()))?;
    told.send();
    let Some(agent) = &own.agent else { syscall::exit_now(0) };
    let error = syscall::exec_fd(agent, c"msb-agent");
    Err(Failure::call(Step::ExecuteAgent, "execute the agent", error, "this is a fault of the build: report it"))
}

/// The sources are used once, by the child, which never returns to drop them.
fn reborrow(tree: &Option<Source>) -> Option<Source> {
    match tree {
        None => None,
        Some(Source::Absent) => Some(Source::Absent),
        Some(Source::Tree(fd)) => rustix::io::fcntl_dupfd_cloexec(fd, 0).ok().map(Source::Tree),
        Some(Source::Path(fd)) => rustix::io::fcntl_dupfd_cloexec(fd, 0).ok().map(Source::Path),
    }
}

fn die_with_parent(own: &Inheritance<'_>, step: Step) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed(
        step,
        "bind the sandbox's life to the runtime's",
        INSIDE_HINT,
    ))?;
    // It may have died before that: then nobody is left to read what we tell.
    let mut notes = [PollFd::new(&own.notes, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut notes, Some(&now)).is_ok() && notes[0].revents().contains(PollFlags::ERR) {
        syscall::exit_now(1);
    }
    Ok(())
}

fn enter_ids(map: &IdMap) -> Result<(), Errno> {
    if ids::allows_setgroups(map) {
        rustix::thread::set_thread_groups(&[])?;
    }
    let (uid, gid) = (fs::Uid::ROOT, fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // A process that changed its ids is not dumpable, and its own /proc entries would not be its own.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
}

fn drop_privileges(own: &Inheritance<'_>) -> Result<(), Errno> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Fails only for a process that leads its group already.
    let _ = rustix::process::setsid();
    caps::set_limits(own.pids_by_rlimit.then_some(u64::from(own.spec.limits.pids)))?;
    caps::drop_to_kept()
}

fn hand_over(own: &Inheritance<'_>) -> Result<(), Errno> {
    let null = fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    syscall::reset_signals();
    // None of the sources has one of the target numbers: those were open when the runtime started.
    syscall::place_fd(&null, 0)?;
    syscall::place_fd(&null, 1)?;
    syscall::place_fd(&own.console, 2)?;
    syscall::place_fd(&own.listener, AGENT_LISTENER)?;
    syscall::place_fd(&own.private, AGENT_PRIVATE)?;
    syscall::cloexec_from(FIRST_CLOSED)
}
