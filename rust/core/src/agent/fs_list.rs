//! A directory, page by page: no more than one page is in memory.

use microsandbox_protocol::message::{FsData, FsOp};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::fs_call::{PATH_MAX, Subject, check_path, entry};
use super::{AgentClient, Connection};
use crate::error::MicrosandboxResult;
use crate::model::FsEntry;

/// Entries of one page (`fs.list_page`).
const LIST_PAGE: u32 = 1000;
/// Longest path of an entry: a name that is not UTF-8 is written longer than it is.
const ENTRY_PATH_MAX: usize = 4 * PATH_MAX;

/// A directory being listed, in its own order. Dropping it ends the listing.
pub struct DirectoryReader<S = UnixStream> {
    connection: Connection<S>,
    path: String,
    /// The agent's name of the open directory; absent once all of it was read.
    handle: Option<u64>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AgentClient<S> {
    /// Returns once the directory is open.
    pub async fn list(mut self, path: &str) -> MicrosandboxResult<DirectoryReader<S>> {
        check_path("list", path)?;
        let subject = Subject { operation: "list", path };
        let response = self.connection.fs(subject, FsOp::OpenDir { path: path.into() }).await?;
        match response.data {
            Some(FsData::Handle(handle)) => {
                Ok(DirectoryReader { connection: self.connection, path: path.into(), handle: Some(handle) })
            }
            _ => Err(self.connection.broke("an answer to opendir without a handle")),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> DirectoryReader<S> {
    /// The next entries, at least one; `None` at the end. The handle goes with the connection.
    pub async fn next(&mut self) -> MicrosandboxResult<Option<Vec<FsEntry>>> {
        let Some(handle) = self.handle else { return Ok(None) };
        let subject = Subject { operation: "list", path: &self.path };
        let response = self.connection.fs(subject, FsOp::ReadDir { handle, limit: LIST_PAGE }).await;
        let Some(FsData::List(page)) = response.inspect_err(|_| self.handle = None)?.data else {
            return Err(self.connection.broke("an answer to readdir without a list"));
        };
        if page.is_empty() {
            self.handle = None;
            return Ok(None);
        }
        if page.len() > LIST_PAGE as usize {
            return Err(self.connection.broke("a directory page longer than asked for"));
        }
        if page.iter().any(|entry| entry.path.len() > ENTRY_PATH_MAX) {
            return Err(self.connection.broke("an entry with a path longer than any path is"));
        }
        Ok(Some(page.into_iter().map(entry).collect()))
    }
}
