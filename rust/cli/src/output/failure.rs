//! Failures of verbs: the report for the user, and the exit status.
//!
//! | status | when |
//! |---|---|
//! | 0 | success |
//! | 1 | any reported failure; an expired time limit |
//! | 2 | the command line is invalid |
//! | 126, 127 | `run`, `exec`: the program is not executable; not found |
//! | 128 + n | ended by signal n: 130 is Ctrl-C, 141 a closed output pipe |
//! | other | `run`, `exec`: the program's own status |

use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::SandboxStatus;

/// A program was found but could not be executed.
pub const NOT_EXECUTABLE: i32 = 126;
/// A program was not found.
pub const NOT_FOUND: i32 = 127;
/// The command line is invalid.
pub const USAGE: i32 = 2;
/// Any other reported failure.
pub const FAILED: i32 = 1;

/// The result of a verb.
pub type Outcome<T> = Result<T, Failure>;

/// Why a verb failed.
#[derive(Debug)]
pub enum Failure {
    /// An error of the core.
    Core(MicrosandboxError),
    /// An error of the command line itself.
    Message { text: String, hint: Option<String> },
    /// The command line parses, but its arguments contradict each other.
    Usage(String),
    /// Each failure was reported when it occurred; only the exit status is left.
    Reported,
    /// A signal ended the verb.
    Signalled(i32),
    /// Standard output was closed by its reader; not reported.
    BrokenPipe,
}

impl From<MicrosandboxError> for Failure {
    fn from(error: MicrosandboxError) -> Self {
        Failure::Core(error)
    }
}

impl Failure {
    pub fn message(text: impl Into<String>) -> Self {
        Failure::Message { text: text.into(), hint: None }
    }

    pub fn hinted(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Message { text: text.into(), hint: Some(hint.into()) }
    }

    /// Writing to standard output failed.
    pub fn output(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Failure::BrokenPipe
        } else {
            Failure::message(format!("cannot write the output: {error}"))
        }
    }

    /// The status that the shell sees.
    pub fn exit_code(&self) -> i32 {
        match self {
            Failure::Core(MicrosandboxError::ExecFailed(failure)) => match failure.kind.as_str() {
                "not_found" => NOT_FOUND,
                "permission_denied" | "not_executable" => NOT_EXECUTABLE,
                _ => FAILED,
            },
            Failure::Core(_) | Failure::Message { .. } | Failure::Reported => FAILED,
            Failure::Usage(_) => USAGE,
            Failure::Signalled(signal) => 128 + signal,
            Failure::BrokenPipe => 128 + libc::SIGPIPE,
        }
    }

    /// `error: …` and, where there is a remedy, `hint: …`; `None` if nothing is to be reported.
    pub fn report(&self) -> Option<String> {
        let (text, hint) = match self {
            Failure::Core(error) => (describe(error), remedy(error)),
            Failure::Message { text, hint } => (text.clone(), hint.clone()),
            Failure::Usage(text) => (text.clone(), Some("--help shows the arguments of the verb".to_owned())),
            Failure::Reported | Failure::Signalled(_) | Failure::BrokenPipe => return None,
        };
        let mut report = format!("error: {}", crate::terminal::console::printable(&text));
        if let Some(hint) = hint {
            report.push_str("\nhint: ");
            report.push_str(&crate::terminal::console::printable(&hint));
        }
        Some(report)
    }
}

/// The error text, with the last console lines of a sandbox that failed to boot.
fn describe(error: &MicrosandboxError) -> String {
    match error {
        MicrosandboxError::BootStart(failure) if !failure.log_tail.trim().is_empty() => {
            let tail = failure.log_tail.trim_end().lines().map(|line| format!("  | {line}\n")).collect::<String>();
            format!("{error}\nlast lines of the sandbox's console:\n{}", tail.trim_end())
        }
        _ => error.to_string(),
    }
}

/// A command that may help. `None` where the error text contains it already.
fn remedy(error: &MicrosandboxError) -> Option<String> {
    let hint = match error {
        MicrosandboxError::SandboxNotFound(_) => "msb list shows the existing sandboxes".into(),
        MicrosandboxError::SandboxAlreadyExists(name) => {
            format!("to start the existing sandbox: msb start {name}; to stop and remove it first: --replace")
        }
        MicrosandboxError::SandboxStillRunning(name) => {
            format!("to stop the sandbox: msb stop {name}; to stop and remove it: msb remove --force {name}")
        }
        MicrosandboxError::SandboxNotRunning { name, status: SandboxStatus::Paused } => {
            format!("to resume the sandbox: msb resume {name}")
        }
        MicrosandboxError::SandboxNotRunning { name, .. } => format!("to start the sandbox: msb start {name}"),
        MicrosandboxError::StopTimeout { name, .. } => format!("to kill the sandbox: msb kill {name}"),
        MicrosandboxError::NoDefaultCommand { .. } => {
            "write the command after two dashes, like: msb run host -- ls /".into()
        }
        MicrosandboxError::ImageNotFound(_) => {
            "msb images lists the imported images, msb load -i ARCHIVE imports one; the image \"host\" needs no import"
                .into()
        }
        MicrosandboxError::ImageInUse { reference, .. } => {
            format!("to remove the image anyway: msb image remove --force {reference}")
        }
        MicrosandboxError::BootStart(_) => {
            "msb doctor reports whether sandboxes can run on this machine, and why not".into()
        }
        MicrosandboxError::IsolationUnavailable { .. } => {
            "msb doctor reports the isolation that this machine supports, and what is missing".into()
        }
        MicrosandboxError::MetricsDisabled(_) => "the sandbox was created with metrics sampling disabled".into(),
        MicrosandboxError::AgentLost { name, .. } | MicrosandboxError::GuestStalled { name, .. } => {
            format!("msb status {name} shows whether the sandbox still runs")
        }
        MicrosandboxError::StateBusy { .. } | MicrosandboxError::ResourceExhausted { .. } => {
            "retry: the same command may succeed in a moment".into()
        }
        _ => return None,
    };
    Some(hint)
}
