//! Why a program could not be started, in the words of the protocol.

use microsandbox_protocol::message::ExecFailed;
use microsandbox_protocol::names;

use crate::errno;

/// The closed list of kinds (see [`ExecFailed::kind`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    NotFound,
    PermissionDenied,
    NotExecutable,
    BadCwd,
    BadArgs,
    ResourceLimit,
    UserSetupFailed,
    OutOfMemory,
    PtySetupFailed,
    Other,
}

impl FailureKind {
    pub fn as_wire(self) -> &'static str {
        match self {
            FailureKind::NotFound => "not_found",
            FailureKind::PermissionDenied => "permission_denied",
            FailureKind::NotExecutable => "not_executable",
            FailureKind::BadCwd => "bad_cwd",
            FailureKind::BadArgs => "bad_args",
            FailureKind::ResourceLimit => "resource_limit",
            FailureKind::UserSetupFailed => "user_setup_failed",
            FailureKind::OutOfMemory => "out_of_memory",
            FailureKind::PtySetupFailed => "pty_setup_failed",
            FailureKind::Other => "other",
        }
    }
}

/// A failed start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    pub errno: Option<i32>,
    pub stage: &'static str,
    pub message: String,
}

impl Failure {
    pub fn new(kind: FailureKind, stage: &'static str, message: impl Into<String>) -> Failure {
        Failure { kind, errno: None, stage, message: message.into() }
    }

    /// `message` gets the system's text of `errno` appended.
    pub fn with_errno(kind: FailureKind, stage: &'static str, code: i32, message: impl AsRef<str>) -> Failure {
        Failure { kind, errno: Some(code), stage, message: format!("{}: {}", message.as_ref(), errno::text(code)) }
    }

    /// A failure of the machinery itself (pipes, clone): out of memory and full tables have their own kinds.
    pub fn machinery(stage: &'static str, code: i32, what: &str) -> Failure {
        let kind = match code {
            libc::ENOMEM => FailureKind::OutOfMemory,
            libc::EAGAIN | libc::EMFILE | libc::ENFILE => FailureKind::ResourceLimit,
            _ => FailureKind::Other,
        };
        Failure::with_errno(kind, stage, code, what)
    }

    pub fn to_wire(&self) -> ExecFailed {
        ExecFailed {
            kind: self.kind.as_wire().to_owned(),
            errno: self.errno,
            errno_name: self.errno.and_then(errno::name).map(str::to_owned),
            message: self.message.clone(),
            stage: Some(self.stage.to_owned()),
        }
    }
}

/// Quotes guest data for a message: control characters and marks of direction escaped, at most 200 characters.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(200) + 2);
    out.push('`');
    for (index, c) in names::shown(text).chars().enumerate() {
        if index == 200 {
            out.push('…');
            break;
        }
        if names::is_active(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.push('`');
    out
}
