//! Supervision of a guest: one loop over everything that can happen, from the first note of the child to the record of
//! its end.

mod end;

use std::time::{Duration, Instant};

use microsandbox_contract::{
    ExitReason, Identity, IsolationReport, LaunchReady, LaunchSpec, Lifecycle, ProcessIdentity, Report,
};
use microsandbox_protocol::frame::{Flags, Frame};
use microsandbox_protocol::message::{Activity, Kind, Ready, Shutdown};
use microsandbox_sys::{heap, process, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::Signal;
use serde::Deserialize;

use crate::channel::{Channel, Turn};
use crate::directory::{self, SandboxDir};
use crate::driver::{Control as ControlLine, Guest};
use crate::logs::TextLog;
use crate::logs::json_line::now_ns;
use crate::logs::{ExecLog, Source};
use crate::report::Reporter;
use crate::steps::{Steps, epoch_ms};
use crate::{identity, steps};
use microsandbox_contract::Step;
use microsandbox_contract::note::Note;
use microsandbox_contract::note::{Failure, failed};
use microsandbox_jail::landlock;

/// From the end of the grace period to killing the guest: time for the agent to kill, flush and sync.
const AGENT_MARGIN: Duration = Duration::from_secs(2);
/// How long an agent may live on after it closed its end of the channel.
const SILENT_LIMIT: Duration = Duration::from_secs(2);
/// Bytes read from the console at a time.
const CONSOLE_ROOM: usize = 4096;

/// What the runtime watches besides its guest.
pub struct Lines {
    lifeline: Option<OwnedFd>,
    owner: Option<OwnedFd>,
    signals: OwnedFd,
}

impl Lines {
    /// Both count until the creator says that it lets go: a detached sandbox too ends with a creator that dies before it
    /// has recorded it.
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

/// A record of output, borrowed from its frame.
#[derive(Deserialize)]
struct LogRef<'a> {
    source: u8,
    time_ns: u64,
    #[serde(borrow, with = "serde_bytes")]
    data: &'a [u8],
}

/// Why the sandbox is being ended.
#[derive(Debug, Clone)]
struct Stop {
    reason: ExitReason,
    detail: String,
    kill_at: Instant,
    killed: bool,
    /// Reason and detail should the guest have to be killed, where that makes it another end.
    if_killed: Option<(ExitReason, &'static str)>,
}

enum Phase {
    /// Until the agent is ready. `failed` is what the child said.
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
    lines: Lines,
    log: ExecLog,
    kernel_log: TextLog,
    runtime_log: TextLog,
    steps: Steps,
    phase: Phase,
    stop: Option<Stop>,
    own: ProcessIdentity,
    /// The first process is an init of the image's: it may outlive the agent while it ends the sandbox.
    hands_over: bool,
    exit: Option<(Option<i32>, Option<i32>)>,
    boot_deadline: Instant,
    ends_at: Option<Instant>,
    last_activity: Instant,
    running: u32,
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
        let Parts { dir, mut channel, lines, mut log, kernel_log, runtime_log, own } = parts;
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
            lines,
            log,
            kernel_log,
            runtime_log,
            steps,
            phase: Phase::Booting { failed: None },
            stop: None,
            own,
            exit: None,
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

    /// The agent has closed its end. An init that ends the sandbox has ended the agent first, and gets the time to finish.
    fn agent_gone(&mut self) {
        let booting = matches!(self.phase, Phase::Booting { .. });
        if !self.hands_over || booting {
            return self.begin_stop(
                ExitReason::AgentUnresponsive,
                "the agent closed its channel and did not end".into(),
                true,
            );
        }
        self.note("ending: the agent is gone, as when an init ends its sandbox");
        let if_killed = Some((ExitReason::AgentUnresponsive, "the agent is gone, and the init went on"));
        self.stop = Some(Stop { if_killed, ..self.stop_for(ExitReason::Completed, "its init ended it".into()) });
    }

    fn handle(&mut self, event: Event, reporter: &mut Reporter) {
        match event {
            Event::Agent => self.accept_agent(),
            Event::Channel => self.read_channel(reporter),
            Event::Init => self.exit = process::reap(self.guest.pid),
            Event::Lifeline => self.read_lifeline(),
            Event::Owner => self.owner_ended(),
            Event::Signals => self.read_signals(),
            Event::Console => self.read_console(),
            Event::Notes => self.read_notes(),
        }
    }

    /// The agent is the first program of its kernel, so the first connection is its; nothing else is ever accepted.
    fn accept_agent(&mut self) {
        let Some(listener) = &self.awaited else { return };
        match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => {
                self.steps.finish(Step::BootKernel);
                self.awaited = None;
                self.channel.connect(socket);
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => {
                self.awaited = None;
                let text = format!("the connection of the agent cannot be accepted: {error}");
                self.begin_stop(ExitReason::InternalError, text, true);
            }
        }
    }

    fn read_lifeline(&mut self) {
        let Some(lifeline) = &self.lines.lifeline else { return };
        let mut byte = [0; 1];
        match rustix::io::read(lifeline, &mut byte) {
            Ok(1) if byte == *b"d" => {
                self.lines.lifeline = None;
                self.lines.owner = None;
                self.note("detached by the creator");
            }
            Ok(1) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => {
                self.lines.lifeline = None;
                self.begin_stop(ExitReason::ShutdownRequested, "the creator let go of the sandbox".into(), false);
            }
        }
    }

    /// A creator that let go of the sandbox and ended right away is noticed in the same moment: what it said counts first.
    fn owner_ended(&mut self) {
        self.read_lifeline();
        if self.lines.owner.take().is_some() {
            self.begin_stop(
                ExitReason::ShutdownRequested,
                "the process that created the sandbox has ended".into(),
                false,
            );
        }
    }

    fn read_signals(&mut self) {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        while matches!(rustix::io::read(&self.lines.signals, &mut info), Ok(count) if count > 0) {
            // The first field of signalfd_siginfo is the number.
            let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            if self.stop.is_some() {
                // Asked twice: no more patience.
                self.kill();
            }
            self.begin_stop(ExitReason::ShutdownRequested, format!("the runtime received signal {number}"), false);
        }
    }

    fn read_console(&mut self) {
        let Some(console) = &self.guest.console else { return };
        let mut room = [0; CONSOLE_ROOM];
        match rustix::io::read(console, &mut room) {
            Ok(0) => self.guest.console = None,
            Ok(count) => self.kernel_log.write(&room[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.guest.console = None,
        }
    }

    fn read_notes(&mut self) {
        let Some(notes) = &self.guest.notes else { return };
        let mut room = [0; CONSOLE_ROOM];
        match rustix::io::read(notes, &mut room) {
            Ok(0) => self.guest.notes = None,
            Ok(count) => self.notes.extend_from_slice(&room[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.guest.notes = None,
        }
        while let Some(end) = self.notes.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.notes.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(Note::Done(step, at_us)) => self.steps.record(step, at_us),
                Ok(Note::Mechanism(line)) => self.guest.isolation.replace(line),
                Ok(Note::Failed(failure)) => self.phase = Phase::Booting { failed: Some(failure) },
                Ok(Note::Failpoint) => steps::kill_self(),
                Err(error) => self.note(&format!("a note of the child cannot be read: {error}")),
            }
        }
        if self.guest.notes.is_none() {
            self.notes = Vec::new();
        }
    }

    fn read_channel(&mut self, reporter: &mut Reporter) {
        self.channel.flush();
        let mut control = Vec::new();
        let log = &mut self.log;
        let turn = self.channel.receive(|frame| take_frame(log, frame, &mut control));
        self.channel_busy = matches!(turn, Ok(Turn::More));
        for message in control {
            match message {
                Control::Ready(ready) => self.became_ready(ready, reporter),
                Control::Activity(activity) => {
                    self.running = activity.running;
                    self.last_activity = Instant::now();
                }
            }
        }
        match turn {
            Ok(Turn::Drained | Turn::More) => {}
            Ok(Turn::Ended) => self.channel_ended = Some(Instant::now()),
            Err(error) => {
                self.channel_ended = Some(Instant::now());
                self.begin_stop(ExitReason::AgentUnresponsive, format!("the agent broke the protocol: {error}"), true);
            }
        }
    }

    fn became_ready(&mut self, ready: Ready, reporter: &mut Reporter) {
        // A second `ready` is the guest's joke.
        let Some(spec) = self.spec.take() else { return };
        // The child has executed the agent, so all its notes are in the pipe.
        while self.guest.notes.is_some() {
            self.read_notes();
        }
        self.steps.finish(Step::WaitForAgent);
        self.phase = Phase::Running;
        self.last_activity = Instant::now();
        self.ends_at = self.lifecycle.max_duration_ms.map(|ms| self.last_activity + Duration::from_millis(ms));
        self.steps.begin(Step::WriteIdentity);
        if let Err(failure) = self.publish_socket() {
            self.phase = Phase::Booting { failed: Some(failure) };
            self.kill();
            return;
        }
        let confined = landlock::confine_supervisor(&spec.sandbox_dir, &self.guest.cgroups.paths());
        self.guest.isolation.mechanisms.push(confined);
        self.guest.isolation.mechanisms.push(self.guest.cgroups.tree_kill());
        let identity = match self.publish_identity(&spec) {
            Ok(identity) => identity,
            Err(failure) => {
                self.phase = Phase::Booting { failed: Some(failure) };
                self.kill();
                return;
            }
        };
        self.steps.finish(Step::WriteIdentity);
        let agent_version = ready.agent_version.map(|version| version.chars().take(64).collect());
        let timings = self.steps.take();
        reporter.send(&Report::Ready(Box::new(LaunchReady { identity, timings, agent_version })));
        reporter.close();
        self.guest.isolation = IsolationReport::default();
        self.kernel_log.forget_tail();
        drop(spec);
        heap::trim();
    }

    /// A monitor has bound the agent's socket in a directory of its own; clients look for it in the runtime's.
    fn publish_socket(&mut self) -> Result<(), Failure> {
        let Some(sockets) = self.guest.sockets.take() else { return Ok(()) };
        rustix::fs::renameat(&sockets, "agent.sock", &self.dir.runtime, "agent.sock").map_err(failed(
            Step::WaitForAgent,
            "move agent.sock of the virtual machine into place",
            "see logs/kernel.log in the sandbox's directory",
        ))
    }

    fn publish_identity(&self, spec: &LaunchSpec) -> Result<Identity, Failure> {
        let step = Step::WriteIdentity;
        let init = identity::of(self.guest.pid)
            .ok_or_else(|| Failure::new(step, "the sandbox ended while it was booting", "see logs/kernel.log"))?;
        let identity = Identity {
            runtime: self.own.clone(),
            init,
            driver: spec.driver.into(),
            cgroups: self.guest.cgroups.paths(),
            started_at_ms: epoch_ms(),
            isolation: self.guest.isolation.clone(),
        };
        let text = serde_json::to_vec(&identity).map_err(|error| Failure::new(step, error.to_string(), ""))?;
        directory::publish(&self.dir.runtime, "identity.json", &text).map_err(failed(
            step,
            "write runtime/identity.json",
            "check the free space of the product home",
        ))?;
        Ok(identity)
    }

    /// Asks the guest to end; `at_once` kills it. Only the first reason counts.
    fn begin_stop(&mut self, reason: ExitReason, detail: String, at_once: bool) {
        if self.stop.is_some() {
            return;
        }
        self.note(&format!("ending: {reason}: {detail}"));
        let booting = matches!(self.phase, Phase::Booting { .. });
        self.stop = Some(self.stop_for(reason, detail));
        if at_once || booting {
            return self.kill();
        }
        let request = Shutdown { grace_ms: Some(self.lifecycle.stop_grace_ms) };
        if self.channel.send(Flags::SHUTDOWN, &Kind::Shutdown, &request).is_err() {
            self.kill();
        }
    }

    fn stop_for(&self, reason: ExitReason, detail: String) -> Stop {
        let kill_at = Instant::now() + Duration::from_millis(self.lifecycle.stop_grace_ms) + AGENT_MARGIN;
        Stop { reason, detail, kill_at, killed: false, if_killed: None }
    }

    /// Kills the init, and with it (it is PID 1 of its namespace) every process of the sandbox.
    fn kill(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.killed = true;
            if let Some((reason, detail)) = stop.if_killed.take() {
                (stop.reason, stop.detail) = (reason, detail.into());
            }
        }
        self.guest.cgroups.kill();
        let _ = rustix::process::pidfd_send_signal(&self.guest.pidfd, Signal::KILL);
    }

    fn note(&mut self, text: &str) {
        let mut line = Vec::new();
        crate::logs::json_line::timestamp(&mut line, now_ns());
        line.extend_from_slice(format!(" {text}\n").as_bytes());
        self.runtime_log.write(&line);
    }
}

/// What a frame asks of the supervisor itself.
enum Control {
    Ready(Ready),
    Activity(Activity),
}

/// Output goes straight to the log; anything that is not understood is the guest's noise and is dropped.
fn take_frame(log: &mut ExecLog, frame: Frame, control: &mut Vec<Control>) {
    let Ok(message) = frame.open() else { return };
    match message.kind {
        Kind::Log => {
            let Ok(record) = message.parse::<LogRef<'_>>() else { return };
            let source = Source::from_wire(record.source);
            log.output(message.id, source, record.time_ns, record.data);
            if source == Source::System {
                log.end_session(message.id);
            }
        }
        Kind::Ready => control.extend(message.parse().ok().map(Control::Ready)),
        Kind::Activity => control.extend(message.parse().ok().map(Control::Activity)),
        _ => {}
    }
}
