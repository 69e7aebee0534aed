//! File operations of one request and one answer.

use microsandbox_protocol::frame::Flags;
use microsandbox_protocol::message::{FsAttrs, FsData, FsEntry as WireEntry, FsOp, FsRequest, FsResponse, Kind};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{AgentClient, Connection, failure};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{FsAttributes, FsEntry, FsEntryKind, FsMetadata};

/// `PATH_MAX`, its NUL not counted.
pub(super) const PATH_MAX: usize = 4095;

/// What is being done to which path, for errors.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub operation: &'a str,
    pub path: &'a str,
}

impl Subject<'_> {
    pub fn error(&self, kind: &str, errno: Option<i32>, message: impl Into<String>) -> MicrosandboxError {
        MicrosandboxError::Filesystem {
            operation: self.operation.into(),
            path: failure::quote(self.path),
            kind: kind.into(),
            errno,
            message: message.into(),
        }
    }

    /// The error of an answer that says no.
    fn refusal(&self, response: &FsResponse) -> MicrosandboxError {
        let errno = failure::errno(response.errno);
        let kind = failure::word(response.kind.as_deref());
        if errno == Some(libc::ENOENT) || (errno.is_none() && kind.as_deref() == Some("ENOENT")) {
            return MicrosandboxError::PathNotFound {
                operation: self.operation.into(),
                path: failure::quote(self.path),
            };
        }
        let said = response.error.as_deref().map_or_else(|| "failed".into(), failure::quote);
        self.error(kind.as_deref().unwrap_or("Other"), errno, said)
    }
}

/// A path that may be sent: absolute, non-empty, without NUL, no longer than the kernel takes.
pub fn check_path(operation: &str, path: &str) -> MicrosandboxResult<()> {
    let subject = Subject { operation, path };
    let invalid = |why: &str| Err(subject.error("InvalidPath", Some(libc::EINVAL), why));
    if path.is_empty() {
        return invalid("the path is empty");
    }
    if !path.starts_with('/') {
        return invalid("guest paths are absolute");
    }
    if path.contains('\0') {
        return invalid("the path contains NUL");
    }
    if path.len() > PATH_MAX {
        return Err(subject.error("ENAMETOOLONG", Some(libc::ENAMETOOLONG), "the path is too long"));
    }
    Ok(())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn begin_fs(&mut self, op: FsOp) -> MicrosandboxResult<u32> {
        let id = self.id()?;
        // No window: content is pulled from the socket as it is wanted, and the socket holds the rest back.
        self.queue(id, Flags::SESSION_START, &Kind::FsRequest, &FsRequest { op, window: None })
            .map_err(|error| self.broke(error.to_string()))?;
        Ok(id)
    }

    /// Reads an answer; a refusal becomes the error.
    pub fn fs_response(
        &self,
        subject: Subject<'_>,
        message: microsandbox_protocol::frame::Message,
    ) -> MicrosandboxResult<FsResponse> {
        let message = self.expect(message, Kind::FsResponse)?;
        let response: FsResponse = self.parse(&message)?;
        if response.ok { Ok(response) } else { Err(subject.refusal(&response)) }
    }

    pub(super) async fn fs(&mut self, subject: Subject<'_>, op: FsOp) -> MicrosandboxResult<FsResponse> {
        let id = self.begin_fs(op)?;
        let message = self.answer(id).await?;
        self.fs_response(subject, message)
    }

    /// For trees: may take as long as it takes.
    async fn fs_long(&mut self, subject: Subject<'_>, op: FsOp) -> MicrosandboxResult<FsResponse> {
        let id = self.begin_fs(op)?;
        let message = self.patient_answer(id).await?;
        self.fs_response(subject, message)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AgentClient<S> {
    pub async fn stat(&mut self, operation: &str, path: &str, follow: bool) -> MicrosandboxResult<FsMetadata> {
        check_path(operation, path)?;
        let op = FsOp::Stat { path: path.into(), follow_symlink: follow };
        let response = self.connection.fs(Subject { operation, path }, op).await?;
        match response.data {
            Some(FsData::Stat(entry)) => Ok(metadata(&entry)),
            _ => Err(self.connection.broke("an answer to stat without a stat")),
        }
    }

    /// Whether a path leads somewhere. A dangling link does not.
    pub async fn exists(&mut self, path: &str) -> MicrosandboxResult<bool> {
        match self.stat("exists", path, true).await {
            Ok(_) => Ok(true),
            Err(MicrosandboxError::PathNotFound { .. }) => Ok(false),
            Err(MicrosandboxError::Filesystem { errno: Some(libc::ENOTDIR), .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub async fn set(&mut self, path: &str, attributes: FsAttributes) -> MicrosandboxResult<()> {
        check_path("set", path)?;
        let attrs = FsAttrs {
            size: attributes.size,
            uid: attributes.uid,
            gid: attributes.gid,
            mode: attributes.mode,
            atime: attributes.accessed,
            mtime: attributes.modified,
            mtime_nanos: attributes.modified_nanos,
        };
        let op = FsOp::SetStat { path: path.into(), follow_symlink: !attributes.of_link, attrs };
        self.connection.fs(Subject { operation: "set", path }, op).await.map(drop)
    }

    /// The target is kept as it is: it need not exist.
    pub async fn symlink(&mut self, target: &str, link: &str) -> MicrosandboxResult<()> {
        check_path("symlink", link)?;
        let op = FsOp::Symlink { target: target.into(), link_path: link.into() };
        self.connection.fs(Subject { operation: "symlink", path: link }, op).await.map(drop)
    }

    pub async fn readlink(&mut self, path: &str) -> MicrosandboxResult<String> {
        self.path_of("readlink", path, FsOp::ReadLink { path: path.into() }).await
    }

    /// Without links, `.` and `..`.
    pub async fn realpath(&mut self, path: &str) -> MicrosandboxResult<String> {
        self.path_of("realpath", path, FsOp::RealPath { path: path.into() }).await
    }

    async fn path_of(&mut self, operation: &str, path: &str, op: FsOp) -> MicrosandboxResult<String> {
        check_path(operation, path)?;
        match self.connection.fs(Subject { operation, path }, op).await?.data {
            Some(FsData::Path(path)) if path.len() <= PATH_MAX => Ok(path),
            _ => Err(self.connection.broke(format!("an answer to {operation} without a path"))),
        }
    }

    /// With parents; an existing directory is fine.
    pub async fn mkdir(&mut self, path: &str) -> MicrosandboxResult<()> {
        check_path("mkdir", path)?;
        let op = FsOp::Mkdir { path: path.into(), mode: None };
        self.connection.fs(Subject { operation: "mkdir", path }, op).await.map(drop)
    }

    /// A file or link; `recursive`: a directory with all that is in it.
    pub async fn remove(&mut self, path: &str, recursive: bool) -> MicrosandboxResult<()> {
        check_path("remove", path)?;
        let subject = Subject { operation: "remove", path };
        if recursive {
            self.connection.fs_long(subject, FsOp::RemoveDir { path: path.into(), recursive }).await.map(drop)
        } else {
            self.connection.fs(subject, FsOp::Remove { path: path.into() }).await.map(drop)
        }
    }

    pub async fn copy(&mut self, from: &str, to: &str) -> MicrosandboxResult<()> {
        check_path("copy", from)?;
        check_path("copy", to)?;
        let op = FsOp::Copy { src: from.into(), dst: to.into() };
        self.connection.fs_long(Subject { operation: "copy", path: from }, op).await.map(drop)
    }

    pub async fn rename(&mut self, from: &str, to: &str) -> MicrosandboxResult<()> {
        check_path("rename", from)?;
        check_path("rename", to)?;
        let op = FsOp::Rename { src: from.into(), dst: to.into() };
        // From one file system to another it is a copy.
        self.connection.fs_long(Subject { operation: "rename", path: from }, op).await.map(drop)
    }
}

fn millis(seconds: Option<i64>) -> Option<f64> {
    seconds.map(|seconds| seconds as f64 * 1000.0)
}

fn modified_ms(wire: &WireEntry) -> Option<f64> {
    let (seconds, nanos) = modified(wire)?;
    Some(seconds as f64 * 1000.0 + f64::from(nanos) / 1e6)
}

fn modified(wire: &WireEntry) -> Option<(i64, u32)> {
    // A billion or more is no part of a second.
    let nanos = wire.mtime_nanos.filter(|nanos| *nanos < 1_000_000_000).unwrap_or(0);
    Some((wire.mtime.or(wire.modified)?, nanos))
}

pub(super) fn entry(wire: WireEntry) -> FsEntry {
    FsEntry {
        kind: FsEntryKind::parse(&wire.kind),
        size: wire.size,
        mode: wire.mode,
        modified_ms: modified_ms(&wire),
        path: wire.path,
    }
}

fn metadata(wire: &WireEntry) -> FsMetadata {
    FsMetadata {
        kind: FsEntryKind::parse(&wire.kind),
        size: wire.size,
        mode: wire.mode,
        uid: wire.uid,
        gid: wire.gid,
        readonly: wire.mode & 0o222 == 0,
        modified_ms: modified_ms(wire),
        modified: modified(wire),
        created_ms: millis(wire.created),
    }
}
