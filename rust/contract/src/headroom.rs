//! `disk.host_headroom`: the free space of a file system that the product leaves to the host.

use std::fmt;

use rustix::fs::StatVfs;
use serde::{Deserialize, Serialize};

/// Kept free on a large file system, at least.
const LEAST_BYTES: u64 = 1 << 30;
/// Kept free of a very large one: one part of this many.
const LARGE_PART: u64 = 50;
/// Never more is kept free than one part of this many: a small file system would be unusable otherwise.
const SMALL_PART: u64 = 8;
/// Inodes kept free: one part of this many, and never more than [`MOST_INODES`].
const INODE_PART: u64 = 50;
const MOST_INODES: u64 = 10_000;

/// How much is kept free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Headroom {
    /// The larger of 1 GiB and 2 % of the file system, at most an eighth of it; of its inodes 2 %, at most 10,000.
    #[default]
    Usual,
    /// This many bytes, and no inodes; 0 keeps nothing free.
    Bytes(u64),
}

/// What a file system has less of than is kept free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    Bytes { free: u64, kept: u64 },
    Inodes { free: u64, kept: u64 },
}

impl Headroom {
    /// Bytes kept free of a file system of this size.
    pub fn bytes(self, total: u64) -> u64 {
        match self {
            Headroom::Usual => LEAST_BYTES.max(total / LARGE_PART).min(total / SMALL_PART),
            Headroom::Bytes(bytes) => bytes,
        }
    }

    /// Whether the file system still has it.
    pub fn check(self, stat: &StatVfs) -> Result<(), Shortage> {
        let block = if stat.f_frsize > 0 { stat.f_frsize } else { stat.f_bsize };
        let (free, total) = (stat.f_bavail.saturating_mul(block), stat.f_blocks.saturating_mul(block));
        let kept = self.bytes(total);
        if free < kept {
            return Err(Shortage::Bytes { free, kept });
        }
        // A file system without a table of inodes has none in all (Btrfs).
        let kept = if self == Headroom::Usual { (stat.f_files / INODE_PART).min(MOST_INODES) } else { 0 };
        if stat.f_favail < kept {
            return Err(Shortage::Inodes { free: stat.f_favail, kept });
        }
        Ok(())
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        match *self {
            Shortage::Bytes { free, kept } => {
                write!(f, "{} MiB free, and {} MiB are kept free for the host", mib(free), mib(kept).max(1))?;
            }
            Shortage::Inodes { free, kept } => {
                write!(f, "{free} inodes free, and {kept} are kept free for the host")?;
            }
        }
        f.write_str(
            "; free some space there (msb image prune, msb remove), or lower disk.host_headroom_mib in the configuration file",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_usual_headroom_fits_the_size_of_the_disk() {
        assert_eq!(Headroom::Usual.bytes(64 << 20), 8 << 20);
        assert_eq!(Headroom::Usual.bytes(20 * GIB), GIB);
        assert_eq!(Headroom::Usual.bytes(1000 * GIB), 20 * GIB);
        assert_eq!(Headroom::Bytes(0).bytes(1000 * GIB), 0);
    }

    #[test]
    fn the_limit_itself_is_enough_and_a_byte_less_is_not() {
        let mut stat = rustix::fs::statvfs("/proc").unwrap();
        (stat.f_frsize, stat.f_blocks, stat.f_files) = (1, 100 * GIB, 0);
        for (free, enough) in [(2 * GIB + 1, true), (2 * GIB, true), (2 * GIB - 1, false)] {
            stat.f_bavail = free;
            assert_eq!(Headroom::Usual.check(&stat).is_ok(), enough, "{free}");
        }
        stat.f_bavail = 50 * GIB;
        for (free, enough) in [(10_001, true), (10_000, true), (9_999, false)] {
            (stat.f_files, stat.f_favail) = (10_000_000, free);
            assert_eq!(Headroom::Usual.check(&stat).is_ok(), enough, "{free}");
        }
        assert!(Headroom::Bytes(GIB).check(&stat).is_ok());
    }

    #[test]
    fn a_shortage_says_how_to_lower_the_limit() {
        let text = Shortage::Bytes { free: 5 << 20, kept: GIB }.to_string();
        assert!(text.contains("5 MiB free") && text.contains("disk.host_headroom_mib"), "{text}");
    }
}
