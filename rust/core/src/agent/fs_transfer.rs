//! File content in either direction. Both ends move at the speed of the slower one: nothing is buffered beyond the
//! socket and one frame.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use microsandbox_protocol::frame::Message;
use microsandbox_protocol::message::{FsOp, FsResponse, Kind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::fs_call::{Subject, check_path};
use super::{AgentClient, Connection, SILENCE_DEADLINE};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Content of one frame (`fs.stream_chunk`).
const CHUNK: usize = 1 << 20;

/// A file being read. Dropping it ends the transfer.
pub struct FileReader<S = UnixStream> {
    connection: Connection<S>,
    id: u32,
    path: String,
    received: u64,
    done: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AgentClient<S> {
    pub fn read_file(self, path: &str) -> MicrosandboxResult<FileReader<S>> {
        check_path("read", path)?;
        self.read_by(FsOp::ReadFile { path: path.into() }, path)
    }

    /// What is in a directory as a tar archive, `with_top` with an entry for the directory itself.
    pub fn read_tar(self, path: &str, with_top: bool) -> MicrosandboxResult<FileReader<S>> {
        check_path("read_tar", path)?;
        self.read_by(FsOp::ReadTar { path: path.into(), top: with_top }, path)
    }

    fn read_by(mut self, op: FsOp, path: &str) -> MicrosandboxResult<FileReader<S>> {
        let id = self.connection.begin_fs(op)?;
        Ok(FileReader { connection: self.connection, id, path: path.into(), received: 0, done: false })
    }

    /// The file appears, or is replaced, in one atomic step when the writer is finished.
    pub fn write_file(
        self,
        path: &str,
        mode: Option<u32>,
        mtime: Option<(i64, u32)>,
    ) -> MicrosandboxResult<FileWriter<S>> {
        check_path("write", path)?;
        self.write_by(FsOp::WriteFile { path: path.into(), mode, atomic: true, mtime }, path)
    }

    /// A tar archive to be unpacked below a directory; every entry is unpacked when the writer is finished.
    pub fn write_tar(self, path: &str) -> MicrosandboxResult<FileWriter<S>> {
        check_path("write_tar", path)?;
        self.write_by(FsOp::WriteTar { path: path.into() }, path)
    }

    fn write_by(mut self, op: FsOp, path: &str) -> MicrosandboxResult<FileWriter<S>> {
        let id = self.connection.begin_fs(op)?;
        Ok(FileWriter {
            connection: self.connection,
            id,
            path: path.into(),
            sent: 0,
            state: WriteState::Open,
            answer: None,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> FileReader<S> {
    /// The next non-empty piece; `None` when the file is complete. A transfer whose byte count is not the declared one
    /// is an error, not an end.
    pub async fn next(&mut self) -> MicrosandboxResult<Option<Bytes>> {
        while !self.done {
            let message = match self.connection.answer(self.id).await {
                Ok(message) => message,
                Err(error) => return Err(self.fail(error)),
            };
            match self.take(message) {
                Ok(Some(data)) => return Ok(Some(data)),
                Ok(None) => {}
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(None)
    }

    fn fail(&mut self, error: MicrosandboxError) -> MicrosandboxError {
        self.done = true;
        error
    }

    fn take(&mut self, message: Message) -> MicrosandboxResult<Option<Bytes>> {
        if message.kind == Kind::FsData {
            let data = self.connection.data(&message)?;
            self.received += data.len() as u64;
            return Ok((!data.is_empty()).then_some(data));
        }
        let subject = Subject { operation: "read", path: &self.path };
        let response = self.connection.fs_response(subject, message)?;
        self.done = true;
        declared(&self.connection, &response, self.received)?;
        Ok(None)
    }
}

/// Holds the agent's count against ours.
fn declared<S>(connection: &Connection<S>, response: &FsResponse, counted: u64) -> MicrosandboxResult<()> {
    match response.bytes {
        Some(bytes) if bytes == counted => Ok(()),
        Some(bytes) => {
            Err(connection.broke(format!("it declared {bytes} bytes of content, {counted} went over the wire")))
        }
        None => Err(connection.broke("a file transfer ended without a byte count")),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum WriteState {
    Open,
    /// All content and the end mark are queued.
    Ending,
    /// Answered or failed; nothing more can be written.
    Over,
}

/// A file being written. Dropping it before [`FileWriter::finish`] leaves the old content.
pub struct FileWriter<S = UnixStream> {
    connection: Connection<S>,
    id: u32,
    path: String,
    sent: u64,
    state: WriteState,
    /// The final answer, when it came in the same moment in which the end mark left.
    answer: Option<Message>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FileWriter<S> {
    /// Hands content over; returns when the agent's side has taken it from us. Cancelled in the middle, the rest goes
    /// with the next call.
    pub async fn write(&mut self, mut data: Bytes) -> MicrosandboxResult<()> {
        self.usable()?;
        self.push().await?;
        self.sent += data.len() as u64;
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(CHUNK));
            self.connection.queue_data(self.id, &Kind::FsData, piece);
        }
        self.push().await
    }

    fn usable(&self) -> MicrosandboxResult<()> {
        if self.state == WriteState::Open {
            return Ok(());
        }
        Err(MicrosandboxError::InvalidState(format!("the writer of {} is closed", super::failure::quote(&self.path))))
    }

    /// Ends the content and waits until the file is in place.
    pub async fn finish(&mut self) -> MicrosandboxResult<()> {
        if self.state == WriteState::Over {
            return Ok(());
        }
        if self.state == WriteState::Open {
            self.state = WriteState::Ending;
            self.connection.queue_data(self.id, &Kind::FsData, Bytes::new());
        }
        self.push().await?;
        // Syncing a large file takes its time.
        let answer = match self.answer.take() {
            Some(message) => Ok(message),
            None => self.connection.patient_answer(self.id).await,
        };
        self.state = WriteState::Over;
        let subject = Subject { operation: "write", path: &self.path };
        let response = self.connection.fs_response(subject, answer?)?;
        declared(&self.connection, &response, self.sent)
    }

    /// Writes out what is queued, listening for an early refusal such as a full disk. Time counts only while nothing
    /// moves: while the agent takes bytes it is alive.
    async fn push(&mut self) -> MicrosandboxResult<()> {
        while self.connection.queued() > 0 {
            let before = self.connection.queued();
            let early = tokio::time::timeout(SILENCE_DEADLINE / 2, self.flush_or_frame(before)).await;
            match early {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(message))) => self.answered(message)?,
                Ok(Err(error)) => {
                    self.state = WriteState::Over;
                    return Err(error);
                }
                Err(_elapsed) => self.ask().await?,
            }
        }
        Ok(())
    }

    /// The agent takes nothing: its disk may be slow, or it may be gone. The question stands in line behind the content,
    /// so what counts is whether anything moves within the rest of the deadline.
    async fn ask(&mut self) -> MicrosandboxResult<()> {
        let before = self.connection.queued();
        let moved = tokio::time::timeout(SILENCE_DEADLINE / 2, self.flush_or_frame(before)).await;
        match moved {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(message))) => self.answered(message),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) if self.connection.is_paused() => Ok(()),
            Err(_elapsed) => Err(MicrosandboxError::GuestStalled {
                name: self.connection.name().into(),
                secs: SILENCE_DEADLINE.as_secs_f64(),
            }),
        }
    }

    /// Until the queue got shorter (`None`) or an answer came.
    async fn flush_or_frame(&mut self, before: usize) -> MicrosandboxResult<Option<Message>> {
        loop {
            let frame = poll_fn(|cx| {
                let _ = self.connection.poll_flush(cx);
                match self.connection.poll_frame(cx) {
                    Poll::Ready(frame) => Poll::Ready(Some(frame)),
                    Poll::Pending if self.connection.queued() < before => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            let Some(frame) = frame else { return Ok(None) };
            let Some(frame) = frame? else {
                return Err(self.connection.lost("it closed the connection during a write"));
            };
            if frame.id != self.id && frame.id != 0 {
                self.connection.count_stray();
                continue;
            }
            let message = self.connection.open(&frame)?;
            match message.kind {
                Kind::Error => return Err(self.connection.refused(&message)),
                Kind::FsResponse if frame.id == self.id => return Ok(Some(message)),
                // Credit and the like: the socket bounds us already.
                _ => self.connection.count_stray(),
            }
        }
    }

    /// The answer to everything, if everything is out; a refusal otherwise.
    fn answered(&mut self, message: Message) -> MicrosandboxResult<()> {
        if self.state == WriteState::Ending && self.connection.queued() == 0 {
            self.answer = Some(message);
            return Ok(());
        }
        Err(self.early(message))
    }

    /// An answer before the content was complete can only be a refusal.
    fn early(&mut self, message: Message) -> MicrosandboxError {
        self.state = WriteState::Over;
        let subject = Subject { operation: "write", path: &self.path };
        match self.connection.fs_response(subject, message) {
            Ok(_) => self.connection.broke("it called a write done before it had all content"),
            Err(error) => error,
        }
    }
}
