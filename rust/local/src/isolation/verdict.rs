//! Whether a VM boots on this host, remembered: `<cache>/canary.json`.
//!
//! A verdict is about one boot of the machine, one guest kernel, one version of this product and one user. A "no" is also
//! about the time that the canary was given: with more time it is asked again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use microsandbox_core::error::Lack;
use microsandbox_home::process;

const FILE: &str = "canary.json";
/// Raised whenever the canary tries something else than before.
const FORMAT: u32 = 1;

/// What a verdict is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    format: u32,
    boot_id: String,
    /// Digest of the guest kernel's library.
    kernel: String,
    product: String,
    uid: u32,
}

impl Subject {
    /// This machine, as it runs now, with this kernel.
    pub fn here(kernel: &str) -> Self {
        Subject {
            format: FORMAT,
            // Without one nothing is remembered beyond the current answer: no two unknown boots are the same.
            boot_id: process::boot_id().map_or_else(|| format!("unknown-{}", now_ms()), str::to_owned),
            kernel: kernel.to_owned(),
            product: env!("CARGO_PKG_VERSION").to_owned(),
            uid: rustix::process::geteuid().as_raw(),
        }
    }
}

/// What a canary found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    subject: Subject,
    /// What the canary was given.
    deadline_ms: u64,
    /// When it ended; milliseconds since the epoch.
    at_ms: u64,
    /// From the request to the agent's ready; absent if it never came.
    pub took_ms: Option<u64>,
    /// Why there are no microVMs here.
    pub lack: Option<Lack>,
}

impl Verdict {
    pub fn now(subject: Subject, deadline: Duration, found: Result<Duration, Lack>) -> Self {
        let (took, lack) = match found {
            Ok(took) => (Some(took), None),
            Err(lack) => (None, Some(lack)),
        };
        let took_ms = took.map(millis);
        Verdict { subject, deadline_ms: millis(deadline), at_ms: now_ms(), took_ms, lack }
    }

    /// How long ago it was found; zero when the clock went back.
    pub fn age(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.at_ms))
    }

    /// Found after this moment; within the same millisecond counts as before.
    pub fn is_since(&self, moment_ms: u64) -> bool {
        self.at_ms > moment_ms
    }
}

/// The remembered verdict on `subject` for a canary that is given `deadline`.
pub fn read(cache: &Path, subject: &Subject, deadline: Duration) -> Option<Verdict> {
    let verdict: Verdict = serde_json::from_slice(&std::fs::read(path(cache)).ok()?).ok()?;
    let counts = verdict.subject == *subject && (verdict.lack.is_none() || verdict.deadline_ms >= millis(deadline));
    counts.then_some(verdict)
}

/// Replaces what was remembered. A failure costs the next process a canary, nothing else.
pub fn write(cache: &Path, verdict: &Verdict) -> std::io::Result<()> {
    let text = serde_json::to_vec_pretty(verdict)?;
    let mut file = tempfile::NamedTempFile::new_in(cache)?;
    file.write_all(&text)?;
    file.persist(path(cache)).map_err(|error| error.error)?;
    Ok(())
}

fn path(cache: &Path) -> PathBuf {
    cache.join(FILE)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Duration = Duration::from_secs(5);

    fn refused() -> Result<Duration, Lack> {
        Err(Lack::new("it hung", "nothing helps"))
    }

    #[test]
    fn a_verdict_counts_for_its_subject_only() {
        let dir = tempfile::tempdir().unwrap();
        let subject = Subject::here("sha256:aa");
        assert_eq!(read(dir.path(), &subject, FIVE), None, "nothing is known at first");
        let verdict = Verdict::now(subject.clone(), FIVE, Ok(Duration::from_millis(250)));
        write(dir.path(), &verdict).unwrap();
        assert_eq!(read(dir.path(), &subject, FIVE), Some(verdict));
        let others = [
            Subject { boot_id: "another".into(), ..subject.clone() },
            Subject { kernel: "sha256:bb".into(), ..subject.clone() },
            Subject { product: "9.9.9".into(), ..subject.clone() },
            Subject { uid: subject.uid.wrapping_add(1), ..subject.clone() },
            Subject { format: FORMAT + 1, ..subject },
        ];
        for other in others {
            assert_eq!(read(dir.path(), &other, FIVE), None, "{other:?}");
        }
    }

    #[test]
    fn a_refusal_is_rechecked_with_more_time_an_approval_not() {
        let dir = tempfile::tempdir().unwrap();
        let subject = Subject::here("sha256:aa");
        write(dir.path(), &Verdict::now(subject.clone(), FIVE, refused())).unwrap();
        assert!(read(dir.path(), &subject, FIVE / 2).is_some());
        assert!(read(dir.path(), &subject, FIVE).is_some());
        assert!(read(dir.path(), &subject, FIVE * 2).is_none());
        write(dir.path(), &Verdict::now(subject.clone(), FIVE, Ok(FIVE))).unwrap();
        assert!(read(dir.path(), &subject, FIVE * 2).is_some());
    }

    #[test]
    fn a_damaged_file_is_no_verdict() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"subject\":").unwrap();
        assert_eq!(read(dir.path(), &Subject::here("sha256:aa"), FIVE), None);
    }
}
