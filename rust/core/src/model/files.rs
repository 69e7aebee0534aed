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

/// What to change of a file; what is absent stays. Times are whole seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsAttributes {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Bytes: the file is cut, or filled with zeros.
    pub size: Option<u64>,
    pub accessed: Option<i64>,
    pub modified: Option<i64>,
    /// Of `modified`; absent: none.
    pub modified_nanos: Option<u32>,
    /// The link itself, not what it leads to.
    pub of_link: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsEventKind {
    Created,
    Modified,
    /// Mode, owner or times.
    Attributes,
    Deleted,
    Moved,
    /// More happened than was kept: look again.
    Overflow,
}

impl FsEventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            FsEventKind::Created => "created",
            FsEventKind::Modified => "modified",
            FsEventKind::Attributes => "attributes",
            FsEventKind::Deleted => "deleted",
            FsEventKind::Moved => "moved",
            FsEventKind::Overflow => "overflow",
        }
    }
    /// Parses the word on the wire. An unknown word counts as an overflow: the caller must look at the files again.
    pub fn parse(word: &str) -> FsEventKind {
        match word {
            "created" => FsEventKind::Created,
            "modified" => FsEventKind::Modified,
            "attributes" => FsEventKind::Attributes,
            "deleted" => FsEventKind::Deleted,
            "moved" => FsEventKind::Moved,
            _ => FsEventKind::Overflow,
        }
    }
}

/// A change of a watched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsEvent {
    pub kind: FsEventKind,
    /// Full guest path; of a move the new one; empty for an overflow.
    pub path: String,
    /// The old path of a move.
    pub from: Option<String>,
    pub is_dir: bool,
}

/// Changes as they happen, until what is watched is gone or the sandbox ends.
pub type FsWatchStream = BoxStream<'static, MicrosandboxResult<FsEvent>>;

/// Called during a transfer with the bytes transferred so far and, where known, the total. Must not block.
pub type TransferProgress = std::sync::Arc<dyn Fn(u64, Option<u64>) + Send + Sync>;

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
    /// The same time exactly: seconds and nanoseconds.
    pub modified: Option<(i64, u32)>,
    pub created_ms: Option<f64>,
}

/// Non-empty chunks of a file, ended by the stream's end.
pub type FsReadStream = BoxStream<'static, MicrosandboxResult<Bytes>>;

/// Pages of a listing, none of them empty.
pub type FsListStream = BoxStream<'static, MicrosandboxResult<Vec<FsEntry>>>;

/// The writing end of a file: nothing is complete before `close` returned.
pub trait FsWriter: Send + Sync {
    fn write(&self, data: Bytes) -> BoxFuture<'_, MicrosandboxResult<()>>;
    fn close(&self) -> BoxFuture<'_, MicrosandboxResult<()>>;
}

pub type FsWriteSink = Box<dyn FsWriter>;
