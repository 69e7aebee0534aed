//! How a verb fails, what the user reads about it, and which status the shell sees.
//!
//! | status | when |
//! |---|---|
//! | 0 | success |
//! | 1 | any reported failure; a time limit that passed |
//! | 2 | the command line was wrong |
//! | 126, 127 | `run`, `exec`: the program cannot be executed; is not there |
//! | 128 + n | ended by signal n: 130 is Ctrl-C, 141 a reader that went away |
//! | other | `run`, `exec`: the program's own status |

use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::SandboxStatus;

/// A program was found but could not be executed.
pub const NOT_EXECUTABLE: i32 = 126;
/// A program was not found.
pub const NOT_FOUND: i32 = 127;
/// The command line was wrong.
pub const USAGE: i32 = 2;
/// Any other reported failure.
pub const FAILED: i32 = 1;

/// What verbs return.
pub type Outcome<T> = Result<T, Failure>;

/// Why a verb did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The core said no.
    Core(MicrosandboxError),
    /// Found out here.
    Message { text: String, hint: Option<String> },
    /// The command line parsed but makes no sense.
    Usage(String),
    /// Every part was reported when it failed: only the status is left.
    Reported,
    /// A signal ended the verb.
    Signalled(i32),
    /// Nobody reads our output any more; not worth a word.
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

    /// `error: …` and, where there is a way out, `hint: …`; `None` when there is nothing to say.
    pub fn report(&self) -> Option<String> {
        let (text, hint) = match self {
            Failure::Core(error) => (describe(error), remedy(error)),
            Failure::Message { text, hint } => (text.clone(), hint.clone()),
            Failure::Usage(text) => (text.clone(), Some("try --help".to_owned())),
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

/// The error in words, with the console of a sandbox that did not come up.
fn describe(error: &MicrosandboxError) -> String {
    match error {
        MicrosandboxError::BootStart(failure) if !failure.log_tail.trim().is_empty() => {
            let tail = failure.log_tail.trim_end().lines().map(|line| format!("  | {line}\n")).collect::<String>();
            format!("{error}\nlast lines of its console:\n{}", tail.trim_end())
        }
        _ => error.to_string(),
    }
}

/// What to type next. Errors whose own text already says it have none.
fn remedy(error: &MicrosandboxError) -> Option<String> {
    let hint = match error {
        MicrosandboxError::SandboxNotFound(_) => "msb list shows the sandboxes that exist".into(),
        MicrosandboxError::SandboxAlreadyExists(name) => {
            format!("start it with: msb start {name}; or give --replace to stop and remove it first")
        }
        MicrosandboxError::SandboxStillRunning(name) => {
            format!("msb stop {name}; or let msb remove --force {name} do both")
        }
        MicrosandboxError::SandboxNotRunning { name, status: SandboxStatus::Paused } => {
            format!("let it go on with: msb resume {name}")
        }
        MicrosandboxError::SandboxNotRunning { name, .. } => format!("start it with: msb start {name}"),
        MicrosandboxError::StopTimeout { name, .. } => format!("end it by force with: msb kill {name}"),
        MicrosandboxError::NoDefaultCommand { .. } => "write the command after --, as in: msb run host -- ls /".into(),
        MicrosandboxError::ImageNotFound(_) => {
            "msb images lists what is here, msb load -i ARCHIVE brings an image in; the image \"host\" needs neither"
                .into()
        }
        MicrosandboxError::ImageInUse { reference, .. } => {
            format!("or force it with: msb image remove --force {reference}")
        }
        MicrosandboxError::BootStart(_) => {
            "msb doctor says whether this machine can start any sandbox, and why not".into()
        }
        MicrosandboxError::IsolationUnavailable { .. } => "msb doctor says what this machine can give, and why".into(),
        MicrosandboxError::MetricsDisabled(_) => "it was created with sampling switched off".into(),
        MicrosandboxError::AgentLost { name, .. } | MicrosandboxError::GuestStalled { name, .. } => {
            format!("msb status {name} says whether it still runs")
        }
        MicrosandboxError::StateBusy { .. } | MicrosandboxError::ResourceExhausted { .. } => {
            "the same command may succeed in a moment".into()
        }
        _ => return None,
    };
    Some(hint)
}
