//! Opening paths beneath the root, without magic links. Every path of a client goes through here; what happens
//! afterwards happens on descriptors.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use microsandbox_protocol::names;
use microsandbox_rooted::by_hand;
use microsandbox_rooted::open::{Rule, is_magic_link, open as rooted};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

pub use microsandbox_rooted::by_hand::MAGIC_LINK;

/// The guest's root directory.
pub struct Root {
    fd: OwnedFd,
    /// Without `openat2` even where it exists.
    by_hand: bool,
}

impl Root {
    /// The root of this process.
    pub fn of_process() -> Result<Root, Errno> {
        Root::at("/")
    }

    /// Any directory, for tests.
    pub fn at(path: &str) -> Result<Root, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root { fd: rustix::fs::open(path, flags, Mode::empty())?, by_hand: false })
    }

    /// Uses the component walk even where `openat2` exists.
    pub fn without_openat2(self) -> Root {
        Root { by_hand: true, ..self }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens `path` from the root; `..` and absolute links stay inside.
    pub fn open(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        if path.contains('\0') || path.is_empty() {
            return Err(Errno::INVAL);
        }
        let path = &*names::to_os(path);
        if self.by_hand {
            return by_hand::open(self.fd(), path.as_bytes(), flags, mode, Rule::INSIDE);
        }
        match rooted(self.fd(), path, flags, mode, Rule::INSIDE) {
            Err(Errno::LOOP) if is_magic_link(self.fd(), path, flags) => Err(MAGIC_LINK),
            other => other,
        }
    }

    /// Opens a program path for looking at it: relative ones start at `cwd`.
    pub fn open_from(&self, cwd: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        if path.starts_with('/') {
            return self.open(path, flags, mode);
        }
        // By hand `..` leads nowhere above `cwd`, which a look can do without.
        rooted(cwd, &*names::to_os(path), flags, mode, Rule::ANYWHERE)
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

/// `fstatat` of a name in an opened directory, not following it.
pub fn lstat_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<rustix::fs::Stat, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}
