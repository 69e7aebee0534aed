//! The log files of one sandbox as one sequence: each in its own order, together by time.

use std::path::Path;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::chain::Chain;
use super::line::{Filter, Parsed, record, text};
use microsandbox_core::error::MicrosandboxResult;
use microsandbox_core::log_cursor::{self as cursor, Position};
use microsandbox_core::model::{LogEntry, LogSource};

const FILES: [&str; 3] = ["exec.log", "runtime.log", "kernel.log"];
const GAP: &str = "--- log rotated faster than it was read: some output is missing here ---";

struct Feed {
    chain: Chain,
    /// JSON lines; else plain text.
    json: bool,
    /// Of the last text line that had a time.
    last: DateTime<Utc>,
    head: Option<(Parsed, Position)>,
    /// A line that waits behind the note of a gap.
    pending: Option<(Vec<u8>, Position)>,
    /// After the last entry given out.
    given: Position,
}

/// A reader over `exec.log`, and with system entries over the two text logs as well.
pub struct Merge {
    feeds: Vec<Feed>,
    filter: Filter,
}

impl Merge {
    /// Opens the files in `directory`, strictly after `from` if given.
    pub fn open(directory: &Path, filter: Filter, from: Option<&[Position]>) -> MicrosandboxResult<Merge> {
        let count = if filter.wants(LogSource::System) { FILES.len() } else { 1 };
        let feeds = FILES[..count]
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let from = from.and_then(|from| from.get(index)).copied().unwrap_or_default();
                let chain = Chain::open(directory.join(name), from)?;
                let last = chain.created().unwrap_or(DateTime::UNIX_EPOCH);
                Ok(Feed { given: from, chain, json: index == 0, last, head: None, pending: None })
            })
            .collect::<MicrosandboxResult<Vec<Feed>>>()?;
        Ok(Merge { feeds, filter })
    }

    /// The next entry that is there.
    pub fn next(&mut self) -> MicrosandboxResult<Option<LogEntry>> {
        for feed in &mut self.feeds {
            feed.look(&self.filter)?;
        }
        let earliest = (0..self.feeds.len())
            .filter(|&index| self.feeds[index].head.is_some())
            .min_by_key(|&index| self.feeds[index].head.as_ref().map(|(parsed, _)| parsed.timestamp));
        let Some(index) = earliest else { return Ok(None) };
        let Some((parsed, after)) = self.feeds[index].head.take() else { return Ok(None) };
        self.feeds[index].given = after;
        let cursor = cursor::encode(self.feeds.iter().map(|feed| feed.given));
        let Parsed { timestamp, source, session_id, data } = parsed;
        Ok(Some(LogEntry { timestamp, source, session_id, data, cursor }))
    }
}

impl Feed {
    /// Makes sure that the head is filled if there is anything.
    fn look(&mut self, filter: &Filter) -> MicrosandboxResult<()> {
        while self.head.is_none() {
            let pending = self.pending.take();
            let Some((line, after)) = pending.map_or_else(|| self.chain.next_line(), |line| Ok(Some(line)))? else {
                break;
            };
            if std::mem::take(&mut self.chain.gap) {
                // Said whatever the sources are: silence would be a lie about all of them.
                let data = Bytes::from_static(GAP.as_bytes());
                let timestamp = Utc::now();
                self.head = Some((Parsed { timestamp, source: LogSource::System, session_id: None, data }, self.given));
                self.pending = Some((line, after));
                break;
            }
            self.head = self.parse(&line, filter).map(|parsed| (parsed, after));
        }
        Ok(())
    }

    fn parse(&mut self, line: &[u8], filter: &Filter) -> Option<Parsed> {
        if self.json { record(line, filter) } else { text(line, &mut self.last, filter) }
    }
}
