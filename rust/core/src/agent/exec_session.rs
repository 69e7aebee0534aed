//! One program's conversation with the agent: order, credit, deadlines. Who keeps the output is the caller's affair
//! ([`super::exec_collect`], [`super::exec_stream`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use microsandbox_protocol::frame::{Flags, Frame, Message};
use microsandbox_protocol::message::{
    Credit, Empty, ExecExited, ExecFailed, ExecRequest, ExecStarted, JobAttach, Kind, Resize, Signal, StdinError,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Connection, SILENCE_DEADLINE, exec_request, failure};
use crate::error::{ExecFailure, MicrosandboxError, MicrosandboxResult};
use crate::model::ExecExit;

/// What the agent's own timeout may be late by before this side ends the run.
pub(super) const TIMEOUT_SLACK: Duration = Duration::from_secs(5);
/// Largest piece of input in one frame: small enough that a signal never waits long behind it.
const STDIN_PIECE: usize = 256 << 10;
/// Input handed to the socket before it took the earlier one.
const STDIN_QUEUED: usize = 1 << 20;

/// What one message meant.
pub(super) enum Step {
    Started {
        pid: u32,
    },
    Stdout(Bytes),
    Stderr(Bytes),
    StdinError {
        errno: Option<i32>,
        message: String,
    },
    Exited(ExecExit),
    Failed(ExecFailure),
    /// The agent did not end the run in time.
    Overdue,
}

/// Input that waits for credit; `done` hears when it is on its way, or why it never will be.
pub(super) struct Input {
    pub data: Bytes,
    pub done: Option<oneshot::Sender<std::io::Result<()>>>,
}

#[derive(PartialEq)]
enum Eof {
    Open,
    Wanted,
    Sent,
}

struct Stdin {
    pending: VecDeque<Input>,
    /// `None`: unbounded. Zero until the program runs.
    credit: Option<u64>,
    eof: Eof,
    broken: bool,
}

pub(super) struct ExecSession<S> {
    connection: Connection<S>,
    id: u32,
    began: Instant,
    heard: Instant,
    ping: Option<u32>,
    started: bool,
    /// The agent has said its last word about this run.
    over: bool,
    stdin: Stdin,
    /// Output the agent may still send; `None`: unbounded.
    allowance: Option<u64>,
    overdue: Option<Instant>,
}

impl<S> ExecSession<S> {
    /// Queues the request; nothing is sent before the first [`ExecSession::step`].
    pub fn begin(mut connection: Connection<S>, request: &ExecRequest) -> MicrosandboxResult<Self> {
        let id = connection.id()?;
        connection
            .queue(id, Flags::SESSION_START, &Kind::ExecRequest, request)
            .map_err(|_too_large| exec_request::too_long(&request.cmd))?;
        let eof = if request.no_stdin { Eof::Sent } else { Eof::Open };
        let mut session = ExecSession::new(connection, id, eof, request.window);
        let timeout = request.timeout_ms.map(|ms| Duration::from_millis(ms) + TIMEOUT_SLACK);
        session.overdue = timeout.and_then(|timeout| session.began.checked_add(timeout));
        Ok(session)
    }

    /// As [`ExecSession::begin`], to a job that runs already.
    pub fn attach(mut connection: Connection<S>, request: &JobAttach) -> MicrosandboxResult<Self> {
        let id = connection.id()?;
        connection
            .queue(id, Flags::SESSION_START, &Kind::JobAttach, request)
            .map_err(|error| connection.broke(error.to_string()))?;
        Ok(ExecSession::new(connection, id, Eof::Open, request.window))
    }

    fn new(connection: Connection<S>, id: u32, eof: Eof, allowance: Option<u64>) -> Self {
        let now = Instant::now();
        ExecSession {
            connection,
            id,
            began: now,
            heard: now,
            ping: None,
            started: false,
            over: false,
            stdin: Stdin { pending: VecDeque::new(), credit: Some(0), eof, broken: false },
            allowance,
            overdue: None,
        }
    }

    /// The connection, once the run is over and nothing of it is under way in either direction.
    pub fn into_idle_connection(self) -> Option<Connection<S>> {
        (self.over && self.ping.is_none()).then_some(self.connection).filter(Connection::is_idle)
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The run must end by then, whatever was agreed before.
    pub fn end_by(&mut self, deadline: Instant) {
        self.overdue = Some(self.overdue.map_or(deadline, |before| before.min(deadline)));
    }

    fn control<T: serde::Serialize>(&mut self, kind: Kind, payload: &T) -> MicrosandboxResult<()> {
        let id = self.id;
        self.connection.queue(id, Flags::NONE, &kind, payload).map_err(|error| self.connection.broke(error.to_string()))
    }

    pub fn signal(&mut self, signal: i32) -> MicrosandboxResult<()> {
        self.control(Kind::ExecSignal, &Signal { signal })
    }
    pub fn resize(&mut self, rows: u16, cols: u16) -> MicrosandboxResult<()> {
        self.control(Kind::ExecResize, &Resize { rows, cols })
    }
    pub fn grant(&mut self, bytes: u64) -> MicrosandboxResult<()> {
        self.allowance = self.allowance.map(|left| left.saturating_add(bytes));
        self.control(Kind::Credit, &Credit { bytes })
    }

    /// Input to send as the program takes it.
    pub fn feed(&mut self, input: Input) {
        if self.stdin.broken || self.stdin.eof != Eof::Open {
            input.refuse();
        } else if !input.data.is_empty() {
            self.stdin.pending.push_back(input);
        } else if let Some(done) = input.done {
            // An empty frame would mean end of input.
            let _ = done.send(Ok(()));
        }
    }

    /// End of input, after what was fed before.
    pub fn finish_input(&mut self) {
        if self.stdin.eof == Eof::Open {
            self.stdin.eof = Eof::Wanted;
        }
    }

    fn break_input(&mut self) {
        self.stdin.broken = true;
        self.stdin.pending.drain(..).for_each(Input::refuse);
    }

    /// Moves input that has credit to the socket's queue.
    fn pump(&mut self) {
        let stdin = &mut self.stdin;
        while self.connection.queued() < STDIN_QUEUED && stdin.credit != Some(0) {
            let Some(front) = stdin.pending.front_mut() else { break };
            if front.done.as_ref().is_some_and(oneshot::Sender::is_closed) {
                // Its writer gave up; a part may be gone already, the rest must not follow.
                stdin.pending.pop_front();
                continue;
            }
            let credit = stdin.credit.map_or(usize::MAX, |credit| usize::try_from(credit).unwrap_or(usize::MAX));
            let piece = front.data.split_to(front.data.len().min(STDIN_PIECE).min(credit));
            stdin.credit = stdin.credit.map(|credit| credit - piece.len() as u64);
            let whole = front.data.is_empty();
            self.connection.queue_data(self.id, &Kind::ExecStdin, piece);
            if whole && let Some(done) = stdin.pending.pop_front().and_then(|input| input.done) {
                let _ = done.send(Ok(()));
            }
        }
        if stdin.eof == Eof::Wanted && stdin.pending.is_empty() && self.started {
            stdin.eof = Eof::Sent;
            self.connection.queue_data(self.id, &Kind::ExecStdin, Bytes::new());
        }
    }

    /// A frame that was already read, if it meant something.
    pub fn buffered_step(&mut self) -> MicrosandboxResult<Option<Step>> {
        while let Some(frame) = self.connection.buffered()? {
            if let Some(step) = self.take(&frame)? {
                return Ok(Some(step));
            }
        }
        Ok(None)
    }

    fn take(&mut self, frame: &Frame) -> MicrosandboxResult<Option<Step>> {
        if self.ping == Some(frame.id) {
            self.ping = None;
            self.heard = Instant::now();
            return Ok(None);
        }
        if frame.id != self.id && frame.id != 0 {
            self.connection.count_stray();
            return Ok(None);
        }
        let message = self.connection.open(frame)?;
        if message.kind == Kind::Error {
            return Err(self.connection.refused(&message));
        }
        if frame.id != self.id {
            self.connection.count_stray();
            return Ok(None);
        }
        self.heard = Instant::now();
        self.read(&message)
    }

    fn read(&mut self, message: &Message) -> MicrosandboxResult<Option<Step>> {
        match &message.kind {
            Kind::ExecStdout => Ok(self.output(message)?.map(Step::Stdout)),
            Kind::ExecStderr => Ok(self.output(message)?.map(Step::Stderr)),
            Kind::ExecStarted if self.started => Err(self.connection.broke("a second `started`")),
            Kind::ExecStarted => {
                let started: ExecStarted = self.connection.parse(message)?;
                self.started = true;
                self.stdin.credit = started.stdin_window;
                Ok(Some(Step::Started { pid: started.pid }))
            }
            Kind::Credit => {
                let credit: Credit = self.connection.parse(message)?;
                self.stdin.credit = self.stdin.credit.map(|have| have.saturating_add(credit.bytes));
                Ok(None)
            }
            // Once is enough: the input that waited was refused then.
            Kind::ExecStdinError if self.stdin.broken => Ok(None),
            Kind::ExecStdinError => {
                let error: StdinError = self.connection.parse(message)?;
                self.break_input();
                Ok(Some(Step::StdinError {
                    errno: failure::errno(error.errno),
                    message: failure::quote(&error.message),
                }))
            }
            Kind::ExecExited if !self.started => Err(self.connection.broke("`exited` before `started`")),
            Kind::ExecExited => {
                let exited: ExecExited = self.connection.parse(message)?;
                self.over = true;
                Ok(Some(Step::Exited(verdict(&exited, self.elapsed()))))
            }
            Kind::ExecFailed if self.started => Err(self.connection.broke("`failed` after `started`")),
            Kind::ExecFailed => {
                let failed: ExecFailed = self.connection.parse(message)?;
                self.over = true;
                Ok(Some(Step::Failed(failure::exec_failure(failed))))
            }
            Kind::Unknown(_) => {
                self.connection.count_stray();
                Ok(None)
            }
            other => Err(self.connection.broke(format!("`{}` in an exec session", other.as_wire()))),
        }
    }

    fn output(&mut self, message: &Message) -> MicrosandboxResult<Option<Bytes>> {
        if !self.started {
            return Err(self.connection.broke("output before `started`"));
        }
        let data = self.connection.data(message)?;
        if let Some(left) = self.allowance {
            let Some(left) = left.checked_sub(data.len() as u64) else {
                return Err(self.connection.broke("more output than it had credit for"));
            };
            self.allowance = Some(left);
        }
        Ok((!data.is_empty()).then_some(data))
    }

    /// When to look up if nothing comes.
    fn alarm(&self) -> Instant {
        let patience = if self.started && self.ping.is_none() { SILENCE_DEADLINE / 2 } else { SILENCE_DEADLINE };
        let silence = self.heard + patience;
        self.overdue.map_or(silence, |overdue| overdue.min(silence))
    }

    /// A program may be silent for days; its agent may not. So the agent is asked.
    fn on_alarm(&mut self) -> MicrosandboxResult<Option<Step>> {
        let now = Instant::now();
        if self.overdue.is_some_and(|overdue| now >= overdue) {
            return Ok(Some(Step::Overdue));
        }
        let silence = now.duration_since(self.heard);
        if silence >= SILENCE_DEADLINE {
            if self.connection.is_paused() {
                self.forgive_silence();
                return Ok(None);
            }
            return Err(self.connection.silent());
        }
        if self.started && self.ping.is_none() && silence >= SILENCE_DEADLINE / 2 && !self.connection.is_paused() {
            let ping = self.connection.id()?;
            self.connection
                .queue(ping, Flags::NONE, &Kind::Ping, &Empty {})
                .map_err(|error| self.connection.broke(error.to_string()))?;
            self.ping = Some(ping);
        }
        Ok(None)
    }

    /// The reader waited for its own consumer: that was no silence of the agent's.
    pub fn forgive_silence(&mut self) {
        self.heard = Instant::now();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ExecSession<S> {
    /// The next thing that happened. Cancelling it loses nothing.
    pub async fn step(&mut self) -> MicrosandboxResult<Step> {
        loop {
            if let Some(step) = self.buffered_step()? {
                return Ok(step);
            }
            let alarm = self.alarm();
            let step = match tokio::time::timeout_at(alarm, poll_fn(|cx| self.poll_frame(cx))).await {
                Ok(Ok(Some(frame))) => self.take(&frame)?,
                Ok(Ok(None)) => return Err(self.connection.lost("it closed the connection before the program's end")),
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => self.on_alarm()?,
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// The same; with `hold` nothing is read and it never ends, while control messages and input still go out.
    pub async fn step_or_hold(&mut self, hold: bool) -> MicrosandboxResult<Step> {
        if !hold {
            return self.step().await;
        }
        poll_fn(|cx| {
            self.poll_write(cx);
            Poll::Pending
        })
        .await
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) {
        loop {
            self.pump();
            if self.connection.queued() == 0 || self.connection.poll_flush(cx).is_pending() {
                return;
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<MicrosandboxResult<Option<Frame>>> {
        self.poll_write(cx);
        self.connection.poll_frame(cx)
    }
}

impl Input {
    fn refuse(self) {
        if let Some(done) = self.done {
            let _ = done.send(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
    }
}

/// The guest's word, made harmless: a status that could be one, a signal that exists, a duration that could have been.
pub(super) fn verdict(exited: &ExecExited, elapsed: Duration) -> ExecExit {
    ExecExit {
        code: if (0..=255).contains(&exited.code) { exited.code } else { 255 },
        signal: exited.signal.filter(|signal| (1..=64).contains(signal)),
        oom_killed: exited.oom_killed,
        timed_out: exited.timed_out,
        drained: exited.drained,
        descendants: exited.descendants,
        duration: Duration::from_nanos(exited.duration_ns).min(elapsed),
    }
}

/// What a run that had to be cut off looks like.
pub(super) fn cut_off(elapsed: Duration) -> ExecExit {
    ExecExit { code: 137, signal: Some(9), timed_out: true, drained: false, duration: elapsed, ..ExecExit::default() }
}

/// The error of a run that outlived its timeout.
pub(super) fn timed_out(limit: Option<Duration>, output: Option<crate::model::ExecOutput>) -> MicrosandboxError {
    let secs = limit.map_or(0.0, |limit| limit.as_secs_f64());
    MicrosandboxError::ExecTimeout { secs, output: output.map(Box::new) }
}
