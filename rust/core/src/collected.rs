//! Streams collected into memory, within a bound: whoever is at the other end decides how much it sends.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::TryStreamExt as _;

use crate::agent::failure;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{FsEntry, FsListStream, FsReadStream, LogEntry};

/// Largest file that is read into memory as a whole unless the caller allows more (`fs.read_bytes`).
pub const READ_BYTES: u64 = 64 << 20;
/// Most memory of a listing that is held as a whole (`fs.list_bytes`).
pub const LIST_BYTES: usize = 64 << 20;
/// What an entry of a listing costs besides its path, here and as an object of Python.
const ENTRY_BYTES: usize = 256;
/// Most memory of log entries that are held together (`log.read_bytes`).
pub const LOGS_BYTES: usize = 64 << 20;
/// What a log entry costs besides its data, here and as an object of Python.
const LOG_ENTRY_BYTES: usize = 384;

/// The error of a file that has more bytes than its reader allows.
pub fn too_large(path: &str, most: u64) -> MicrosandboxError {
    MicrosandboxError::Filesystem {
        operation: "read".into(),
        path: failure::quote(path),
        kind: "LimitExceeded".into(),
        errno: Some(libc::EFBIG),
        message: format!(
            "the file has more than {most} bytes, the limit of this read (fs.read_bytes); pass max_bytes= to allow more, or \
             use read_stream"
        ),
    }
}

/// A stream's content in one piece, if it has at most `most` bytes.
pub async fn collect(mut pieces: FsReadStream, path: &str, most: u64) -> MicrosandboxResult<Bytes> {
    let mut whole = Vec::new();
    while let Some(piece) = pieces.try_next().await? {
        if (whole.len() + piece.len()) as u64 > most {
            return Err(too_large(path, most));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

/// A listing in one piece, sorted by path, if it takes at most [`LIST_BYTES`].
pub async fn whole_listing(mut pages: FsListStream, path: &str) -> MicrosandboxResult<Vec<FsEntry>> {
    let mut entries = Vec::new();
    let mut taken = 0;
    while let Some(page) = pages.try_next().await? {
        taken += page.iter().map(|entry| entry.path.len() + ENTRY_BYTES).sum::<usize>();
        if taken > LIST_BYTES {
            return Err(MicrosandboxError::Filesystem {
                operation: "list".into(),
                path: failure::quote(path),
                kind: "LimitExceeded".into(),
                errno: None,
                message: format!(
                    "its entries take more than {LIST_BYTES} bytes of memory (fs.list_bytes); use list_stream, which holds one \
                     page of them"
                ),
            });
        }
        entries.extend(page);
    }
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// Log entries that are held together: the newest `tail`, or all, if they take at most [`LOGS_BYTES`].
pub struct LogEntries {
    kept: VecDeque<LogEntry>,
    tail: Option<usize>,
    taken: usize,
}

impl LogEntries {
    pub fn new(tail: Option<usize>) -> Self {
        LogEntries { kept: VecDeque::new(), tail, taken: 0 }
    }

    pub fn push(&mut self, entry: LogEntry) -> MicrosandboxResult<()> {
        self.taken += cost(&entry);
        self.kept.push_back(entry);
        if self.tail.is_some_and(|tail| self.kept.len() > tail)
            && let Some(oldest) = self.kept.pop_front()
        {
            self.taken -= cost(&oldest);
        }
        if self.taken <= LOGS_BYTES {
            return Ok(());
        }
        let (limit, taken) = (LOGS_BYTES as u64, self.taken as u64);
        Err(MicrosandboxError::OutputLimit { limit, kept: 0, dropped: taken })
    }

    pub fn into_vec(self) -> Vec<LogEntry> {
        self.kept.into()
    }
}

fn cost(entry: &LogEntry) -> usize {
    entry.data.len() + LOG_ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::model::LogSource;

    fn entry(size: usize) -> LogEntry {
        let (timestamp, data) = (DateTime::UNIX_EPOCH, vec![0; size].into());
        LogEntry { timestamp, source: LogSource::Stdout, session_id: None, data, cursor: String::new() }
    }

    #[test]
    fn log_entries_are_held_within_their_bound() {
        let mut all = LogEntries::new(None);
        let error = (0..LOGS_BYTES).find_map(|_| all.push(entry(1)).err()).expect("refused in the end");
        assert!(matches!(error, MicrosandboxError::OutputLimit { .. }), "{error}");
        assert!(error.to_string().contains("tail="), "{error}");
        assert!(all.kept.len() <= LOGS_BYTES / LOG_ENTRY_BYTES);
        let mut newest = LogEntries::new(Some(3));
        for size in 0..200_000 {
            newest.push(entry(size % 1000)).unwrap();
        }
        assert_eq!(newest.into_vec().iter().map(|entry| entry.data.len()).collect::<Vec<_>>(), [997, 998, 999]);
    }
}
