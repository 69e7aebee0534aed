//! A file that becomes visible under its name in one step, complete, or never.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::machine::init::monotonic_ns;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// An unfinished sibling of the target; removed unless it is published.
pub struct Temporary {
    dir: OwnedFd,
    name: String,
    file: OwnedFd,
    published: bool,
}

impl Temporary {
    /// Creates one in `dir` with the mode 0600.
    pub fn new(dir: OwnedFd) -> Result<Temporary, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..16 {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!(".msb-{:x}-{number:x}.tmp", monotonic_ns());
            match rustix::fs::openat(&dir, name.as_str(), flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok(Temporary { dir, name, file, published: false }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Gives the file its final name, replacing what is there.
    pub fn publish<P: rustix::path::Arg>(mut self, name: P) -> Result<(), Errno> {
        rustix::fs::renameat(&self.dir, self.name.as_str(), &self.dir, name)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // No other code uses the name; if the file cannot be removed, a drop has no caller to report that to.
            let _ = rustix::fs::unlinkat(&self.dir, self.name.as_str(), AtFlags::empty());
        }
    }
}
