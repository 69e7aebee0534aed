//! Guest files: metadata and streams.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::error::MicrosandboxResult;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsEntryKind {
    File,
    Directory,
    Symlink,
    Other,
}

impl FsEntryKind {
    pub fn as_str(self) -> &'static str {
        match self {
            FsEntryKind::File => "file",
            FsEntryKind::Directory => "directory",
            FsEntryKind::Symlink => "symlink",
            FsEntryKind::Other => "other",
        }
    }
    /// The word of either wire; unknown ones are [`FsEntryKind::Other`].
    pub fn parse(word: &str) -> FsEntryKind {
        match word {
            "file" => FsEntryKind::File,
            "dir" | "directory" => FsEntryKind::Directory,
            "symlink" => FsEntryKind::Symlink,
            _ => FsEntryKind::Other,
        }
    }
}

/// One directory entry. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct FsEntry {
    /// Full guest path.
    pub path: String,
    pub kind: FsEntryKind,
    pub size: u64,
    pub mode: u32,
    pub modified_ms: Option<f64>,
}

/// Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct FsMetadata {
    pub kind: FsEntryKind,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// No write permission bit is set.
    pub readonly: bool,
    pub modified_ms: Option<f64>,
    pub created_ms: Option<f64>,
}

/// Non-empty chunks of a file, ended by the stream's end.
pub type FsReadStream = BoxStream<'static, MicrosandboxResult<Bytes>>;

/// The writing end of a file: nothing is complete before `close` returned.
pub trait FsWriter: Send + Sync {
    fn write(&self, data: Bytes) -> BoxFuture<'_, MicrosandboxResult<()>>;
    fn close(&self) -> BoxFuture<'_, MicrosandboxResult<()>>;
}

pub type FsWriteSink = Box<dyn FsWriter>;
