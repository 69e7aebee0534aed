//! The private channel to the runtime process. Everything sent here is a claim of the guest and bounded.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use microsandbox_protocol::frame::{self, Flags, FrameDecoder};
use microsandbox_protocol::log_budget::LogBudget;
use microsandbox_protocol::message::{Activity, LogSync, Ready};
use microsandbox_protocol::{Kind, Message, ProtocolError};
use microsandbox_sys::descriptor;
use rustix::io::Errno;

use crate::clients::queue::OutQueue;
use crate::machine::init::realtime_ns;

/// While more than this waits for the runtime no program output is read: backpressure instead of loss.
const HIGH_WATER: usize = 256 << 10;
/// Output of at least this size goes straight to the socket instead of through the queue.
const DIRECT: usize = 8 << 10;
/// How long small news may wait, so that a short exec costs one write and one wake-up of the runtime.
const LINGER: Duration = Duration::from_millis(10);

/// Which stream a log record copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Stdout = 1,
    Stderr = 2,
    Terminal = 3,
    Agent = 4,
    /// A marker in place of output that was dropped.
    Gap = 5,
}

/// Our end of the channel.
pub struct Control {
    fd: OwnedFd,
    decoder: FrameDecoder,
    input: BytesMut,
    out: OutQueue,
    flush_at: Option<Instant>,
    urgent: bool,
    activity_seq: u64,
    sync_seq: u64,
    budget: LogBudget,
}

impl Control {
    pub fn new(fd: OwnedFd) -> Control {
        Control {
            fd,
            decoder: FrameDecoder::default(),
            input: BytesMut::new(),
            out: OutQueue::default(),
            flush_at: None,
            urgent: false,
            activity_seq: 0,
            sync_seq: 0,
            budget: LogBudget::new(Instant::now()),
        }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// May program output be read now?
    pub fn has_room(&self) -> bool {
        self.out.len() < HIGH_WATER
    }

    /// Bytes wait that should leave now.
    pub fn wants_write(&self) -> bool {
        !self.out.is_empty() && (self.urgent || self.out.len() > DIRECT)
    }

    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    pub fn deadline(&self) -> Option<Instant> {
        if self.urgent { None } else { self.flush_at }
    }

    /// Reads what is there; `None` at end of file or on a broken channel.
    pub fn read(&mut self) -> Option<Vec<Message>> {
        self.input.reserve(64 << 10);
        match descriptor::read_append(&self.fd, &mut self.input, 64 << 10) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(Errno::AGAIN) => return Some(Vec::new()),
            Err(_) => return None,
        }
        let mut messages = Vec::new();
        while let Some(message) = self.next().ok()? {
            messages.push(message);
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Some(messages)
    }

    fn next(&mut self) -> Result<Option<Message>, ProtocolError> {
        self.decoder.decode(&mut self.input)?.map(|frame| frame.open()).transpose()
    }

    /// Writes out what waits if it is time for it.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        let due = self.urgent || self.out.len() > DIRECT || self.flush_at.is_some_and(|at| at <= now);
        if !due || self.out.is_empty() {
            return Ok(());
        }
        self.urgent = true;
        self.out.flush(self.fd.as_fd())?;
        if self.out.is_empty() {
            self.urgent = false;
            self.flush_at = None;
        }
        Ok(())
    }

    /// What waits leaves with the next [`Control::flush`].
    pub fn hurry(&mut self) {
        self.urgent = !self.out.is_empty();
    }

    pub fn ready(&mut self, ready: &Ready) {
        self.send(0, &Kind::Ready, ready);
        self.hurry();
    }

    /// Something happened; `running` sessions are alive. Returns the number of the event.
    pub fn activity(&mut self, running: u32) -> u64 {
        self.activity_seq += 1;
        self.send(0, &Kind::Activity, &Activity { seq: self.activity_seq, running });
        self.activity_seq
    }

    pub fn activity_seq(&self) -> u64 {
        self.activity_seq
    }

    /// Asks the runtime to write everything logged so far; returns the number that its answer will reach.
    pub fn sync(&mut self) -> u64 {
        self.mark_gaps();
        self.sync_seq += 1;
        self.send(0, &Kind::LogSync, &LogSync { number: self.sync_seq });
        self.hurry();
        self.sync_seq
    }

    /// A line of the agent's own about a session.
    pub fn note(&mut self, session: u64, text: &str) {
        self.mark_gaps();
        self.queue_log(session, Source::Agent, text.as_bytes());
    }

    /// A copy of program output that arrived at `now`; beyond the budget of the log a later marker stands for it.
    pub fn log(&mut self, session: u64, source: Source, data: &[u8], now: Instant) -> io::Result<()> {
        if !self.budget.admit(session, data.len(), now) {
            return Ok(());
        }
        self.mark_gaps();
        if data.len() < DIRECT {
            self.queue_log(session, source, data);
            return Ok(());
        }
        let head = frame::encode_log_head(session as u32, source as u8, realtime_ns(), data.len());
        self.out.write_through(self.fd.as_fd(), &head, data)?;
        self.hurry();
        Ok(())
    }

    fn mark_gaps(&mut self) {
        for (session, text) in self.budget.markers() {
            self.queue_log(session, Source::Gap, text.as_bytes());
        }
    }

    fn queue_log(&mut self, session: u64, source: Source, data: &[u8]) {
        let mut piece = frame::encode_log_head(session as u32, source as u8, realtime_ns(), data.len());
        piece.extend_from_slice(data);
        self.push(piece);
    }

    fn send<T: serde::Serialize>(&mut self, id: u32, kind: &Kind, payload: &T) {
        // Small fixed structures always fit into a frame.
        if let Ok(bytes) = frame::encode(id, Flags::NONE, kind, payload) {
            self.push(bytes);
        }
    }

    fn push(&mut self, bytes: Vec<u8>) {
        self.out.push(bytes);
        self.flush_at.get_or_insert_with(|| Instant::now() + LINGER);
    }
}
