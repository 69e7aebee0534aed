//! Captured output of one sandbox, with cursors of the same shape as those of log files.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::log_cursor::{self as cursor, Position};
use microsandbox_core::model::{LogEntry, LogSource};

/// Newest captured bytes that are kept.
const KEEP_BYTES: usize = 64 << 20;

pub struct Journal {
    entries: VecDeque<LogEntry>,
    /// Number of the first entry that is kept.
    first: u64,
    bytes: usize,
    generation: u64,
}

/// What a reader wants.
#[derive(Clone)]
pub struct Want {
    pub sources: Vec<LogSource>,
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
}

impl Want {
    pub fn new(sources: &[LogSource], since: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Want {
        let programs = [LogSource::Stdout, LogSource::Stderr, LogSource::Output];
        Want { sources: if sources.is_empty() { programs.to_vec() } else { sources.to_vec() }, since, until }
    }

    pub fn admits(&self, entry: &LogEntry) -> bool {
        self.sources.contains(&entry.source)
            && self.since.is_none_or(|since| entry.timestamp >= since)
            && self.until.is_none_or(|until| entry.timestamp < until)
    }
}

impl Journal {
    pub fn new() -> Journal {
        // Random, so that a cursor of another sandbox is not mistaken for one of this.
        let generation = RandomState::new().build_hasher().finish().max(1);
        Journal { entries: VecDeque::new(), first: 0, bytes: 0, generation }
    }

    pub fn add(&mut self, source: LogSource, session_id: Option<u64>, data: Bytes) {
        let number = self.first + self.entries.len() as u64;
        let position = Position { generation: self.generation, offset: number + 1 };
        self.bytes += data.len();
        let cursor = cursor::encode([position].into_iter());
        self.entries.push_back(LogEntry { timestamp: Utc::now(), source, session_id, data, cursor });
        while self.bytes > KEEP_BYTES
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.data.len();
            self.first += 1;
        }
    }

    pub fn marker(&mut self, text: &'static str) {
        self.add(LogSource::System, None, Bytes::from_static(text.as_bytes()));
    }

    /// The number of the entry to begin with.
    pub fn seek(&self, text: Option<&str>) -> MicrosandboxResult<u64> {
        let positions = text.map(cursor::decode).transpose()?.unwrap_or_default();
        match positions.first() {
            None => Ok(self.first),
            Some(position) if *position == Position::default() => Ok(self.first),
            Some(position) if position.generation == self.generation && position.offset >= self.first => {
                Ok(position.offset)
            }
            Some(_) => Err(MicrosandboxError::InvalidCursor("of another sandbox, or of entries that are gone".into())),
        }
    }

    /// The entry of that number, or the next one that is kept, with the number after it.
    pub fn at(&self, number: u64) -> Option<(LogEntry, u64)> {
        let number = number.max(self.first);
        let entry = self.entries.get((number - self.first) as usize)?;
        Some((entry.clone(), number + 1))
    }

    pub fn all(&self, want: &Want) -> Vec<LogEntry> {
        self.entries.iter().filter(|entry| want.admits(entry)).cloned().collect()
    }
}
