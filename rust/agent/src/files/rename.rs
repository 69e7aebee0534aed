//! Renaming, also where the kernel does not: from one file system to another, and of a directory of the image, whose
//! overlay answers `EXDEV`. Then it is done as `mv` does, but so that the target appears complete or not at all. A source
//! that is changed during the copy stays; what a program changes between that look and the removal is lost, as with `mv`.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicBool;

use microsandbox_rooted::{remove, replace::with_free_name};
use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::copy::{CHANGED, Copy, DIRECTORY, Purpose, State, refuse_mount};
use super::error::FsError;
use super::names::parent;
use super::root::{Root, lstat_at};

/// Replaces what may stand at `dst`, as `rename(2)` does.
pub fn rename(root: &Root, src: &str, dst: &str, cancel: &AtomicBool) -> Result<(), FsError> {
    let (from, old) = parent(root, src, "cannot rename")?;
    let (to, new) = parent(root, dst, "cannot rename to")?;
    match rustix::fs::renameat(&from, &*old, &to, &*new) {
        Err(Errno::XDEV) => {}
        other => return other.map_err(|e| FsError::at(e, "cannot rename", src)),
    }
    let name = |name: &[u8], path| CString::new(name).map_err(|_| FsError::invalid(path, "holds a NUL byte"));
    let (old, new) = (name(old.as_bytes(), src)?, name(new.as_bytes(), dst)?);
    let job = Move { from, old, to, new, src, dst };
    job.run(cancel)
}

/// A move by copying: a complete copy beside the target, its rename, the removal of the source.
struct Move<'a> {
    from: OwnedFd,
    old: CString,
    to: OwnedFd,
    new: CString,
    src: &'a str,
    dst: &'a str,
}

impl Move<'_> {
    fn run(&self, cancel: &AtomicBool) -> Result<(), FsError> {
        let failed = |e| FsError::at(e, "cannot rename", self.src);
        let before = self.look().map_err(failed)?;
        refuse_mount(self.from.as_fd(), &self.old).map_err(failed)?;
        self.check_target(&before).map_err(|e| FsError::at(e, "cannot rename to", self.dst))?;
        let (name, ()) = with_free_name(|name| match FileType::from_raw_mode(before.st_mode) {
            FileType::Directory => rustix::fs::mkdirat(&self.to, name, Mode::RWXU),
            // The copy of a file has a name of its own until it is complete; this one keeps the place.
            _ => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&self.to, name, flags, Mode::RUSR).map(drop)
            }
        })
        .map_err(|e| FsError::at(e, "cannot rename to", self.dst))?;
        let copy = Unfinished { dir: self.to.as_fd(), name: CString::new(name).unwrap_or_default() };
        self.copy(&before, &copy.name, cancel)?;
        // Changed or replaced in between: the copy is of something else.
        let now = self.look().map_err(failed)?;
        let is_same = (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino);
        if !is_same || State::of(&now) != State::of(&before) {
            return Err(FsError::at(Errno::STALE, CHANGED, self.src));
        }
        rustix::fs::renameat(&self.to, &*copy.name, &self.to, &*self.new)
            .map_err(|e| FsError::at(e, "cannot rename to", self.dst))?;
        std::mem::forget(copy);
        remove::entry(&self.from, self.old.to_bytes()).map_err(|e| {
            let mut error = failed(e);
            error.message.push_str(&format!("; {} is complete, of {} a part remains", self.dst, self.src));
            error
        })
    }

    fn look(&self) -> Result<Stat, Errno> {
        lstat_at(self.from.as_fd(), std::ffi::OsStr::from_bytes(self.old.to_bytes()))
    }

    /// What `rename(2)` refuses, before anything is copied.
    fn check_target(&self, source: &Stat) -> Result<(), Errno> {
        let is_dir = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match lstat_at(self.to.as_fd(), std::ffi::OsStr::from_bytes(self.new.to_bytes())) {
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
            Ok(target) => match (is_dir(source), is_dir(&target)) {
                (true, false) => Err(Errno::NOTDIR),
                (false, true) => Err(Errno::ISDIR),
                (true, true) if !self.is_empty_target()? => Err(Errno::NOTEMPTY),
                _ => refuse_mount(self.to.as_fd(), &self.new),
            },
        }
    }

    fn is_empty_target(&self) -> Result<bool, Errno> {
        let directory = rustix::fs::openat(&self.to, &*self.new, DIRECTORY, Mode::empty())?;
        for entry in Dir::read_from(&directory)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn copy(&self, source: &Stat, name: &CString, cancel: &AtomicBool) -> Result<(), FsError> {
        let failed = |e| FsError::at(e, "cannot rename", self.src);
        let mut job = Copy::new(cancel, Purpose::Move);
        if FileType::from_raw_mode(source.st_mode) == FileType::Directory {
            let from = || rustix::fs::openat(&self.from, &*self.old, DIRECTORY, Mode::empty()).map_err(failed);
            job.tree(from()?, self.to.as_fd(), name, self.src)?;
            return job.check_unchanged(from()?, self.src);
        }
        job.one(self.from.as_fd(), &self.old, source, self.to.as_fd(), name).map_err(failed)
    }
}

/// A copy that is not in its place; removed unless it gets there.
struct Unfinished<'a> {
    dir: BorrowedFd<'a>,
    name: CString,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // The error that led here is the one to report.
        let _ = remove::entry(self.dir, self.name.to_bytes());
    }
}
