//! How much room the files of a sandbox take on the disk of this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use microsandbox_home::blocking;

use crate::disk_use;

/// Entries that are counted; of a larger tree the size is unknown.
const ENTRIES_MAX: usize = 200_000;
/// Of the time of a stream of samples at most one part in this many goes into counting.
const SHARE: u32 = 20;

/// The upper layer of a sandbox, counted at intervals.
#[derive(Debug, Default)]
pub struct Upper {
    counted: Option<Counted>,
}

#[derive(Debug)]
struct Counted {
    bytes: Option<u64>,
    at: Instant,
    took: Duration,
}

impl Upper {
    /// The bytes that it takes, from the last count where that was short ago; `None` where that cannot be known.
    pub async fn used_bytes(&mut self, sandbox_dir: &Path) -> Option<u64> {
        if let Some(last) = &self.counted
            && last.at.elapsed() < last.took * SHARE
        {
            return last.bytes;
        }
        let (begun, upper) = (Instant::now(), sandbox_dir.join("upper"));
        let bytes = blocking(move || Ok(count(&upper))).await.ok().flatten();
        self.counted = Some(Counted { bytes, at: Instant::now(), took: begun.elapsed() });
        bytes
    }
}

fn count(upper: &Path) -> Option<u64> {
    let count = disk_use::open(upper).and_then(|top| disk_use::count(top, ENTRIES_MAX)).ok()?;
    (!count.is_partial).then(|| count.allocated())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_count_with_what_they_take_and_once() {
        let sandbox = tempfile::tempdir().unwrap();
        let mut upper = Upper::default();
        assert_eq!(upper.used_bytes(sandbox.path()).await, None);
        let inner = sandbox.path().join("upper/inner");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(inner.join("file"), inner.join("other")).unwrap();
        std::fs::File::create(inner.join("hole")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/", inner.join("link")).unwrap();
        let used = Upper::default().used_bytes(sandbox.path()).await.unwrap();
        assert!((1 << 20..2 << 20).contains(&used), "{used}");
    }
}
