//! What sandboxes and volumes use of the disk.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use microsandbox_core::error::MicrosandboxResult;
use microsandbox_home::{Home, blocking};
use microsandbox_rooted::walk::{Bounds, Order, Step, Walk};
use rustix::fs::{Mode, OFlags};

/// Entries of one tree that are looked at; more count as used up.
const COUNTED: usize = 1_000_000;
/// A block of `st_blocks`, see stat(2).
const BLOCK: u64 = 512;

/// Blocks on the disk and files, of every kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUse {
    pub bytes: u64,
    pub inodes: u64,
}

/// Together: the upper layers and logs of these sandboxes, and the files of these volumes. What cannot be read counts as nothing.
pub async fn measure(home: &Home, sandboxes: Vec<String>, volumes: Vec<String>) -> MicrosandboxResult<DiskUse> {
    let home = home.clone();
    blocking(move || {
        let sandboxes = sandboxes.iter().map(|name| home.sandbox_dir(name));
        let volumes = volumes.iter().map(|name| home.config().volume_path(name));
        let mut used = DiskUse::default();
        for place in sandboxes.chain(volumes).collect::<Vec<PathBuf>>() {
            if let Ok(top) = open(&place) {
                add(&mut used, top);
            }
        }
        Ok(used)
    })
    .await
}

fn open(place: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(place, flags, Mode::empty())
}

fn add(used: &mut DiskUse, top: OwnedFd) {
    let Ok(mut walk) = Walk::new(top, Order::Found, Bounds { depth: COUNTED, ..Bounds::WIDE }) else { return };
    let mut seen = 0;
    while seen < COUNTED
        && let Some(step) = walk.step()
    {
        match step {
            Ok(Step::Left) => continue,
            Ok(Step::Entry(entry)) => {
                let blocks = u64::try_from(entry.stat.st_blocks).unwrap_or_default();
                used.bytes = used.bytes.saturating_add(blocks.saturating_mul(BLOCK));
                used.inodes += 1;
            }
            Err(_) => {}
        }
        seen += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_count_and_holes_do_not() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join("d")).unwrap();
        std::fs::write(scratch.path().join("d/full"), vec![1; 1 << 20]).unwrap();
        std::fs::File::create(scratch.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        let mut used = DiskUse::default();
        add(&mut used, open(scratch.path()).unwrap());
        assert_eq!(used.inodes, 3);
        assert!((1 << 20..2 << 20).contains(&used.bytes), "{used:?}");
    }
}
