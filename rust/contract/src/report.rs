//! What `msb-runtime` reports to the SDK.

use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::isolation::IsolationReport;
use crate::step::{Stage, Step};
use crate::text::text_enum;

/// A line on [`crate::fd::REPORT`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// Launch: the agent answers on `runtime/agent.sock`.
    Ready(Box<LaunchReady>),
    /// Launch: it never will. The same document is in `logs/boot-error.json`.
    BootError(BootError),
    /// Unpack: bytes of `layer` (index in the spec) read so far.
    Progress { layer: usize, read: u64, total: u64 },
    /// Unpack: one layer complete and synced.
    Unpacked { layer: usize, bytes: u64, entries: u64 },
    /// Probe.
    Probed(IsolationReport),
    /// Unpack, RemoveTree: all done.
    Done,
    /// Unpack, RemoveTree, Probe: failed; partial targets are the caller's to remove.
    Failed(JobError),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchReady {
    pub identity: Identity,
    pub timings: Vec<Timing>,
    pub agent_version: Option<String>,
}

/// A step of the boot and when it was finished, in microseconds since the runtime's first instruction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Timing {
    pub step: Step,
    pub at_us: u64,
}

/// `logs/boot-error.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootError {
    /// Milliseconds since the epoch.
    pub t: u64,
    pub stage: Stage,
    /// The named step inside the stage, e.g. `mount overlay`.
    pub step: Step,
    pub message: String,
    #[serde(default)]
    pub errno: Option<i32>,
    /// What the user can do.
    pub hint: String,
    /// Last lines of `kernel.log` and `runtime.log`.
    #[serde(default)]
    pub log_tail: String,
}

text_enum! {
    /// What kind of failure ended an unpack, removal or probe.
    pub enum JobErrorKind {
        UnsafeEntry = "unsafe_entry",
        LimitExceeded = "limit_exceeded",
        DigestMismatch = "digest_mismatch",
        CorruptLayer = "corrupt_layer",
        NoSpace = "no_space",
        Denied = "denied";
        /// Everything else, and a kind of another version.
        Io = "io",
    }
}

/// Why an unpack, removal or probe failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    pub kind: JobErrorKind,
    pub message: String,
    #[serde(default)]
    pub errno: Option<i32>,
    pub hint: String,
}
