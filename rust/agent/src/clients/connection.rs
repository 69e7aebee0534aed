//! One client.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use microsandbox_protocol::frame::{self, Flags, FrameDecoder, MAX_HELLO_FRAME};
use microsandbox_protocol::message::CoreError;
use microsandbox_protocol::{Kind, Message, ProtocolError};
use microsandbox_sys::descriptor;
use rustix::io::Errno;
use serde::Serialize;

use crate::clients::queue::OutQueue;
use crate::files::handles::Handles;

/// A stranger has this long for its hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// A frame once begun must be complete after this time without a further byte.
const FRAME_DEADLINE: Duration = Duration::from_secs(60);
/// A refused or finished client must take its last bytes within this time.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// No further output is produced for a client while this much waits for it.
const OUTPUT_HIGH_WATER: usize = 256 << 10;
/// No further requests are read while this much waits.
const REQUEST_HIGH_WATER: usize = 1 << 20;
/// Bytes per read.
const READ_CHUNK: usize = 256 << 10;
/// The hosted service cuts its id space into this many parts.
const ID_SLOTS: u32 = 128;

/// What an id of this connection belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Session(u64),
    Call(u64),
    Watch(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Hello {
        deadline: Instant,
    },
    Open,
    /// What waits is written, nothing is read.
    Closing {
        deadline: Instant,
    },
}

/// The end of a connection, and why.
#[derive(Debug)]
pub struct Gone;

pub struct Connection {
    fd: OwnedFd,
    phase: Phase,
    /// Which part of the id space is its own; free again when it is gone.
    pub slot: u32,
    range: (u32, u32),
    decoder: FrameDecoder,
    input: BytesMut,
    last_byte: Instant,
    pub out: OutQueue,
    pub targets: HashMap<u32, Target>,
    pub handles: Handles,
    /// Something of this client takes no more input: reading pauses.
    pub input_full: bool,
}

/// The half-open id range of a slot when `slots` clients may be connected.
pub fn id_range(slot: u32, slots: u32) -> (u32, u32) {
    let step = u32::MAX / slots.max(ID_SLOTS);
    (slot * step + 1, (slot + 1) * step)
}

impl Connection {
    pub fn new(fd: OwnedFd, slot: u32, slots: u32) -> Connection {
        let now = Instant::now();
        Connection {
            fd,
            phase: Phase::Hello { deadline: now + HELLO_DEADLINE },
            slot,
            range: id_range(slot, slots),
            decoder: FrameDecoder::new(MAX_HELLO_FRAME),
            input: BytesMut::new(),
            last_byte: now,
            out: OutQueue::default(),
            targets: HashMap::new(),
            handles: Handles::default(),
            input_full: false,
        }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    pub fn greeted(&mut self) {
        self.phase = Phase::Open;
        self.decoder.set_max(frame::MAX_FRAME);
    }

    /// Nothing more is read; what waits is still delivered.
    pub fn close(&mut self) {
        self.phase = Phase::Closing { deadline: Instant::now() + CLOSE_DEADLINE };
        self.input = BytesMut::new();
    }

    pub fn owns_id(&self, id: u32) -> bool {
        (self.range.0..self.range.1).contains(&id)
    }

    pub fn range(&self) -> (u32, u32) {
        self.range
    }

    pub fn wants_read(&self) -> bool {
        !self.is_closing() && !self.input_full && self.out.len() < REQUEST_HIGH_WATER
    }

    /// May more output be produced for it?
    pub fn has_room(&self) -> bool {
        self.is_open() && self.out.len() < OUTPUT_HIGH_WATER
    }

    /// When something must have happened.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Hello { deadline } | Phase::Closing { deadline } => Some(deadline),
            Phase::Open if !self.input.is_empty() && self.wants_read() => Some(self.last_byte + FRAME_DEADLINE),
            Phase::Open => None,
        }
    }

    /// One read from the socket. `Err` when the client is gone.
    pub fn fill(&mut self) -> Result<(), Gone> {
        let max = if self.is_open() { READ_CHUNK } else { MAX_HELLO_FRAME };
        self.input.reserve(max.min(64 << 10));
        match descriptor::read_append(&self.fd, &mut self.input, max) {
            Ok(0) => Err(Gone),
            Ok(_) => {
                self.last_byte = Instant::now();
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    /// The next whole frame that was read.
    pub fn next_message(&mut self) -> Result<Option<Message>, ProtocolError> {
        let frame = self.decoder.decode(&mut self.input)?;
        if self.input.is_empty() {
            // Gives a large buffer back as soon as its frames are consumed.
            self.input = BytesMut::new();
        }
        frame.map(|frame| frame.open()).transpose()
    }

    /// Queues a frame.
    pub fn send<T: Serialize>(&mut self, id: u32, flags: Flags, kind: &Kind, payload: &T) -> Result<(), ProtocolError> {
        self.out.push(frame::encode(id, flags, kind, payload)?);
        Ok(())
    }

    /// Queues `core.error`; it ends the session `id`.
    pub fn refuse(&mut self, id: u32, kind: &str, message: &str, offending: Option<&Kind>) {
        let error = CoreError {
            kind: kind.to_owned(),
            message: message.to_owned(),
            offending_type: offending.map(|kind| kind.as_wire().to_owned()),
        };
        // A short message always fits into a frame.
        let _ = self.send(id, Flags::TERMINAL, &Kind::Error, &error);
    }

    /// Sends stream data from where it lies.
    pub fn send_data(&mut self, id: u32, kind: &Kind, data: &[u8]) -> io::Result<()> {
        let head = frame::encode_data_head(id, Flags::NONE, kind, data.len());
        self.out.write_through(self.fd.as_fd(), &head, data)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush(self.fd.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::id_range;

    #[test]
    fn id_ranges_are_disjoint_and_never_hold_zero() {
        for slots in [1, 2, 128, 1024] {
            let mut end = 0;
            for slot in 0..slots {
                let (min, max) = id_range(slot, slots);
                assert!(min > end && min < max, "slot {slot} of {slots}: {min}..{max} after {end}");
                end = max - 1;
            }
        }
    }
}
