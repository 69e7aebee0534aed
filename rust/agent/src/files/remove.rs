//! Removing directories.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::FsError;
use super::names::parent;
use super::root::Root;

/// Directories held open at once. What lies deeper is first moved up to the top, so depth has no limit.
const MAX_OPEN: usize = 64;
/// Passes over a directory that others keep filling.
const MAX_PASSES: usize = 64;

/// Removes a directory; links inside are removed, never followed, and other file systems are not entered.
pub fn remove_dir(root: &Root, path: &str, recursive: bool, cancel: &AtomicBool) -> Result<(), FsError> {
    let (dir, name) = parent(root, path, "cannot remove")?;
    let failed = |e| FsError::at(e, "cannot remove", path);
    if recursive {
        let top = open_dir(dir.as_fd(), &*name).map_err(failed)?;
        let device = rustix::fs::fstat(&top).map_err(failed)?.st_dev;
        let mut sweep = Sweep { top: top.as_fd(), device, moved: 0, cancel };
        sweep.empty_top().map_err(failed)?;
    }
    rustix::fs::unlinkat(&dir, &*name, AtFlags::REMOVEDIR).map_err(failed)
}

fn open_dir<P: rustix::path::Arg>(dir: BorrowedFd<'_>, name: P) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

struct Sweep<'a> {
    top: BorrowedFd<'a>,
    device: u64,
    /// Directories moved to the top because they lay too deep.
    moved: u64,
    cancel: &'a AtomicBool,
}

/// A directory on the way down.
struct Level {
    fd: OwnedFd,
    entries: Dir,
    name: std::ffi::CString,
}

impl Sweep<'_> {
    fn empty_top(&mut self) -> Result<(), Errno> {
        for _ in 0..MAX_PASSES {
            let mut found = false;
            let mut entries = Dir::read_from(self.top)?;
            while let Some(entry) = entries.read() {
                let entry = entry?;
                if is_dots(entry.file_name()) {
                    continue;
                }
                found = true;
                if !self.remove_leaf(self.top, &entry)? {
                    self.remove_tree(entry.file_name())?;
                }
            }
            if !found {
                return Ok(());
            }
        }
        Err(Errno::NOTEMPTY)
    }

    /// Removes a directory of the top with everything below it.
    fn remove_tree(&mut self, name: &std::ffi::CStr) -> Result<(), Errno> {
        let mut stack = vec![self.level(self.top, name)?];
        loop {
            let depth = stack.len();
            let Some(level) = stack.last_mut() else { return Ok(()) };
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Errno::CANCELED);
            }
            match level.entries.read() {
                Some(entry) => {
                    let entry = entry?;
                    let here = level.fd.as_fd();
                    if is_dots(entry.file_name()) || self.remove_leaf(here, &entry)? {
                        continue;
                    }
                    if depth >= MAX_OPEN {
                        self.moved += 1;
                        self.move_up(here, entry.file_name())?;
                    } else {
                        let next = self.level(here, entry.file_name())?;
                        stack.push(next);
                    }
                }
                None => {
                    let Some(done) = stack.pop() else { return Ok(()) };
                    let parent = stack.last().map_or(self.top, |level| level.fd.as_fd());
                    match rustix::fs::unlinkat(parent, done.name.as_c_str(), AtFlags::REMOVEDIR) {
                        // Filled again meanwhile: the next pass over the top finds it.
                        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    fn level(&self, dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<Level, Errno> {
        let fd = open_dir(dir, name)?;
        if rustix::fs::fstat(&fd)?.st_dev != self.device {
            return Err(Errno::BUSY);
        }
        let entries = Dir::read_from(&fd)?;
        Ok(Level { fd, entries, name: name.to_owned() })
    }

    fn move_up(&self, dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<(), Errno> {
        let unused = format!(".msb-removing-{}-{:x}", self.moved, crate::init::monotonic_ns());
        rustix::fs::renameat(dir, name, self.top, unused.as_str())
    }

    /// True if the entry was no directory and is gone.
    fn remove_leaf(&self, dir: BorrowedFd<'_>, entry: &rustix::fs::DirEntry) -> Result<bool, Errno> {
        let is_dir = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => {
                let stat = rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            _ => false,
        };
        if is_dir {
            return Ok(false);
        }
        match rustix::fs::unlinkat(dir, entry.file_name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

fn is_dots(name: &std::ffi::CStr) -> bool {
    name == c"." || name == c".."
}
