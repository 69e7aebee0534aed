//! Opening paths beneath the root, without magic links. Every path of a client goes through here; what happens
//! afterwards happens on descriptors.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use microsandbox_protocol::names;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::walk;

/// Stands for "a magic link was on the way": no errno says so, and the kernel's ELOOP also means a loop of links.
pub const MAGIC_LINK: Errno = Errno::BADFD;

/// How often a lookup that raced with a rename is repeated.
const RETRIES: usize = 128;

/// The guest's root directory.
pub struct Root {
    fd: OwnedFd,
    /// `openat2` is refused here (old kernel, filter): walk by hand.
    by_hand: AtomicBool,
}

impl Root {
    /// The root of this process.
    pub fn of_process() -> Result<Root, Errno> {
        Root::at("/")
    }

    /// Any directory, for tests.
    pub fn at(path: &str) -> Result<Root, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root { fd: rustix::fs::open(path, flags, Mode::empty())?, by_hand: AtomicBool::new(false) })
    }

    /// Uses the component walk even where `openat2` exists.
    pub fn without_openat2(self) -> Root {
        self.by_hand.store(true, Ordering::Relaxed);
        self
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens `path` from the root; `..` and absolute links stay inside.
    pub fn open(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        if path.contains('\0') || path.is_empty() {
            return Err(Errno::INVAL);
        }
        let path = &*names::to_bytes(path);
        if self.by_hand.load(Ordering::Relaxed) {
            return walk::open(self.fd(), path, flags, mode);
        }
        match openat2(self.fd(), path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
            Err(Errno::NOSYS) => {
                self.by_hand.store(true, Ordering::Relaxed);
                walk::open(self.fd(), path, flags, mode)
            }
            // Without the explicit flag a magic link is still refused beneath a root, but with another error.
            Err(Errno::LOOP) => {
                let probe = OFlags::PATH | OFlags::CLOEXEC | (flags & OFlags::NOFOLLOW);
                match openat2(self.fd(), path, probe, Mode::empty(), ResolveFlags::IN_ROOT) {
                    Err(Errno::XDEV) => Err(MAGIC_LINK),
                    _ => Err(Errno::LOOP),
                }
            }
            other => other,
        }
    }

    /// Opens a program path for looking at it: relative ones start at `cwd`.
    pub fn open_from(&self, cwd: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        if path.starts_with('/') {
            return self.open(path, flags, mode);
        }
        let path = &*names::to_bytes(path);
        match openat2(cwd, path, flags, mode, ResolveFlags::NO_MAGICLINKS) {
            // By hand `..` leads nowhere above `cwd`, which a look can do without.
            Err(Errno::NOSYS) => walk::open(cwd, path, flags, mode),
            other => other,
        }
    }

    /// A regular file for reading; anything else is refused without blocking on it.
    pub fn open_regular(&self, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = self.open(path, flags, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(file),
            _ => Err(Errno::INVAL),
        }
    }

    /// The directory that holds the last component of `path`, and that component. Paths that end in `.`, `..` or
    /// name the root itself have no such component: EBUSY for the root, EINVAL else.
    pub fn parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, Cow<'a, OsStr>), Errno> {
        let (parent, name) = split(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((self.open(parent, flags, Mode::empty())?, names::to_os(name)))
    }
}

/// Splits a path into its parent and its last component.
pub fn split(path: &str) -> Result<(&str, &str), Errno> {
    if path.is_empty() || path.contains('\0') {
        return Err(Errno::INVAL);
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return Err(Errno::BUSY);
    }
    let (parent, name) = match trimmed.rfind('/') {
        Some(at) => (&trimmed[..=at], &trimmed[at + 1..]),
        None => (".", trimmed),
    };
    if name == "." || name == ".." {
        return Err(Errno::INVAL);
    }
    Ok((parent, name))
}

/// Resolution from a directory descriptor, repeated when it raced with a rename.
fn openat2(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut last = Errno::AGAIN;
    for _ in 0..RETRIES {
        match rustix::fs::openat2(dir, path, flags, mode, resolve) {
            Err(error @ (Errno::AGAIN | Errno::INTR)) => last = error,
            other => return other,
        }
    }
    // A guest that renames at full speed can win every race; a lookup by hand holds each directory it passed.
    if resolve.contains(ResolveFlags::IN_ROOT) { walk::open(dir, path, flags, mode) } else { Err(last) }
}

/// `fstatat` of a name in an opened directory, not following it.
pub fn lstat_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<rustix::fs::Stat, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}
