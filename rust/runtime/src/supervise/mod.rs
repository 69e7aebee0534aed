//! Supervision of a guest: one loop over everything that can happen, from the first note of the child to the record of
//! its end.
//!
//! | module | holds |
//! |---|---|
//! | this file | the loop: what is watched, and the deadlines |
//! | [`events`] | what is done when a descriptor is ready |
//! | [`ready`] | the end of the boot |
//! | [`stop`] | ending the guest |
//! | [`end`] | the record of how it ended |

mod end;
mod events;
mod ready;
mod stop;

use std::time::{Duration, Instant};

use microsandbox_cgroups::{SupervisorGroups, supervisor};
use microsandbox_contract::note::Failure;
use microsandbox_contract::{ExitReason, LaunchSpec, Lifecycle, ProcessIdentity, Step};
use microsandbox_sys::signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use self::stop::Stop;
use crate::channel::Channel;
use crate::directory::SandboxDir;
use crate::driver::{Control as ControlLine, Guest};
use crate::logs::json_line::now_ns;
use crate::logs::{ExecLog, TextLog};
use crate::report::Reporter;
use crate::steps::Steps;

/// How long an agent may live on after it closed its end of the channel.
const SILENT_LIMIT: Duration = Duration::from_secs(2);

/// What the runtime watches besides its guest.
pub struct Lines {
    lifeline: Option<OwnedFd>,
    owner: Option<OwnedFd>,
    signals: OwnedFd,
}

impl Lines {
    /// Both count until the creator detaches the sandbox: one that is to be detached ends too, with a creator that dies
    /// before it has recorded the run.
    pub fn watch(lifeline: Option<OwnedFd>, owner: Option<OwnedFd>) -> Result<Lines, Errno> {
        const ENDING: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
        signal::block(&ENDING);
        let signals = signal::descriptor(&ENDING)?;
        if let Some(lifeline) = &lifeline {
            rustix::fs::fcntl_setfl(lifeline, rustix::fs::OFlags::NONBLOCK)?;
        }
        Ok(Lines { lifeline, owner, signals })
    }
}

enum Phase {
    /// Until the agent is ready. `failed` is the failure that the child reported.
    Booting {
        failed: Option<Failure>,
    },
    Running,
}

/// Everything about one live sandbox. Small: the specification is dropped once the agent is ready.
pub struct Supervisor {
    spec: Option<Box<LaunchSpec>>,
    lifecycle: Lifecycle,
    dir: SandboxDir,
    guest: Guest,
    notes: Vec<u8>,
    /// Where the agent of a machine connects, once.
    awaited: Option<OwnedFd>,
    channel: Channel,
    channel_ended: Option<Instant>,
    channel_busy: bool,
    /// A mark of the agent's in the log that is still to be answered.
    log_sync: Option<u64>,
    lines: Lines,
    log: ExecLog,
    kernel_log: TextLog,
    runtime_log: TextLog,
    steps: Steps,
    phase: Phase,
    stop: Option<Stop>,
    own: ProcessIdentity,
    _ids_lock: Option<OwnedFd>,
    /// The first process is an init of the image's: it may outlive the agent while it ends the sandbox.
    hands_over: bool,
    exit: Option<(Option<i32>, Option<i32>)>,
    boot_deadline: Instant,
    ends_at: Option<Instant>,
    last_activity: Instant,
    running: u32,
    /// Bounds what this process itself uses, once it has used some.
    own_groups: SupervisorGroups,
}

/// What the supervisor is made of, ready before the guest is started so that nothing can fail after it.
pub struct Parts {
    pub dir: SandboxDir,
    pub channel: Channel,
    pub lines: Lines,
    pub log: ExecLog,
    pub kernel_log: TextLog,
    pub runtime_log: TextLog,
    pub own: ProcessIdentity,
    /// The ids of the run are its own while this is open.
    pub ids_lock: Option<OwnedFd>,
}

/// Processor time that this process has used.
fn process_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(used.tv_sec).unwrap_or(0), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// What a poll entry stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Agent,
    Channel,
    Init,
    Lifeline,
    Owner,
    Signals,
    Console,
    Notes,
}

impl Supervisor {
    pub fn new(spec: LaunchSpec, mut guest: Guest, parts: Parts, steps: Steps) -> Supervisor {
        let Parts { dir, mut channel, lines, mut log, kernel_log, runtime_log, own, ids_lock } = parts;
        let awaited = match guest.control.take() {
            Some(ControlLine::Connected(socket)) => {
                channel.connect(socket);
                None
            }
            Some(ControlLine::Awaited(listener)) => Some(listener),
            None => None,
        };
        log.marker(now_ns(), "--- sandbox started ---");
        let now = Instant::now();
        Supervisor {
            lifecycle: spec.lifecycle,
            boot_deadline: now + Duration::from_millis(spec.lifecycle.ready_timeout_ms),
            ends_at: None,
            last_activity: now,
            running: 0,
            hands_over: spec.hands_over(),
            spec: Some(Box::new(spec)),
            dir,
            guest,
            notes: Vec::new(),
            awaited,
            channel,
            channel_ended: None,
            channel_busy: false,
            log_sync: None,
            lines,
            log,
            kernel_log,
            runtime_log,
            steps,
            phase: Phase::Booting { failed: None },
            stop: None,
            own,
            _ids_lock: ids_lock,
            exit: None,
            own_groups: SupervisorGroups::default(),
        }
    }

    fn enter_own_groups(&mut self) {
        if self.own_groups.is_pending() && process_time() >= supervisor::ENTER_AFTER {
            for failure in self.own_groups.enter() {
                self.note(&failure);
            }
        }
    }

    /// Runs the sandbox to its end; the result is the exit code of the process.
    pub fn run(mut self, reporter: &mut Reporter) -> i32 {
        self.steps.begin(Step::WaitForAgent);
        while self.exit.is_none() {
            let events = self.wait();
            for event in events {
                self.handle(event, reporter);
            }
            self.check_deadlines();
            self.log.flush();
            self.enter_own_groups();
            if !self.channel_busy {
                self.channel.shrink();
                self.log.shrink();
            }
        }
        self.finish(reporter)
    }

    /// Waits for something to happen, at most until the next deadline.
    fn wait(&mut self) -> Vec<Event> {
        let mut watched: Vec<(Event, BorrowedFd<'_>, PollFlags)> = Vec::with_capacity(8);
        if let Some(socket) = self.channel.socket().filter(|_| self.channel_ended.is_none()) {
            let flags = if self.channel.wants_to_send() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            watched.push((Event::Channel, socket, flags));
        }
        let optional = [
            (Event::Agent, &self.awaited),
            (Event::Lifeline, &self.lines.lifeline),
            (Event::Owner, &self.lines.owner),
            (Event::Console, &self.guest.console),
            (Event::Notes, &self.guest.notes),
        ];
        for (event, fd) in optional {
            watched.extend(fd.as_ref().map(|fd| (event, fd.as_fd(), PollFlags::IN)));
        }
        watched.push((Event::Init, self.guest.pidfd.as_fd(), PollFlags::IN));
        watched.push((Event::Signals, self.lines.signals.as_fd(), PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> =
            watched.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let timeout = self.next_deadline().map(|at| {
            // Rounded up, so that the deadline has passed when the wait ends.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let timeout = if self.channel_busy { Some(Timespec { tv_sec: 0, tv_nsec: 0 }) } else { timeout };
        // Only an interruption or a lack of memory can be the error; both are answered by trying again.
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let ready = fds.iter().zip(&watched).filter(|(fd, _)| !fd.revents().is_empty());
        ready.map(|(_, (event, ..))| *event).collect()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let booting = matches!(self.phase, Phase::Booting { .. }).then_some(self.boot_deadline);
        let silent = self.channel_ended.map(|since| since + SILENT_LIMIT).filter(|_| self.stop.is_none());
        let stop = self.stop.as_ref().filter(|stop| !stop.killed).map(|stop| stop.kill_at);
        let lifetime = self.ends_at.filter(|_| self.stop.is_none());
        [booting, silent, stop, lifetime, self.idle_deadline()].into_iter().flatten().min()
    }

    fn idle_deadline(&self) -> Option<Instant> {
        let limit = self.lifecycle.idle_timeout_ms.map(Duration::from_millis)?;
        let watching = matches!(self.phase, Phase::Running) && self.running == 0 && self.stop.is_none();
        watching.then(|| self.last_activity + limit)
    }

    fn check_deadlines(&mut self) {
        let now = Instant::now();
        if matches!(self.phase, Phase::Booting { .. }) && now >= self.boot_deadline && self.stop.is_none() {
            self.begin_stop(ExitReason::AgentUnresponsive, "the agent was not ready in time".into(), true);
        }
        if self.ends_at.is_some_and(|at| now >= at) {
            self.begin_stop(
                ExitReason::MaxDurationExceeded,
                "the sandbox has reached its maximum duration".into(),
                false,
            );
        }
        if self.idle_deadline().is_some_and(|at| now >= at) {
            self.begin_stop(
                ExitReason::IdleTimeout,
                "nothing happened in the sandbox for its idle timeout".into(),
                false,
            );
        }
        if self.stop.is_none() && self.channel_ended.is_some_and(|since| now >= since + SILENT_LIMIT) {
            self.agent_gone();
        }
        if self.stop.as_ref().is_some_and(|stop| !stop.killed && now >= stop.kill_at) {
            self.kill();
        }
    }

    fn note(&mut self, text: &str) {
        let mut line = Vec::new();
        crate::logs::json_line::timestamp(&mut line, now_ns());
        line.extend_from_slice(format!(" {text}\n").as_bytes());
        self.runtime_log.write(&line);
    }
}
