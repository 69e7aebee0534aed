//! What a tree uses of the disk: one way to count it, for budgets, samples, the sizes of volumes and images.

use std::os::fd::OwnedFd;
use std::path::Path;

use microsandbox_rooted::walk::{Bounds, Order, Step, Walk};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Entries of one tree that are looked at; more count as used up.
pub const COUNTED: usize = 1_000_000;
/// A block of `st_blocks`, see stat(2).
const BLOCK: f64 = 512.0;

/// The top of a tree to be counted.
pub fn open(place: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, place, flags, Mode::empty())
}

/// What is beneath a directory. A file counts in equal parts for each of its names, and so once: the names are not kept, whose number
/// a guest decides. Of what the parts lose in rounding nothing is left in whole numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    files: f64,
    allocated: f64,
    content: f64,
    /// There is more, which was not looked at or could not be.
    pub is_partial: bool,
}

impl Count {
    /// Files of every kind.
    pub fn files(&self) -> u64 {
        self.files.round() as u64
    }
    /// Bytes on the disk.
    pub fn allocated(&self) -> u64 {
        self.allocated.round() as u64
    }
    /// Bytes that the regular files hold, holes among them.
    pub fn content(&self) -> u64 {
        self.content.round() as u64
    }

    /// One file that is not part of a tree.
    pub fn of_file(content: u64, allocated: u64) -> Count {
        Count { files: 1.0, allocated: allocated as f64, content: content as f64, is_partial: false }
    }

    /// Both together.
    pub fn and(self, other: Count) -> Count {
        Count {
            files: self.files + other.files,
            allocated: self.allocated + other.allocated,
            content: self.content + other.content,
            is_partial: self.is_partial || other.is_partial,
        }
    }

    fn add(&mut self, stat: &Stat) {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let names = match kind {
            FileType::Directory => 1.0,
            _ => stat.st_nlink.max(1) as f64,
        };
        self.files += 1.0 / names;
        self.allocated += stat.st_blocks.max(0) as f64 * BLOCK / names;
        if kind == FileType::RegularFile {
            self.content += stat.st_size.max(0) as f64 / names;
        }
    }
}

/// A directory and what is beneath it; the first `most` entries where there are more. One that is absent has nothing.
pub fn tree(place: &Path, most: usize) -> Count {
    let top = match open(place) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Count::default(),
        Err(_) => return Count { is_partial: true, ..Count::default() },
    };
    let stat = rustix::fs::fstat(&top);
    let mut found = count(top, most).unwrap_or(Count { is_partial: true, ..Count::default() });
    if let Ok(stat) = stat {
        found.add(&stat);
    }
    found
}

/// Counts what is beneath `top`; the first `most` entries where there are more.
pub fn count(top: OwnedFd, most: usize) -> Result<Count, Errno> {
    let mut walk = Walk::new(top, Order::Found, Bounds { depth: most, ..Bounds::WIDE })?;
    let (mut count, mut seen) = (Count::default(), 0);
    while let Some(step) = walk.step() {
        if matches!(step, Ok(Step::Left)) {
            continue;
        }
        if seen == most {
            count.is_partial = true;
            break;
        }
        seen += 1;
        match step {
            Ok(Step::Left) => {}
            Ok(Step::Entry(entry)) => count.add(&entry.stat),
            // As an ordinary user: a directory of another user of the sandbox.
            Err(Errno::ACCESS | Errno::PERM | Errno::OVERFLOW) => count.is_partial = true,
            // One that the guest has just removed.
            Err(_) => {}
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(place: &Path, most: usize) -> Count {
        count(open(place).unwrap(), most).unwrap()
    }

    #[test]
    fn blocks_count_and_holes_do_not() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join("d")).unwrap();
        std::fs::write(scratch.path().join("d/full"), vec![1; 1 << 20]).unwrap();
        std::fs::File::create(scratch.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        let found = counted(scratch.path(), COUNTED);
        assert_eq!((found.files(), found.content(), found.is_partial), (3, (1 << 30) + (1 << 20), false));
        assert!((1 << 20..2 << 20).contains(&found.allocated()), "{found:?}");
        assert!(counted(scratch.path(), 2).is_partial);
    }

    #[test]
    fn a_file_with_several_names_counts_once() {
        let scratch = tempfile::tempdir().unwrap();
        let first = scratch.path().join("first");
        std::fs::write(&first, vec![1; (1 << 20) + 1]).unwrap();
        let once = counted(scratch.path(), COUNTED);
        for number in 0..6 {
            std::fs::hard_link(&first, scratch.path().join(number.to_string())).unwrap();
        }
        let found = counted(scratch.path(), COUNTED);
        assert_eq!((found.files(), found.content()), (1, (1 << 20) + 1));
        assert_eq!(found.allocated(), once.allocated());
    }
}
