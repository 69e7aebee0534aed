//! How a run ended.

use serde::{Deserialize, Serialize};

use crate::identity::ProcessIdentity;
use crate::text::{keep_unknown, text_enum};

text_enum! {
    /// Why a run ended. The text is also what the database holds and what users see.
    pub enum ExitReason {
        /// The first process exited with status 0.
        Completed = "Completed",
        /// The first process exited with another status, or the kernel killed it for lack of memory.
        Failed = "Failed",
        MaxDurationExceeded = "MaxDurationExceeded",
        IdleTimeout = "IdleTimeout",
        /// The agent was not ready in time, closed its channel or broke the protocol.
        AgentUnresponsive = "AgentUnresponsive",
        ShutdownRequested = "ShutdownRequested",
        DrainRequested = "DrainRequested",
        /// A signal ended the first process.
        Signal = "Signal",
        InternalError = "InternalError";
        /// A reason of another version.
        Unknown = "Unknown",
    }
}

impl ExitReason {
    /// Whether the run ended as it was meant to: such a sandbox has stopped, every other one has crashed.
    pub fn is_orderly(self) -> bool {
        match self {
            ExitReason::Completed
            | ExitReason::ShutdownRequested
            | ExitReason::DrainRequested
            | ExitReason::IdleTimeout
            | ExitReason::MaxDurationExceeded => true,
            ExitReason::Failed
            | ExitReason::AgentUnresponsive
            | ExitReason::Signal
            | ExitReason::InternalError
            | ExitReason::Unknown => false,
        }
    }
}

/// `runtime/exit.json`. Written before the runtime exits, by rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct ExitRecord {
    pub reason: ExitReason,
    pub detail: Option<String>,
    /// Exit status of PID 1, if it exited.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// The run this is about: [`crate::Identity::runtime`].
    pub runtime: ProcessIdentity,
}

/// As any version may have written it.
#[derive(Deserialize)]
struct Stored {
    reason: String,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    exit_code: Option<i32>,
    #[serde(default)]
    signal: Option<i32>,
    #[serde(default)]
    oom_killed: bool,
    at_ms: u64,
    runtime: ProcessIdentity,
}

impl From<Stored> for ExitRecord {
    fn from(stored: Stored) -> ExitRecord {
        let Stored { reason: text, detail, exit_code, signal, oom_killed, at_ms, runtime } = stored;
        let reason = ExitReason::parse(&text);
        let is_unknown = reason == ExitReason::Unknown && text != reason.as_str();
        let detail = if is_unknown { keep_unknown(&text, detail) } else { detail };
        ExitRecord { reason, detail, exit_code, signal, oom_killed, at_ms, runtime }
    }
}
