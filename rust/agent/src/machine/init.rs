//! What must be true before the first frame.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use microsandbox_sys::spawn::Limit;
use microsandbox_sys::{descriptor, heap, signal};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, WaitOptions};

use crate::files::root::Root;
use crate::machine;
use crate::machine::handover::Successor;
use crate::sessions::procfs::Procfs;

/// The inherited listening socket.
const LISTENER: i32 = 3;
/// The inherited private channel to the runtime.
const CONTROL: i32 = 4;
/// Most descriptors the agent itself will use.
const MAX_FILES: u64 = 65_536;

/// Everything the server starts with.
pub struct Setup {
    pub listener: OwnedFd,
    pub signals: OwnedFd,
    pub null: OwnedFd,
    pub root: Arc<Root>,
    pub procfs: Procfs,
    /// The agent is the init of its pid namespace: every process it can see is its own to end.
    pub is_init: bool,
    /// The kernel is its own too.
    pub owns_machine: bool,
    /// Another program becomes the init, as soon as the runtime says which.
    pub successor: Option<Successor>,
    /// It is to, or has.
    pub hands_over: bool,
    /// The descriptor limit programs get: the one the agent was started with.
    pub nofile: Limit,
    /// When the first instruction ran.
    pub started: Instant,
    pub started_ns: u64,
}

/// Makes this process fit to be PID 1. From here on children are reaped: their ends wait in the signal descriptor.
pub fn prepare(owns_machine: bool, successor: Option<Successor>) -> io::Result<(Setup, OwnedFd)> {
    let started = Instant::now();
    let started_ns = monotonic_ns();
    quiet_signals();
    heap::tune();
    rustix::process::umask(Mode::empty());
    // No process inside may trace the agent or read the session token from its memory.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let own = rustix::process::getpid();
    let is_init = own.as_raw_nonzero().get() == 1;
    if !is_init {
        rustix::process::set_child_subreaper(Some(own))?;
    }
    let (listener, control) = if owns_machine { machine::begin()? } else { inherit()? };
    let setup = Setup {
        listener,
        signals: signal::descriptor(&[&[libc::SIGCHLD], &END_REQUESTS[..]].concat())?,
        null: open_null()?,
        root: Arc::new(Root::of_process()?),
        procfs: Procfs::open(),
        is_init,
        owns_machine,
        hands_over: successor.is_some(),
        successor,
        nofile: raise_nofile(),
        started,
        started_ns,
    };
    Ok((setup, control))
}

/// A program ends the machine by one of these signals to its init: those of busybox's `reboot`, `poweroff` and `halt`.
pub const END_REQUESTS: [i32; 3] = [libc::SIGTERM, libc::SIGUSR2, libc::SIGUSR1];

/// Blocks every signal and sets every action to the default: no handler can ever run in a child that shares this memory.
fn quiet_signals() {
    signal::block_all();
    signal::default_all();
}

/// In a container both sockets are there already.
fn inherit() -> io::Result<(OwnedFd, OwnedFd)> {
    let take = |number, what: &str| {
        let taken = descriptor::inherit(number).and_then(|fd| rustix::io::ioctl_fionbio(&fd, true).map(|()| fd));
        taken.map_err(|error| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("{what}: {error}"))
        })
    };
    let control = take(CONTROL, "private channel on descriptor 4")?;
    let listener = take(LISTENER, "listening socket on descriptor 3")?;
    Ok((listener, control))
}

/// The agent's stdin is `/dev/null` by contract; a sandbox cannot have replaced what was opened before it ran.
fn open_null() -> io::Result<OwnedFd> {
    let stdin = rustix::stdio::stdin();
    let stat = rustix::fs::fstat(stdin)?;
    if rustix::fs::major(stat.st_rdev) == 1 && rustix::fs::minor(stat.st_rdev) == 3 {
        return Ok(rustix::io::fcntl_dupfd_cloexec(stdin, 5)?);
    }
    match rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(fd),
        // Without the device, a pipe without a writer reads the same: every read returns end of file.
        Err(_) => Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?.0),
    }
}

fn raise_nofile() -> Limit {
    let old = rustix::process::getrlimit(Resource::Nofile);
    let hard = old.maximum.unwrap_or(u64::MAX);
    let before = Limit { resource: libc::RLIMIT_NOFILE, soft: old.current.unwrap_or(hard), hard };
    let wanted = Rlimit { current: Some(hard.min(MAX_FILES)), maximum: old.maximum };
    // Fewer descriptors only mean fewer concurrent sessions.
    let _ = rustix::process::setrlimit(Resource::Nofile, wanted);
    before
}

/// Nanoseconds of the monotonic clock.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Nanoseconds since the epoch.
pub fn realtime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Reaped {
    /// Ended processes, orphans included.
    pub ended: Vec<(i32, ExitStatus)>,
    /// No child is left at all.
    pub childless: bool,
}

/// Collects every child that has ended.
pub fn reap() -> Reaped {
    let mut out = Reaped::default();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let end = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => ExitStatus::Code(code),
                    (None, Some(signal)) => ExitStatus::Signal(signal),
                    (None, None) => continue,
                };
                out.ended.push((pid.as_raw_nonzero().get(), end));
            }
            Ok(None) => return out,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                out.childless = true;
                return out;
            }
        }
    }
}

/// The last step of an orderly end. In a container the process simply exits and the kernel ends its namespace; in a
/// microVM the machine is powered off once the server has returned.
pub fn finish(root: &Root, sync: bool) {
    if sync && let Ok(dir) = rustix::fs::openat(root.fd(), c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        // `syncfs` rather than `sync`: a container shares its kernel with file systems that are not its business.
        let _ = rustix::fs::syncfs(File::from(dir).as_fd());
    }
}
