//! File operations and watches.

use serde::{Deserialize, Serialize};

use super::bounded::{self, Weigh};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsRequest {
    pub op: FsOp,
    /// *ext* Bytes of `fs.data` the agent may send before the first [`Credit`](super::Credit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
}

/// A file operation. Paths are absolute, resolved beneath the guest root without following magic links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FsOp {
    RealPath {
        path: String,
    },
    Stat {
        path: String,
        follow_symlink: bool,
    },
    SetStat {
        path: String,
        follow_symlink: bool,
        attrs: FsAttrs,
    },
    List {
        path: String,
    },
    ReadLink {
        path: String,
    },
    Symlink {
        target: String,
        link_path: String,
    },
    /// Creates missing parents; an existing directory is fine.
    Mkdir {
        path: String,
        #[serde(default)]
        mode: Option<u32>,
    },
    Remove {
        path: String,
    },
    RemoveDir {
        path: String,
        recursive: bool,
    },
    /// Copies a file or a tree; the target of a file copy is replaced atomically.
    Copy {
        src: String,
        dst: String,
    },
    Rename {
        src: String,
        dst: String,
    },
    OpenFile {
        path: String,
        options: OpenOptions,
    },
    OpenDir {
        path: String,
    },
    CloseHandle {
        handle: u64,
    },
    Read {
        handle: u64,
        offset: u64,
        len: u64,
    },
    Write {
        handle: u64,
        offset: u64,
        len: u64,
    },
    ReadDir {
        handle: u64,
        limit: u32,
    },
    FStat {
        handle: u64,
    },
    FSetStat {
        handle: u64,
        attrs: FsAttrs,
    },
    /// *ext* Whole file in one trip: `fs.data` frames, then the response.
    ReadFile {
        path: String,
    },
    /// *ext* Whole file in one trip: `fs.data` frames ended by an empty one, then the response. With `atomic` the new
    /// content appears in one step, by rename, or not at all.
    WriteFile {
        path: String,
        #[serde(default)]
        mode: Option<u32>,
        #[serde(default)]
        atomic: bool,
        /// Seconds since the epoch and nanoseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mtime: Option<(i64, u32)>,
    },
    /// *ext* What is in a directory as a tar archive (GNU's format, with pax records for parts of a second): `fs.data`
    /// frames, then the response. With `top` the first entry is the directory itself.
    ReadTar {
        path: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        top: bool,
    },
    /// *ext* The other way: an archive in `fs.data` frames ended by an empty one is unpacked below a directory, which is
    /// made if it is missing; then the response.
    WriteTar {
        path: String,
    },
    /// *ext* Changes of a file or in a directory: one response once the watch is active, then `fs.event` frames until
    /// the client leaves or what is watched is gone, which a second response reports.
    Watch {
        path: String,
        recursive: bool,
    },
}

/// Changes that a watch saw, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FsEvents {
    #[serde(deserialize_with = "bounded::list")]
    pub events: Vec<FsEvent>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FsEvent {
    /// `created modified attributes deleted moved`, or `overflow`: more happened than the kernel kept.
    pub kind: String,
    /// Where; for a move the new path. Empty for an overflow.
    pub path: String,
    /// The old path of a move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default)]
    pub is_dir: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OpenOptions {
    #[serde(default)]
    pub read: bool,
    #[serde(default)]
    pub write: bool,
    #[serde(default)]
    pub append: bool,
    #[serde(default)]
    pub create: bool,
    #[serde(default)]
    pub create_new: bool,
    #[serde(default)]
    pub truncate: bool,
    #[serde(default)]
    pub mode: Option<u32>,
}

/// Attributes to set; absent ones stay. Times are seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FsAttrs {
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub uid: Option<u32>,
    #[serde(default)]
    pub gid: Option<u32>,
    #[serde(default)]
    pub mode: Option<u32>,
    #[serde(default)]
    pub atime: Option<i64>,
    #[serde(default)]
    pub mtime: Option<i64>,
    /// *ext* Of `mtime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_nanos: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FsResponse {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// *ext* `InvalidPath MagicLink NotRegularFile PathEscapes NoSpace ReadOnly`, else the errno name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<FsData>,
    /// *ext* Content bytes that this call carried: sent by a read, stored by a write. The receiver holds its own count
    /// against it, so a transfer that lost or gained bytes is never taken for a whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FsData {
    Stat(FsEntry),
    List(#[serde(deserialize_with = "bounded::list")] Vec<FsEntry>),
    Handle(u64),
    Path(String),
}

/// `path` is the full guest path, as [`crate::names`] writes names that are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FsEntry {
    pub path: String,
    /// `file dir symlink other`.
    pub kind: String,
    pub size: u64,
    /// Permission and type bits (`st_mode`).
    pub mode: u32,
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    /// Seconds since the epoch.
    #[serde(default)]
    pub atime: Option<i64>,
    #[serde(default)]
    pub mtime: Option<i64>,
    /// Same as `mtime` on the hosted service.
    #[serde(default)]
    pub modified: Option<i64>,
    /// *ext* Birth time, seconds since the epoch.
    #[serde(default)]
    pub created: Option<i64>,
    /// *ext* Of `mtime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_nanos: Option<u32>,
}

impl Weigh for FsEntry {
    fn held(&self) -> usize {
        self.path.capacity() + self.kind.capacity()
    }
}

impl Weigh for FsEvent {
    fn held(&self) -> usize {
        self.kind.capacity() + self.path.capacity() + self.from.as_ref().map_or(0, String::capacity)
    }
}
