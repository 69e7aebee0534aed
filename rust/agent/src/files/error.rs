//! Why a file operation failed.

use microsandbox_protocol::message::FsResponse;
use rustix::io::Errno;

use crate::errno;
use crate::exec::failure::quote;

use super::root::MAGIC_LINK;

/// kind + operation and path + errno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsError {
    pub kind: &'static str,
    pub errno: Option<i32>,
    pub message: String,
}

impl FsError {
    pub fn new(kind: &'static str, message: impl Into<String>) -> FsError {
        FsError { kind, errno: None, message: message.into() }
    }

    /// `operation` is a verb phrase: "cannot read".
    pub fn at(code: Errno, operation: &str, path: &str) -> FsError {
        if code == MAGIC_LINK {
            let message = format!("{operation} {}: the path leads through a magic link of /proc", quote(path));
            return FsError { kind: "MagicLink", errno: Some(libc::ELOOP), message };
        }
        let number = code.raw_os_error();
        let kind = match code {
            Errno::NOSPC | Errno::DQUOT => "NoSpace",
            Errno::ROFS => "ReadOnly",
            _ => errno::name(number).unwrap_or("EIO"),
        };
        FsError { kind, errno: Some(number), message: format!("{operation} {}: {}", quote(path), errno::text(number)) }
    }

    pub fn invalid(path: &str, why: &str) -> FsError {
        FsError::new("InvalidPath", format!("path {} {why}", quote(path)))
    }

    pub fn not_regular(path: &str) -> FsError {
        FsError::new("NotRegularFile", format!("{} is not a regular file", quote(path)))
    }

    pub fn limit(message: impl Into<String>) -> FsError {
        FsError::new("LimitExceeded", message)
    }

    pub fn cancelled() -> FsError {
        FsError { kind: "ECANCELED", errno: Some(libc::ECANCELED), message: "the operation was cancelled".to_owned() }
    }

    pub fn to_response(&self) -> FsResponse {
        FsResponse {
            ok: false,
            error: Some(self.message.clone()),
            kind: Some(self.kind.to_owned()),
            errno: self.errno,
            ..FsResponse::default()
        }
    }
}

/// Refuses what no file system call could mean.
pub fn check_path(path: &str) -> Result<(), FsError> {
    if path.is_empty() {
        return Err(FsError::invalid(path, "is empty"));
    }
    if path.contains('\0') {
        return Err(FsError::invalid(path, "holds a NUL byte"));
    }
    Ok(())
}
