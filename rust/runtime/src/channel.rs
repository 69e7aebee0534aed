//! The private channel to the agent: frames in both directions over a non-blocking stream socket.

use bytes::BytesMut;
use microsandbox_protocol::frame::{self, Flags, Frame, FrameDecoder, ProtocolError};
use microsandbox_protocol::message::Kind;
use microsandbox_sys::descriptor;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use serde::Serialize;

/// Room for reading while output flows.
const BUSY_ROOM: usize = 512 << 10;
/// Room kept while nothing flows.
const IDLE_ROOM: usize = 4 << 10;
/// Bytes read in one go before other events get their turn.
const TURN: usize = 8 << 20;

/// What a turn of reading ended with.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing more to read now.
    Drained,
    /// The turn is used up; there may be more.
    More,
    /// The agent's end is closed.
    Ended,
}

/// The runtime's end.
pub struct Channel {
    /// Absent until the agent is connected: what is sent before waits.
    socket: Option<OwnedFd>,
    decoder: FrameDecoder,
    incoming: BytesMut,
    outgoing: Vec<u8>,
}

impl Channel {
    /// A channel whose other end is not there yet.
    pub fn unconnected() -> Channel {
        Channel { socket: None, decoder: FrameDecoder::default(), incoming: BytesMut::new(), outgoing: Vec::new() }
    }

    /// From here on frames travel; `socket` must be non-blocking. What waits is sent.
    pub fn connect(&mut self, socket: OwnedFd) {
        self.socket = Some(socket);
        self.flush();
    }

    /// The socket, once there is one.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Whether bytes wait to be sent.
    pub fn wants_to_send(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Queues a frame and sends what the socket takes.
    pub fn send<T: Serialize>(&mut self, flags: Flags, kind: &Kind, payload: &T) -> Result<(), ProtocolError> {
        self.outgoing.extend_from_slice(&frame::encode(0, flags, kind, payload)?);
        self.flush();
        Ok(())
    }

    /// Sends what the socket takes. An agent that is gone shows when reading.
    pub fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        let mut sent = 0;
        while sent < self.outgoing.len() {
            match rustix::net::send(socket, &self.outgoing[sent..], rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => sent = self.outgoing.len(),
            }
        }
        self.outgoing.drain(..sent);
        if self.outgoing.is_empty() {
            self.outgoing = Vec::new();
        }
    }

    /// Reads what is there and hands over whole frames.
    pub fn receive(&mut self, mut take: impl FnMut(Frame)) -> Result<Turn, ProtocolError> {
        let Some(socket) = &self.socket else { return Ok(Turn::Drained) };
        let mut read = 0;
        loop {
            if self.incoming.capacity() - self.incoming.len() < IDLE_ROOM {
                self.incoming.reserve(if read == 0 { IDLE_ROOM } else { BUSY_ROOM });
            }
            match descriptor::read_append(socket, &mut self.incoming, usize::MAX) {
                Ok(0) if self.incoming.is_empty() => return Ok(Turn::Ended),
                Ok(0) => return Err(ProtocolError::Truncated),
                Ok(count) => read += count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Turn::Drained),
                Err(_) => return Ok(Turn::Ended),
            }
            while let Some(frame) = self.decoder.decode(&mut self.incoming)? {
                take(frame);
            }
            if read >= TURN {
                return Ok(Turn::More);
            }
        }
    }

    /// Frees the buffer that a burst of output needed.
    pub fn shrink(&mut self) {
        if self.incoming.is_empty() && self.incoming.capacity() > IDLE_ROOM {
            self.incoming = BytesMut::new();
        }
    }
}
