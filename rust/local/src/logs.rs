//! Captured output of a local sandbox, read from the files its runtime leaves: `exec.log` with its rotations, and for
//! system entries also `runtime.log` and `kernel.log`. Works whether the sandbox runs or not.

mod chain;
mod line;
mod merge;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::stream;

use line::Filter;
use merge::Merge;
use microsandbox_core::collected::LogEntries;
use microsandbox_core::error::MicrosandboxResult;
use microsandbox_core::model::{LogEntry, LogOptions, LogSource, LogStream, LogStreamOptions};
use microsandbox_home::blocking;

/// Entries that a stream reads per batch.
const BATCH: usize = 256;
/// Poll interval of a follower: short while entries arrive, longer when none do.
const POLL_MIN: Duration = Duration::from_millis(20);
const POLL_MAX: Duration = Duration::from_millis(160);

/// What was captured, oldest first. With `tail`, memory holds no more than that many entries; never more than
/// [`LOGS_BYTES`](microsandbox_core::collected::LOGS_BYTES).
pub async fn logs(directory: &Path, options: LogOptions) -> MicrosandboxResult<Vec<LogEntry>> {
    let directory = directory.to_path_buf();
    blocking(move || {
        let filter = Filter::new(&options.sources, options.since, options.until);
        let mut merge = Merge::open(&directory, filter, None)?;
        let mut kept = LogEntries::new(options.tail);
        if options.tail == Some(0) {
            return Ok(Vec::new());
        }
        while let Some(entry) = merge.next()? {
            kept.push(entry)?;
        }
        Ok(kept.into_vec())
    })
    .await
}

/// Entry by entry. With `follow` the stream stays open while `alive`, and ends when everything was read after that.
pub async fn log_stream(
    directory: PathBuf,
    options: LogStreamOptions,
    alive: impl Fn() -> bool + Send + Sync + 'static,
) -> MicrosandboxResult<LogStream> {
    // `until` ends a stream instead of filtering it, so the filter does not know it.
    let filter = Filter::new(&options.sources, options.since, None);
    let from = options.from_cursor.as_deref().map(microsandbox_core::log_cursor::decode).transpose()?;
    let merge = blocking(move || Merge::open(&directory, filter, from.as_deref())).await?;
    let follower = Follower {
        merge,
        ready: VecDeque::new(),
        until: options.until,
        alive: options.follow.then(|| Arc::new(alive) as Arc<Alive>),
        pause: POLL_MIN,
        over: false,
    };
    Ok(Box::pin(stream::try_unfold(follower, |follower: Follower| async move { follower.next().await })))
}

type Alive = dyn Fn() -> bool + Send + Sync;

struct Follower {
    merge: Merge,
    ready: VecDeque<LogEntry>,
    until: Option<chrono::DateTime<chrono::Utc>>,
    /// Absent: no following.
    alive: Option<Arc<Alive>>,
    pause: Duration,
    over: bool,
}

impl Follower {
    async fn next(mut self) -> MicrosandboxResult<Option<(LogEntry, Follower)>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                if self.until.is_some_and(|until| entry.timestamp >= until) {
                    return Ok(None);
                }
                return Ok(Some((entry, self)));
            }
            if self.over {
                return Ok(None);
            }
            let (follower, idle) = blocking(move || self.fill()).await?;
            self = follower;
            if idle && !self.over {
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(POLL_MAX);
            } else {
                self.pause = POLL_MIN;
            }
        }
    }

    /// Reads a batch. Whether the sandbox lives is asked before reading: what it wrote until then is seen.
    fn fill(mut self) -> MicrosandboxResult<(Follower, bool)> {
        let more = self.alive.as_ref().is_some_and(|alive| alive());
        while self.ready.len() < BATCH {
            let Some(entry) = self.merge.next()? else { break };
            self.ready.push_back(entry);
        }
        let idle = self.ready.is_empty();
        self.over = idle && !more;
        Ok((self, idle))
    }
}

/// Which sources count when none are named.
const DEFAULT_SOURCES: [LogSource; 3] = [LogSource::Stdout, LogSource::Stderr, LogSource::Output];

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
