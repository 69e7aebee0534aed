//! The one error type. A variant is a condition a program may want to distinguish; the Python class of each is
//! named in `rust/bindings/src/errors.rs`, by an exhaustive match.

use std::fmt::Display;
use std::path::{Path, PathBuf};

pub use microsandbox_contract::Stage;

use crate::model::{ExecOutput, SandboxStatus};

/// Result of everything in this crate.
pub type MicrosandboxResult<T> = Result<T, MicrosandboxError>;

/// What went wrong: what was attempted, on what, why, and what to do. No text holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum MicrosandboxError {
    #[error("invalid config: {0}")]
    InvalidConfig(String),
    #[error("invalid cursor: {0}")]
    InvalidCursor(String),
    #[error("image {image} has neither an entrypoint nor a default command; pass a command")]
    NoDefaultCommand { image: String },

    #[error("sandbox not found: {0}")]
    SandboxNotFound(String),
    #[error("sandbox already exists: {0}; use replace, connect to the existing sandbox, or choose another name")]
    SandboxAlreadyExists(String),
    #[error("sandbox still running: {0}; stop it first")]
    SandboxStillRunning(String),
    #[error("sandbox {name} is not running (status {status})")]
    SandboxNotRunning { name: String, status: SandboxStatus },
    #[error("sandbox {0} was replaced: this handle belongs to an earlier sandbox of that name")]
    SandboxReplaced(String),
    #[error("sandbox {name} did not stop within {secs} s")]
    StopTimeout { name: String, secs: f64 },
    #[error("sandbox {name}: the stopped state was not observed within {secs} s after the kill")]
    KillTimeout { name: String, secs: f64 },

    #[error("exec timed out after {secs} s; the process tree was killed")]
    ExecTimeout { secs: f64, output: Option<Box<ExecOutput>> },
    #[error("{}", .0.message)]
    ExecFailed(Box<ExecFailure>),
    #[error(
        "output is over its limit of {limit} bytes ({kept} kept, {dropped} dropped); pass a bound (max_output_bytes= of a run, \
         tail= of logs), or read a stream"
    )]
    OutputLimit { limit: u64, kept: u64, dropped: u64 },

    #[error("{operation} {path}: {message}")]
    Filesystem { operation: String, path: String, kind: String, errno: Option<i32>, message: String },
    #[error("{operation} {path}: no such file or directory")]
    PathNotFound { operation: String, path: String },

    #[error("{message}")]
    Job { code: String, message: String, job: String },

    #[error("patch failed: {path}: {message}")]
    PatchFailed { path: String, message: String },

    #[error("volume not found: {0}")]
    VolumeNotFound(String),
    #[error("volume already exists: {0}")]
    VolumeAlreadyExists(String),
    #[error("volume {name} is in use by sandbox {holder}")]
    VolumeInUse { name: String, holder: String },

    #[error("image not found: {0}")]
    ImageNotFound(String),
    #[error("image {reference} is in use by {}, or force the removal", user(holder))]
    ImageInUse { reference: String, holder: String },
    #[error("{message}")]
    ImagePull { kind: ImageErrorKind, message: String },

    #[error("metrics of sandbox {0} are disabled")]
    MetricsDisabled(String),
    #[error("no metrics of sandbox {name}: {reason}")]
    MetricsUnavailable { name: String, reason: String },

    /// The backend lacks a feature; `available_when` says when it comes or what to use instead.
    #[error("{feature} is not supported by this backend: {available_when}")]
    Unsupported { feature: String, available_when: String },

    #[error("sandbox {} did not start: {} ({}); {}", .0.name, .0.message, .0.stage, .0.hint)]
    BootStart(Box<BootFailure>),
    #[error("{demanded} isolation is not available here: {reason}; {hint}")]
    IsolationUnavailable { demanded: String, reason: String, hint: String },

    #[error("the agent of sandbox {name} violated the protocol: {what}")]
    Protocol { name: String, what: String },
    #[error("lost the connection to the agent of sandbox {name}: {reason}")]
    AgentLost { name: String, reason: String },
    /// The agent of a sandbox that was started by an older version.
    #[error(
        "the agent of sandbox {name} does not know {operation}: {said}; restart the sandbox to get the current agent"
    )]
    AgentTooOld { name: String, operation: String, said: String },
    #[error("sandbox {name} stopped consuming input for {secs} s")]
    GuestStalled { name: String, secs: f64 },

    /// The object cannot be used in this state or process (after a fork, after detach …).
    #[error("{0}")]
    InvalidState(String),
    #[error("out of {resource}: {message}")]
    ResourceExhausted { resource: String, message: String },
    #[error("state database {} is busy: {message}", path.display())]
    StateBusy { path: PathBuf, message: String },
    #[error("state database {} is not writable: {message}", path.display())]
    StateReadOnly { path: PathBuf, message: String },
    #[error("state database {} is damaged: {message}", path.display())]
    StateCorrupt { path: PathBuf, message: String },
    #[error("state database {} was replaced or removed while open: {message}", path.display())]
    StateLost { path: PathBuf, message: String },
    #[error("state database {}: {message}", path.display())]
    Database { path: PathBuf, message: String },

    #[error("{message}")]
    CloudHttp { status: u16, code: Option<String>, message: String },
    #[error("{0}")]
    Http(String),
    /// No connection to the service.
    #[error("{message}")]
    Unreachable { message: String, source: std::io::Error },
    /// The certificate of the service was refused, or no common way to encrypt was found.
    #[error("{message}")]
    Tls { message: String, source: Box<dyn std::error::Error + Send + Sync> },

    #[error("{context}: {source}")]
    Io { context: String, source: std::io::Error },
    #[error("{context}: {source}")]
    Json { context: String, source: serde_json::Error },
    #[error("{0}")]
    Runtime(String),
    #[error("{0}")]
    Custom(String),
}

/// Why a program could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecFailure {
    /// `not_found permission_denied not_executable bad_cwd bad_args resource_limit user_setup_failed out_of_memory
    /// pty_setup_failed other`.
    pub kind: String,
    pub message: String,
    pub errno: Option<i32>,
    pub errno_name: Option<String>,
    pub stage: Option<String>,
}

/// Why a sandbox did not come up; the fields of `boot-error.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFailure {
    pub name: String,
    pub stage: Stage,
    pub step: String,
    pub errno: Option<i32>,
    pub message: String,
    pub hint: String,
    pub log_tail: String,
}

/// Why something cannot be had on this host, and what helps.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lack {
    pub reason: String,
    pub hint: String,
}

impl Lack {
    pub fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Lack { reason: reason.into(), hint: hint.into() }
    }

    /// As the answer to a demand for a microVM.
    pub fn no_microvm(self) -> MicrosandboxError {
        MicrosandboxError::IsolationUnavailable { demanded: "microvm".into(), reason: self.reason, hint: self.hint }
    }
}

/// What was wrong with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageErrorKind {
    UnsafeEntry,
    LimitExceeded,
    DigestMismatch,
    CorruptLayer,
    Stalled,
    Transport,
    Denied,
    /// The registry asks to wait for longer than a pull waits.
    RateLimited,
    /// The policy demands a signature that the image does not have.
    Unsigned,
}

impl ImageErrorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ImageErrorKind::UnsafeEntry => "UnsafeEntry",
            ImageErrorKind::LimitExceeded => "LimitExceeded",
            ImageErrorKind::DigestMismatch => "DigestMismatch",
            ImageErrorKind::CorruptLayer => "CorruptLayer",
            ImageErrorKind::Stalled => "Stalled",
            ImageErrorKind::Transport => "Transport",
            ImageErrorKind::Denied => "Denied",
            ImageErrorKind::RateLimited => "RateLimited",
            ImageErrorKind::Unsigned => "Unsigned",
        }
    }
}

/// Who uses an image, and what to do about it. The name of a sandbox has no space, the description of an operation has.
fn user(holder: &str) -> String {
    match holder.contains(' ') {
        true => format!("{holder}; wait for its end"),
        false => format!("sandbox {holder}; remove the sandbox first"),
    }
}

impl MicrosandboxError {
    /// An operation that this backend does not have, and when it comes.
    pub fn unsupported(feature: impl Into<String>, available_when: impl Into<String>) -> Self {
        MicrosandboxError::Unsupported { feature: feature.into(), available_when: available_when.into() }
    }

    /// Host I/O on `path`.
    pub fn io(action: &str, path: &Path, source: std::io::Error) -> Self {
        MicrosandboxError::Io { context: format!("{action} {}", path.display()), source }
    }

    pub fn json(context: impl Display, source: serde_json::Error) -> Self {
        MicrosandboxError::Json { context: context.to_string(), source }
    }

    /// Whether the same call may succeed later without a change.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            MicrosandboxError::StateBusy { .. }
                | MicrosandboxError::ResourceExhausted { .. }
                | MicrosandboxError::Http(_)
                | MicrosandboxError::Unreachable { .. }
                | MicrosandboxError::CloudHttp { status: 429 | 502 | 503 | 504, .. }
        )
    }
}
