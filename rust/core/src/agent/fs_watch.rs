//! Changes of guest files, as the agent reports them.

use microsandbox_protocol::message::{FsEvents, FsOp, Kind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::fs_call::{Subject, check_path};
use super::{AgentClient, Connection};
use crate::error::MicrosandboxResult;
use crate::model::{FsEvent, FsEventKind};

/// An active watch. Dropping the watcher ends the watch.
pub struct FileWatcher<S = UnixStream> {
    connection: Connection<S>,
    id: u32,
    path: String,
    over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AgentClient<S> {
    /// Returns once the watch is active; later changes are reported.
    pub async fn watch(mut self, path: &str, recursive: bool) -> MicrosandboxResult<FileWatcher<S>> {
        check_path("watch", path)?;
        let id = self.connection.begin_fs(FsOp::Watch { path: path.into(), recursive })?;
        let message = self.connection.answer(id).await?;
        self.connection.fs_response(Subject { operation: "watch", path }, message)?;
        Ok(FileWatcher { connection: self.connection, id, path: path.into(), over: false })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> FileWatcher<S> {
    /// The next changes, oldest first; `None` when what was watched is gone or the sandbox ends. Waits for ever: a guest
    /// in which nothing happens is not a silent one, and asking it costs nothing.
    pub async fn next(&mut self) -> MicrosandboxResult<Option<Vec<FsEvent>>> {
        if self.over {
            return Ok(None);
        }
        let message = self.connection.patient_answer(self.id).await.inspect_err(|_| self.over = true)?;
        if message.kind == Kind::FsEvent {
            let batch: FsEvents = self.connection.parse(&message)?;
            return Ok(Some(batch.events.into_iter().map(event).collect()));
        }
        self.over = true;
        self.connection.fs_response(Subject { operation: "watch", path: &self.path }, message)?;
        Ok(None)
    }
}

fn event(wire: microsandbox_protocol::message::FsEvent) -> FsEvent {
    FsEvent { kind: FsEventKind::parse(&wire.kind), path: wire.path, from: wire.from, is_dir: wire.is_dir }
}
