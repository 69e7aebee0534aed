//! Captured output.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;

use crate::error::MicrosandboxResult;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogSource {
    Stdout,
    Stderr,
    /// Terminal output: both streams in one.
    Output,
    /// Markers, and the runtime's and kernel's own lines.
    System,
}

impl LogSource {
    pub fn as_str(self) -> &'static str {
        match self {
            LogSource::Stdout => "stdout",
            LogSource::Stderr => "stderr",
            LogSource::Output => "output",
            LogSource::System => "system",
        }
    }
    pub fn parse(text: &str) -> Option<LogSource> {
        [LogSource::Stdout, LogSource::Stderr, LogSource::Output, LogSource::System]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    pub timestamp: DateTime<Utc>,
    pub source: LogSource,
    /// Number of the exec session; none for system entries.
    pub session_id: Option<u64>,
    pub data: Bytes,
    /// Opaque position: reading from it continues strictly after this entry.
    pub cursor: String,
}

/// A bounded read. `tail` is applied last; empty `sources` means stdout, stderr and output.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub tail: Option<usize>,
    /// Inclusive.
    pub since: Option<DateTime<Utc>>,
    /// Exclusive.
    pub until: Option<DateTime<Utc>>,
    pub sources: Vec<LogSource>,
}

#[derive(Debug, Clone, Default)]
pub struct LogStreamOptions {
    pub sources: Vec<LogSource>,
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
    pub from_cursor: Option<String>,
    /// Stay open until the sandbox ends.
    pub follow: bool,
}

pub type LogStream = BoxStream<'static, MicrosandboxResult<LogEntry>>;
