//! Where a sandbox is in its life.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Stored in the database in this spelling (CapWords); Python and the wire use lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SandboxStatus {
    /// Exists, not booted.
    Created,
    Starting,
    Running,
    /// Winding down.
    Draining,
    Paused,
    /// Ended normally.
    Stopped,
    /// Ended abnormally.
    Crashed,
    /// One that this version does not know, of a service of another version; the last error of the record names it.
    Unknown,
}

impl SandboxStatus {
    /// Every status that a sandbox of this version can have.
    pub const ALL: [SandboxStatus; 7] = [
        SandboxStatus::Created,
        SandboxStatus::Starting,
        SandboxStatus::Running,
        SandboxStatus::Draining,
        SandboxStatus::Paused,
        SandboxStatus::Stopped,
        SandboxStatus::Crashed,
    ];

    /// `Stopped` and `Crashed`, nothing else.
    pub fn is_terminal(self) -> bool {
        matches!(self, SandboxStatus::Stopped | SandboxStatus::Crashed)
    }

    /// Whether an agent is expected to answer.
    pub fn is_live(self) -> bool {
        matches!(self, SandboxStatus::Running | SandboxStatus::Draining)
    }

    /// Whether `remove` must refuse.
    pub fn blocks_remove(self) -> bool {
        matches!(self, SandboxStatus::Running | SandboxStatus::Draining | SandboxStatus::Paused)
    }

    /// The database spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            SandboxStatus::Created => "Created",
            SandboxStatus::Starting => "Starting",
            SandboxStatus::Running => "Running",
            SandboxStatus::Draining => "Draining",
            SandboxStatus::Paused => "Paused",
            SandboxStatus::Stopped => "Stopped",
            SandboxStatus::Crashed => "Crashed",
            SandboxStatus::Unknown => "Unknown",
        }
    }

    /// Reads the database spelling.
    pub fn parse(text: &str) -> Option<SandboxStatus> {
        SandboxStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl std::fmt::Display for SandboxStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a wait for the end observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxStopResult {
    pub name: String,
    pub status: SandboxStatus,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub observed_at: DateTime<Utc>,
    /// `refreshed backend state`, or the termination reason where the backend knows it.
    pub source: Option<String>,
}
