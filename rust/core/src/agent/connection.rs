//! One connection to an agent: whole frames in, queued bytes out, both driven by the task that waits on the connection.
//!
//! The connection has no background task and no lock. The stream need not be splittable, so a unix socket and a
//! WebSocket both serve. Dropping the connection closes the stream; the agent then ends the operations started over it.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use microsandbox_protocol::frame::{
    Flags, Frame, FrameDecoder, MAX_DATA, MAX_FRAME, MAX_HELLO_FRAME, Message, ProtocolError, encode, encode_data_head,
};
use microsandbox_protocol::message::{CoreError, Kind};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{SILENCE_DEADLINE, failure};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Room offered to the first read; most answers fit.
const READ_MIN: usize = 16 << 10;
/// Room offered once reads come back full.
const READ_MAX: usize = 512 << 10;
/// A stream of full reads goes into blocks of this size, which hold several frames.
const BLOCK: usize = 1 << 20;
/// Left in a block when the next one is taken: room for a frame of a stream, 256 KiB of output.
const BLOCK_REST: usize = 272 << 10;
/// Blocks kept for reuse: memory that is warm already instead of pages that the kernel must clear first.
const BLOCKS: usize = 6;
/// Ids that a connection must still have for further calls.
const IDS_KEPT: u32 = 16;
/// Slices of one vectored write.
const WRITE_SLICES: usize = 32;

/// A frame stream to one agent.
pub(crate) struct Connection<S> {
    name: Arc<str>,
    stream: S,
    input: BytesMut,
    decoder: FrameDecoder,
    read_size: usize,
    /// Blocks whose frames were handed out; free again once all of those are dropped.
    spent: Vec<BytesMut>,
    output: VecDeque<Bytes>,
    queued: usize,
    /// The agent accepts no more input; the frames that the agent still sends are read to the end.
    deaf: bool,
    next_id: u32,
    end_id: u32,
    /// Count of frames for ids that no call waits for.
    stray: u64,
    /// A file that exists while the sandbox is paused.
    pause_mark: Option<PathBuf>,
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        if self.stray > 0 {
            tracing::debug!(sandbox = %self.name, frames = self.stray, "dropped frames with ids that are not ours");
        }
    }
}

impl<S> Connection<S> {
    pub fn new(name: &str, stream: S) -> Self {
        Connection {
            name: name.into(),
            stream,
            input: BytesMut::new(),
            decoder: FrameDecoder::new(MAX_HELLO_FRAME),
            read_size: READ_MIN,
            spent: Vec::new(),
            output: VecDeque::new(),
            queued: 0,
            deaf: false,
            next_id: 1,
            end_id: 1,
            stray: 0,
            pause_mark: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The peer is known: frames of full size may come, and these ids may be used.
    pub fn admit(&mut self, ids: (u32, u32)) {
        self.decoder.set_max(MAX_FRAME);
        (self.next_id, self.end_id) = ids;
    }

    /// A fresh id. A connection carries a handful of calls, so running out means the peer gave a silly range.
    pub fn id(&mut self) -> MicrosandboxResult<u32> {
        if self.next_id >= self.end_id {
            return Err(self.broke("the range of call ids it gave is used up"));
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    /// How many frames were dropped because no call waits for their id.
    pub fn stray_frames(&self) -> u64 {
        self.stray
    }
    pub fn count_stray(&mut self) {
        self.stray += 1;
    }

    /// A file that is there while the sandbox is paused: its agent's silence means nothing then.
    pub fn pauses_with(&mut self, mark: PathBuf) {
        self.pause_mark = Some(mark);
    }

    pub fn is_paused(&self) -> bool {
        self.pause_mark.as_ref().is_some_and(|mark| mark.exists())
    }

    /// Bytes accepted but not yet written.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Nothing waits to be written, nothing was read by halves, and there are ids left.
    pub fn is_idle(&self) -> bool {
        !self.deaf && self.output.is_empty() && self.input.is_empty() && self.next_id + IDS_KEPT < self.end_id
    }

    /// What carries it.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    pub fn broke(&self, what: impl Into<String>) -> MicrosandboxError {
        failure::protocol(&self.name, what)
    }
    pub fn lost(&self, reason: impl Into<String>) -> MicrosandboxError {
        failure::lost(&self.name, reason)
    }
    pub fn silent(&self) -> MicrosandboxError {
        self.lost(format!("no answer within {} s", SILENCE_DEADLINE.as_secs()))
    }
    fn broke_by(&self, error: ProtocolError) -> MicrosandboxError {
        self.broke(error.to_string())
    }

    /// Queues one frame. The error is the encoder's: the payload would not fit.
    pub fn queue<T: Serialize>(
        &mut self,
        id: u32,
        flags: Flags,
        kind: &Kind,
        payload: &T,
    ) -> Result<(), ProtocolError> {
        self.push(encode(id, flags, kind, payload)?.into());
        Ok(())
    }

    /// Queues stream data of at most [`MAX_DATA`] bytes without copying it.
    pub fn queue_data(&mut self, id: u32, kind: &Kind, data: Bytes) {
        debug_assert!(data.len() <= MAX_DATA);
        self.push(encode_data_head(id, Flags::NONE, kind, data.len()).into());
        if !data.is_empty() {
            self.push(data);
        }
    }

    pub fn push(&mut self, bytes: Bytes) {
        if !self.deaf {
            self.queued += bytes.len();
            self.output.push_back(bytes);
        }
    }

    /// Opens a frame that is ours.
    pub fn open(&self, frame: &Frame) -> MicrosandboxResult<Message> {
        frame.open().map_err(|error| self.broke_by(error))
    }

    pub fn parse<'a, T: serde::Deserialize<'a>>(&self, message: &'a Message) -> MicrosandboxResult<T> {
        message.parse().map_err(|error| self.broke_by(error))
    }

    pub fn data(&self, message: &Message) -> MicrosandboxResult<Bytes> {
        message.data().map_err(|error| self.broke_by(error))
    }

    /// The error in a `core.error` message.
    pub fn refused(&self, message: &Message) -> MicrosandboxError {
        match self.parse::<CoreError>(message) {
            Ok(error) => failure::refusal(&self.name, &error),
            Err(error) => error,
        }
    }

    /// A frame that is already here.
    pub fn buffered(&mut self) -> MicrosandboxResult<Option<Frame>> {
        if self.read_size == READ_MAX {
            // Before the decoder asks for room: it knows of no block that could be used again.
            self.make_room();
        }
        self.decoder.decode(&mut self.input).map_err(|error| failure::protocol(&self.name, error.to_string()))
    }
}

impl<S> Connection<S> {
    /// Room for the next read.
    fn make_room(&mut self) {
        let left = self.input.capacity() - self.input.len();
        if self.read_size < READ_MAX {
            if left < self.read_size / 2 {
                self.input.reserve(self.read_size);
            }
            return;
        }
        let rest = match self.input.first_chunk::<4>() {
            Some(length) => (u32::from_be_bytes(*length) as usize + 4).saturating_sub(self.input.len()),
            None => BLOCK_REST,
        };
        // A frame larger than a block gets room of its own from the decoder, which also checks its length.
        if left >= rest || self.input.len() + rest > BLOCK {
            return;
        }
        let free = self.spent.iter_mut().position(|block| block.try_reclaim(BLOCK));
        let mut block = free.map_or_else(|| BytesMut::with_capacity(BLOCK), |index| self.spent.remove(index));
        block.extend_from_slice(&self.input);
        let mut full = std::mem::replace(&mut self.input, block);
        full.clear();
        self.spent.push(full);
        if self.spent.len() > BLOCKS {
            self.spent.remove(0);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Writes what is queued. A peer that takes no more is not an error here: what it said last is worth reading.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            let count = self.output.len().min(WRITE_SLICES);
            for (slice, bytes) in slices.iter_mut().zip(&self.output) {
                *slice = IoSlice::new(bytes);
            }
            match ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count])) {
                Ok(written) if written > 0 => self.written(written),
                _ => {
                    self.deaf = true;
                    self.output.clear();
                    self.queued = 0;
                }
            }
        }
        Poll::Ready(())
    }

    fn written(&mut self, mut count: usize) {
        self.queued -= count;
        while let Some(front) = self.output.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.output.pop_front();
        }
    }

    /// Writes what is queued and waits until all of it is handed over.
    pub async fn flush(&mut self) -> MicrosandboxResult<()> {
        poll_fn(|cx| self.poll_flush(cx)).await;
        if self.deaf { Err(self.lost("it closed the connection")) } else { Ok(()) }
    }

    /// The next frame of any id; `None` at an orderly end of the stream.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<MicrosandboxResult<Option<Frame>>> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.input.is_empty() => return Poll::Ready(Ok(None)),
                Ok(0) => return Poll::Ready(Err(self.lost("the connection ended inside a frame"))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.lost(error.to_string()))),
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.make_room();
        let room = self.input.capacity() - self.input.len();
        // Stateless between polls, so it may be made anew each time.
        let count = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx))?;
        if count == room {
            self.read_size = (self.read_size * 4).min(READ_MAX);
        }
        Poll::Ready(Ok(count))
    }

    /// The next frame of any id; queued bytes are written while waiting. Cancelling the wait loses neither.
    pub async fn frame(&mut self) -> MicrosandboxResult<Option<Frame>> {
        poll_fn(|cx| {
            // The reader need not know whether every queued byte is written.
            let _ = self.poll_flush(cx);
            self.poll_frame(cx)
        })
        .await
    }

    /// Exactly `N` raw bytes, before any frame.
    pub async fn raw<const N: usize>(&mut self) -> MicrosandboxResult<[u8; N]> {
        while self.input.len() < N {
            let count = poll_fn(|cx| {
                let _ = self.poll_flush(cx);
                self.poll_fill(cx)
            })
            .await
            .map_err(|error| self.lost(error.to_string()))?;
            if count == 0 {
                return Err(self.lost("it closed the connection during the handshake"));
            }
        }
        let mut out = [0; N];
        self.input.copy_to_slice(&mut out);
        Ok(out)
    }
}
