//! Copying files and trees inside the sandbox.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use microsandbox_protocol::names::to_text;
use microsandbox_rooted::attributes::set_mode;
use microsandbox_rooted::open::{Rule, open};
use microsandbox_rooted::replace::{Temporary, open_existing, refuses_names};
use microsandbox_rooted::walk::{Bounds, Entry, Order, Step, Walk};
use rustix::buffer::spare_capacity;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, StatxAttributes, StatxFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use super::attributes;
use super::entries::open_path;
use super::error::FsError;
use super::names::parent;
use super::root::Root;
use super::trail::Trail;

/// `fs.copy_entries`.
const MAX_ENTRIES: u64 = 1_000_000;
/// Bytes of the first names of files that have several.
const MAX_LINK_BYTES: usize = 32 << 20;
/// What the first name of a file takes beside its text.
const LINK_COST: usize = 96;
/// A longer path cannot be opened to make a further name of a file.
const PATH_MAX: usize = 4096;
/// Bytes between two looks at the cancel flag.
const STEP: u64 = 16 << 20;
pub const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies `src` to `dst`. A link at `src` itself is followed, links in a tree are copied as links. An existing
/// directory is merged into; files are replaced atomically, or in place where a rename cannot. Owner, mode, times and
/// attributes are kept where the sandbox may; names of one file are names of one copy.
pub fn copy(root: &Root, src: &str, dst: &str, cancel: &AtomicBool) -> Result<(), FsError> {
    let source = open_path(root, src, true, "cannot copy")?;
    let stat = rustix::fs::fstat(&source).map_err(|e| FsError::at(e, "cannot copy", src))?;
    let (dir, name) = parent(root, dst, "cannot copy to")?;
    let name = CString::new(name.as_bytes()).map_err(|_| FsError::invalid(dst, "holds a NUL byte"))?;
    let mut job = Copy::new(cancel, Purpose::Copy);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let file = super::reader::open_regular(root, src)?;
            job.file(file.as_fd(), dir.as_fd(), &name).map_err(|e| FsError::at(e, "cannot copy", src))
        }
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let from = root.open(src, flags, Mode::empty()).map_err(|e| FsError::at(e, "cannot copy", src))?;
            job.tree(from, dir.as_fd(), &name, src)?;
            if job.special > 0 {
                let text = format!("{src} was copied without {} sockets or devices in it", job.special);
                return Err(FsError::new("NotRegularFile", text));
            }
            Ok(())
        }
        _ => Err(FsError::not_regular(src)),
    }
}

/// Of a move that was given up.
pub const CHANGED: &str = "cannot move, because it changed during the copy:";

/// What the copy is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A second tree. What cannot be copied is counted.
    Copy,
    /// The only tree, soon: what cannot be copied ends it, so that nothing is lost.
    Move,
}

pub struct Copy<'a> {
    cancel: &'a AtomicBool,
    purpose: Purpose,
    entries: u64,
    /// Sockets and devices that were left out.
    special: u64,
    /// Where in the copy the first name of a file is that has several.
    names: HashMap<(u64, u64), Vec<u8>>,
    name_bytes: usize,
    /// What was copied of a tree that is moved, as it was when it was found, by a hash of its path: a directory of an overlay
    /// may have another inode the next time.
    seen: HashMap<u64, State>,
    hashes: RandomState,
}

/// What a change of an entry changes: its size, and the times of its content and of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State {
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    pub fn of(stat: &Stat) -> State {
        State {
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec as _),
            changed: (stat.st_ctime, stat.st_ctime_nsec as _),
        }
    }
}

impl<'a> Copy<'a> {
    pub fn new(cancel: &'a AtomicBool, purpose: Purpose) -> Copy<'a> {
        Copy {
            cancel,
            purpose,
            entries: 0,
            special: 0,
            names: HashMap::new(),
            name_bytes: 0,
            seen: HashMap::new(),
            hashes: RandomState::new(),
        }
    }

    /// Copies the directory `from` to the directory `name`, which may exist.
    pub fn tree(&mut self, from: OwnedFd, parent: BorrowedFd<'_>, name: &CStr, src: &str) -> Result<(), FsError> {
        let verb = if self.purpose == Purpose::Move { "cannot move" } else { "cannot copy" };
        let failed = |e| FsError::at(e, verb, src);
        refuse_inside(from.as_fd(), parent).map_err(failed)?;
        let limit = |what: &str| FsError::limit(format!("{src} {what}"));
        let stat = rustix::fs::fstat(&from).map_err(failed)?;
        let (top, is_new) = enter(parent, name).map_err(failed)?;
        // A target that existed keeps its own attributes: it may be the root.
        let keeps_own = !is_new && self.purpose == Purpose::Copy;
        if !keeps_own {
            attributes::copy(from.as_fd(), top.as_fd());
        }
        let mut trail = Trail::new(top, &stat).map_err(failed)?;
        let mut walk = Walk::new(from, Order::Found, Bounds::WIDE).map_err(failed)?;
        while let Some(step) = walk.step() {
            let entry = match step {
                Ok(Step::Entry(entry)) => entry,
                Ok(Step::Left) => {
                    trail.leave().and_then(|done| done.finish()).map_err(failed)?;
                    continue;
                }
                Err(Errno::OVERFLOW) => {
                    let most = Bounds::WIDE.memory;
                    return Err(limit(&format!(
                        "has more than {most} bytes of names of directories within each other"
                    )));
                }
                Err(error) => return Err(failed(error)),
            };
            self.count().map_err(failed)?;
            if self.entries > MAX_ENTRIES {
                return Err(limit(&format!("has more than {MAX_ENTRIES} entries (fs.copy_entries)")));
            }
            let at_entry = |e| FsError::at(e, verb, &format!("{src}/{}", to_text(entry.path)));
            if self.purpose == Purpose::Move {
                refuse_mount(entry.directory, entry.name).map_err(at_entry)?;
                self.seen.insert(self.hashes.hash_one(entry.path), State::of(&entry.stat));
            }
            let (top, target) = trail.ends().map_err(at_entry)?;
            if entry.kind() == FileType::Directory {
                let (next, _) = enter(target, entry.name).map_err(at_entry)?;
                if let Ok(from) = rustix::fs::openat(entry.directory, entry.name, DIRECTORY, Mode::empty()) {
                    attributes::copy(from.as_fd(), next.as_fd());
                }
                trail.push(next, &entry.stat).map_err(at_entry)?;
            } else if !self.link(&entry, top, target) {
                self.entry(&entry, target).map_err(at_entry)?;
                if !self.remember(&entry) {
                    let most = "bytes of names of files that have several";
                    return Err(limit(&format!("has more than {MAX_LINK_BYTES} {most}")));
                }
            }
        }
        if keeps_own { Ok(()) } else { trail.leave().and_then(|done| done.finish()).map_err(failed) }
    }

    /// Fails if something below the directory is no longer what was copied of it. What is changed later, before it is
    /// removed, is not seen.
    pub fn check_unchanged(&self, from: OwnedFd, src: &str) -> Result<(), FsError> {
        let failed = |e| FsError::at(e, "cannot move", src);
        let mut walk = Walk::new(from, Order::Found, Bounds::WIDE).map_err(failed)?;
        let mut entries = 0;
        while let Some(step) = walk.step() {
            let Step::Entry(entry) = step.map_err(failed)? else { continue };
            if self.cancel.load(Ordering::Relaxed) {
                return Err(failed(Errno::CANCELED));
            }
            entries += 1;
            if self.seen.get(&self.hashes.hash_one(entry.path)) != Some(&State::of(&entry.stat)) {
                let path = format!("{src}/{}", to_text(entry.path));
                return Err(FsError::at(Errno::STALE, CHANGED, &path));
            }
        }
        if entries == self.entries { Ok(()) } else { Err(failed(Errno::STALE)) }
    }

    /// Makes a further name of a file that has a copy already; false if there is none, or it cannot have one.
    fn link(&self, entry: &Entry<'_>, top: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
        let Some(first) = self.names.get(&(entry.stat.st_dev, entry.stat.st_ino)) else { return false };
        let cut = first.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = cut.map_or((&b"."[..], &first[..]), |at| (&first[..at], &first[at + 1..]));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(parent) = open(top, OsStr::from_bytes(parent), flags, Mode::empty(), Rule::STRICT) else { return false };
        replace(to, entry.name, || rustix::fs::linkat(&parent, name, to, entry.name, AtFlags::empty())).is_ok()
    }

    /// False if there are too many.
    fn remember(&mut self, entry: &Entry<'_>) -> bool {
        if entry.kind() == FileType::RegularFile && entry.stat.st_nlink > 1 && entry.path.len() < PATH_MAX {
            self.name_bytes += entry.path.len() + LINK_COST;
            if self.name_bytes > MAX_LINK_BYTES {
                return false;
            }
            self.names.insert((entry.stat.st_dev, entry.stat.st_ino), entry.path.to_vec());
        }
        true
    }

    fn count(&mut self) -> Result<(), Errno> {
        self.entries += 1;
        if self.cancel.load(Ordering::Relaxed) { Err(Errno::CANCELED) } else { Ok(()) }
    }

    /// Copies anything but a directory.
    fn entry(&mut self, entry: &Entry<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
        self.one(entry.directory, entry.name, &entry.stat, to, entry.name)
    }

    /// The same to another name.
    pub fn one(
        &mut self,
        from: BorrowedFd<'_>,
        old: &CStr,
        stat: &Stat,
        to: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<(), Errno> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let file = rustix::fs::openat(from, old, flags, Mode::empty())?;
                self.file(file.as_fd(), to, name)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, old, Vec::new())?;
                replace(to, name, || rustix::fs::symlinkat(target.as_c_str(), to, name))?;
                dress_unopened(to, name, stat)
            }
            kind if kind == FileType::Fifo || self.purpose == Purpose::Move => {
                let (mode, device) = (Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev);
                replace(to, name, || rustix::fs::mknodat(to, name, kind, mode, device))?;
                dress_unopened(to, name, stat)
            }
            _ => {
                self.special += 1;
                Ok(())
            }
        }
    }

    /// Copies a regular file; the target appears complete. A file that a rename cannot replace keeps its owner and mode.
    pub fn file(&mut self, from: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let size = stat.st_size as u64;
        let temporary = match Temporary::new(rustix::io::fcntl_dupfd_cloexec(dir, 3)?) {
            Err(error) if refuses_names(error) && self.purpose == Purpose::Copy => {
                let file = open_existing(dir, name).map_err(|_| error)?;
                return self.over(from, &stat, file.as_fd());
            }
            other => other?,
        };
        let to = temporary.file();
        self.content(from, to, size)?;
        let _ = rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        set_mode(to, stat.st_mode & 0o7777)?;
        attributes::copy(from, to);
        rustix::fs::futimens(to, &times(&stat))?;
        temporary.publish(name).map(drop)
    }

    /// Gives an existing file the content of another; its end is cut last. Both may be one file under two names: that one
    /// stays as it is. Where the names do not tell (two mounts of a machine's directory), it is written over with itself.
    fn over(&mut self, from: BorrowedFd<'_>, stat: &Stat, to: BorrowedFd<'_>) -> Result<(), Errno> {
        let target = rustix::fs::fstat(to)?;
        if (target.st_dev, target.st_ino) == (stat.st_dev, stat.st_ino) {
            return Ok(());
        }
        // Files of procfs say 0 and have content.
        let end = if stat.st_size == 0 { u64::MAX } else { stat.st_size as u64 };
        let copied = self.range(from, to, 0, end)?;
        rustix::fs::ftruncate(to, copied)
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

/// Makes (or reuses) the directory `name` for the copy of a directory; true if it is new.
fn enter(parent: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, bool), Errno> {
    // Writable for us until it is filled; the real mode comes last.
    let is_new = match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    Ok((rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?, is_new))
}

pub fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

/// Owner, mode and times of a link, a fifo or a socket, by name.
fn dress_unopened(dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let _ = rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        let fd = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        microsandbox_sys::file::chmod(fd, stat.st_mode & 0o1777)?;
    }
    rustix::fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// A mount point cannot be moved. Kernels before Linux 5.8 do not say; there its removal fails.
pub fn refuse_mount(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(dir, name, flags, StatxFlags::TYPE) {
        Ok(stat) if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => Err(Errno::BUSY),
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates a name, taking the place of a file that has it.
fn replace(dir: BorrowedFd<'_>, name: &CStr, create: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    match create() {
        Err(Errno::EXIST) => {
            // A directory is not replaced.
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
