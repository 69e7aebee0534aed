//! Copying files and trees inside the sandbox.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use microsandbox_rooted::walk::{Bounds, Entry, Order, Step, Walk};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::entries::open_path;
use super::error::FsError;
use super::names::parent;
use super::root::Root;
use super::temporary::Temporary;

/// `fs.copy_entries`.
const MAX_ENTRIES: u64 = 1_000_000;
/// Levels of directories, each with a descriptor of its copy.
const MAX_DEPTH: usize = 256;
/// Directories side by side.
const MAX_PENDING: usize = 1_000_000;
/// Bytes between two looks at the cancel flag.
const STEP: u64 = 16 << 20;

/// Copies `src` to `dst`. A link at `src` itself is followed, links in a tree are copied as links. An existing
/// directory is merged into; files are replaced atomically. Owner, mode and times are kept where the sandbox may.
pub fn copy(root: &Root, src: &str, dst: &str, cancel: &AtomicBool) -> Result<(), FsError> {
    let source = open_path(root, src, true, "cannot copy")?;
    let stat = rustix::fs::fstat(&source).map_err(|e| FsError::at(e, "cannot copy", src))?;
    let (dir, name) = parent(root, dst, "cannot copy to")?;
    let name = CString::new(name.as_bytes()).map_err(|_| FsError::invalid(dst, "holds a NUL byte"))?;
    let mut job = Copy { cancel, entries: 0, special: 0 };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let file = super::reader::open_regular(root, src)?;
            job.file(file.as_fd(), dir.as_fd(), &name).map_err(|e| FsError::at(e, "cannot copy", src))
        }
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let from = root.open(src, flags, Mode::empty()).map_err(|e| FsError::at(e, "cannot copy", src))?;
            job.tree(from, dir, name, src)
        }
        _ => Err(FsError::not_regular(src)),
    }
}

struct Copy<'a> {
    cancel: &'a AtomicBool,
    entries: u64,
    /// Sockets and devices that were left out.
    special: u64,
}

/// The copy of a directory, and what it will be given once it is filled.
struct Target {
    to: OwnedFd,
    stat: Stat,
}

impl Copy<'_> {
    fn tree(&mut self, from: OwnedFd, parent: OwnedFd, name: CString, src: &str) -> Result<(), FsError> {
        let failed = |e| FsError::at(e, "cannot copy", src);
        refuse_inside(from.as_fd(), parent.as_fd()).map_err(failed)?;
        let limit = |what: &str| FsError::limit(format!("{src} {what}"));
        let stat = rustix::fs::fstat(&from).map_err(failed)?;
        let mut targets = vec![enter(stat, parent.as_fd(), &name).map_err(failed)?];
        let bounds = Bounds { pending: MAX_PENDING, depth: MAX_DEPTH };
        let mut walk = Walk::new(from, Order::Found, bounds).map_err(failed)?;
        while let Some(step) = walk.step() {
            let entry = match step {
                Ok(Step::Entry(entry)) => entry,
                Ok(Step::Left) => {
                    targets.pop().map_or(Ok(()), |target| finish_dir(&target)).map_err(failed)?;
                    continue;
                }
                Err(Errno::OVERFLOW) => return Err(limit(&format!("is deeper than {MAX_DEPTH} directories"))),
                Err(error) => return Err(failed(error)),
            };
            self.count().map_err(failed)?;
            if self.entries > MAX_ENTRIES {
                return Err(limit(&format!("has more than {MAX_ENTRIES} entries (fs.copy_entries)")));
            }
            let Some(target) = targets.last() else { break };
            if entry.kind() == FileType::Directory {
                let next = enter(entry.stat, target.to.as_fd(), entry.name).map_err(failed)?;
                targets.push(next);
            } else {
                self.entry(&entry, target.to.as_fd()).map_err(failed)?;
            }
        }
        targets.pop().map_or(Ok(()), |target| finish_dir(&target)).map_err(failed)?;
        if self.special > 0 {
            let text = format!("{src} was copied without {} sockets or devices in it", self.special);
            return Err(FsError::new("NotRegularFile", text));
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Errno> {
        self.entries += 1;
        if self.cancel.load(Ordering::Relaxed) { Err(Errno::CANCELED) } else { Ok(()) }
    }

    /// Copies anything but a directory.
    fn entry(&mut self, entry: &Entry<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
        let (from, name) = (entry.directory, entry.name);
        match entry.kind() {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let file = rustix::fs::openat(from, name, flags, Mode::empty())?;
                self.file(file.as_fd(), to, name)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                replace(to, name, || rustix::fs::symlinkat(target.as_c_str(), to, name))?;
                keep_owner(to, name, &entry.stat);
            }
            FileType::Fifo => {
                let mode = Mode::from_raw_mode(entry.stat.st_mode & 0o7777);
                replace(to, name, || rustix::fs::mknodat(to, name, FileType::Fifo, mode, rustix::fs::makedev(0, 0)))?;
                keep_owner(to, name, &entry.stat);
            }
            _ => self.special += 1,
        }
        Ok(())
    }

    /// Copies a regular file; the target appears complete.
    fn file(&mut self, from: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let temporary = Temporary::new(rustix::io::fcntl_dupfd_cloexec(dir, 3)?)?;
        let to = temporary.file();
        self.content(from, to, stat.st_size as u64)?;
        let _ = rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        rustix::fs::futimens(to, &times(&stat))?;
        temporary.publish(name)
    }

    /// Copies the data and leaves the holes out.
    fn content(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> Result<(), Errno> {
        let mut at = 0;
        while at < size {
            let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(Errno::NXIO) => break,
                Err(_) => at,
            };
            let hole = rustix::fs::seek(from, SeekFrom::Hole(data)).unwrap_or(size).min(size);
            if self.range(from, to, data, hole)? < hole.saturating_sub(data) {
                break;
            }
            at = hole.max(data + 1);
        }
        if size == 0 {
            // Files of procfs say 0 and have content.
            self.range(from, to, 0, u64::MAX)?;
            return Ok(());
        }
        rustix::fs::ftruncate(to, size)
    }

    /// Copies `start..end`, less if the file ends before; returns how much.
    fn range(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<u64, Errno> {
        let mut at = start;
        let mut by_kernel = true;
        let mut buffer: Vec<u8> = Vec::new();
        while at < end {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Errno::CANCELED);
            }
            let len = (end - at).min(STEP) as usize;
            if by_kernel {
                let (mut input, mut output) = (at, at);
                match rustix::fs::copy_file_range(from, Some(&mut input), to, Some(&mut output), len) {
                    Ok(0) => by_kernel = false,
                    Ok(copied) => at += copied as u64,
                    Err(Errno::INTR) => {}
                    Err(Errno::NOSPC) => return Err(Errno::NOSPC),
                    Err(_) => by_kernel = false,
                }
                continue;
            }
            buffer.clear();
            buffer.reserve(len.min(256 << 10));
            let got = rustix::io::pread(from, spare_capacity(&mut buffer), at)?;
            if got == 0 {
                break;
            }
            let take = got.min(len);
            let mut written = 0;
            while written < take {
                written += rustix::io::pwrite(to, &buffer[written..take], at + written as u64)?;
            }
            at += take as u64;
        }
        Ok(at - start)
    }
}

/// Makes (or reuses) the directory `name` for the copy of a directory.
fn enter(stat: Stat, parent: BorrowedFd<'_>, name: &CStr) -> Result<Target, Errno> {
    // Writable for us until it is filled; the real mode comes last.
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    Ok(Target { to, stat })
}

fn finish_dir(target: &Target) -> Result<(), Errno> {
    let (to, stat) = (&target.to, &target.stat);
    let _ = rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(to, &times(stat))
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

fn keep_owner(dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let _ = rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
}

/// Creates a name, taking the place of a file that has it.
fn replace(dir: BorrowedFd<'_>, name: &CStr, create: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    match create() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            create()
        }
        other => other,
    }
}

/// A directory cannot be copied into itself: `target` must not be inside `source`.
fn refuse_inside(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let identity = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let wanted = identity(source)?;
    let mut at = rustix::io::fcntl_dupfd_cloexec(target, 3)?;
    for _ in 0..4096 {
        let here = identity(at.as_fd())?;
        if here == wanted {
            return Err(Errno::INVAL);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let up = rustix::fs::openat(&at, c"..", flags, Mode::empty())?;
        if identity(up.as_fd())? == here {
            return Ok(());
        }
        at = up;
    }
    Err(Errno::NAMETOOLONG)
}
