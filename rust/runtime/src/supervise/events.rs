//! What the supervisor does when a descriptor of its own is ready.

use std::time::Instant;

use microsandbox_contract::ExitReason;
use microsandbox_contract::Step;
use microsandbox_contract::note::Note;
use microsandbox_protocol::frame::{Flags, Frame};
use microsandbox_protocol::message::{Activity, Kind, LogSync, Ready};
use microsandbox_sys::process;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use serde::Deserialize;

use super::{Event, Phase, Supervisor};
use crate::channel::Turn;
use crate::logs::{ExecLog, Source};
use crate::report::Reporter;
use crate::steps;

/// Bytes read from the console at a time.
const CONSOLE_ROOM: usize = 4096;

/// A record of output, borrowed from its frame.
#[derive(Deserialize)]
struct LogRef<'a> {
    source: u8,
    time_ns: u64,
    #[serde(borrow, with = "serde_bytes")]
    data: &'a [u8],
}

impl Supervisor {
    pub(super) fn handle(&mut self, event: Event, reporter: &mut Reporter) {
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
    pub(super) fn accept_agent(&mut self) {
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

    pub(super) fn read_lifeline(&mut self) {
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
                self.begin_stop(
                    ExitReason::ShutdownRequested,
                    "the creator of the sandbox closed its lifeline".into(),
                    false,
                );
            }
        }
    }

    /// A creator that detached the sandbox and exited right after is noticed in the same moment: the detach counts first.
    pub(super) fn owner_ended(&mut self) {
        self.read_lifeline();
        if self.lines.owner.take().is_some() {
            self.begin_stop(
                ExitReason::ShutdownRequested,
                "the process that created the sandbox has ended".into(),
                false,
            );
        }
    }

    pub(super) fn read_signals(&mut self) {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        while matches!(rustix::io::read(&self.lines.signals, &mut info), Ok(count) if count > 0) {
            // The first field of signalfd_siginfo is the number.
            let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            if self.stop.is_some() {
                // A second signal ends the grace period.
                self.kill();
            }
            self.begin_stop(ExitReason::ShutdownRequested, format!("the runtime received signal {number}"), false);
        }
    }

    pub(super) fn read_console(&mut self) {
        let Some(console) = &self.guest.console else { return };
        let mut room = [0; CONSOLE_ROOM];
        match rustix::io::read(console, &mut room) {
            Ok(0) => self.guest.console = None,
            Ok(count) => self.kernel_log.write(&room[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.guest.console = None,
        }
    }

    pub(super) fn read_notes(&mut self) {
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

    pub(super) fn read_channel(&mut self, reporter: &mut Reporter) {
        self.channel.flush();
        self.answer_log_sync();
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
                Control::LogSync(LogSync { number }) => self.log_sync = Some(number),
            }
        }
        self.answer_log_sync();
        match turn {
            Ok(Turn::Drained | Turn::More) => {}
            Ok(Turn::Ended) => self.channel_ended = Some(Instant::now()),
            Err(error) => {
                self.channel_ended = Some(Instant::now());
                self.begin_stop(ExitReason::AgentUnresponsive, format!("the agent broke the protocol: {error}"), true);
            }
        }
    }
}

impl Supervisor {
    /// What came before the agent's mark is written. One answer at a time, to the newest mark: an agent that asks and does
    /// not read makes nothing grow here.
    fn answer_log_sync(&mut self) {
        if self.channel.wants_to_send() {
            return;
        }
        if let Some(number) = self.log_sync.take() {
            self.log.mark_gaps();
            self.log.flush();
            // A number always fits into a frame.
            let _ = self.channel.send(Flags::NONE, &Kind::LogSynced, &LogSync { number });
        }
    }
}

/// What a frame asks of the supervisor itself.
pub(super) enum Control {
    Ready(Ready),
    Activity(Activity),
    LogSync(LogSync),
}

/// Output goes straight to the log; a frame that cannot be read is dropped.
pub(super) fn take_frame(log: &mut ExecLog, frame: Frame, control: &mut Vec<Control>) {
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
        Kind::LogSync => match (control.last_mut(), message.parse().ok()) {
            // Only the newest is answered.
            (Some(Control::LogSync(last)), Some(newest)) => *last = newest,
            (_, newest) => control.extend(newest.map(Control::LogSync)),
        },
        _ => {}
    }
}
