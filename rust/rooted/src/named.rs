//! A path of this machine as its user named it, resolved once: from the root, name by name, each from the descriptor of the one
//! before. Links are followed, because the user or the machine made them; within a directory that a guest may write to, a
//! link leads to nothing outside of that directory.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::open::{Rule, open};

/// As the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;
const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What the path leads to.
#[derive(Debug)]
pub struct Named {
    /// An `O_PATH` descriptor.
    pub fd: OwnedFd,
    /// Without links.
    pub path: PathBuf,
    pub stat: Stat,
}

impl Named {
    /// What is open already.
    pub fn of(fd: OwnedFd) -> Result<Named, Errno> {
        let stat = rustix::fs::fstat(&fd)?;
        let path = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?.into_bytes();
        if !path.starts_with(b"/") {
            return Err(Errno::STALE);
        }
        Ok(Named { fd, path: OsString::from_vec(path).into(), stat })
    }
}

/// Why a path is not followed.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    Io(Errno),
    /// A link, or `..`, leads out of this directory, which a guest may write to.
    LeadsOut {
        directory: PathBuf,
    },
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal::Io(errno)
    }
}

/// Resolves the absolute `path`. `is_guests` says of a directory, by its path without links and by what it is, whether a guest may
/// write to it.
pub fn resolve(path: &Path, is_guests: impl Fn(&Path, &Stat) -> bool) -> Result<Named, Refusal> {
    if !path.is_absolute() {
        return Err(Errno::INVAL.into());
    }
    let root = rustix::fs::openat(CWD, "/", PLACE | OFlags::DIRECTORY, Mode::empty())?;
    let mut at = rustix::io::fcntl_dupfd_cloexec(&root, 3)?;
    let mut so_far = PathBuf::from("/");
    let mut todo = components(path.as_os_str());
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        match name.as_bytes() {
            b"." => continue,
            b".." => {
                at = rustix::fs::openat(&at, "..", PLACE | OFlags::DIRECTORY, Mode::empty())?;
                so_far.pop();
                continue;
            }
            _ => {}
        }
        let next = rustix::fs::openat(&at, &*name, PLACE, Mode::empty())?;
        let found = rustix::fs::fstat(&next)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&next, c"", Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    at = rustix::io::fcntl_dupfd_cloexec(&root, 3)?;
                    so_far = PathBuf::from("/");
                }
                for part in components(&OsString::from_vec(target)).into_iter().rev() {
                    todo.push_front(part);
                }
                continue;
            }
            FileType::Directory => {}
            _ if todo.is_empty() => {}
            _ => return Err(Errno::NOTDIR.into()),
        }
        so_far.push(&name);
        at = next;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory && is_guests(&so_far, &found) {
            return within(at, so_far, &todo);
        }
    }
    Ok(Named::of(at)?)
}

/// The rest of a path, below the directory `at` that a guest may be changing at this moment.
fn within(at: OwnedFd, directory: PathBuf, rest: &VecDeque<OsString>) -> Result<Named, Refusal> {
    let mut path = PathBuf::from(".");
    path.extend(rest);
    match open(&at, &path, OFlags::PATH, Mode::empty(), Rule::BENEATH) {
        Ok(fd) => Ok(Named::of(fd)?),
        Err(Errno::XDEV) => Err(Refusal::LeadsOut { directory }),
        Err(errno) => Err(errno.into()),
    }
}

fn components(path: &OsStr) -> VecDeque<OsString> {
    let parts = path.as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.map(|part| OsStr::from_bytes(part).to_owned()).collect()
}

/// Opens the file that [`resolve`] found once more: through no link, and only if it is that very file; else `ESTALE`.
pub fn open_again(path: &Path, identity: (u64, u64), flags: OFlags) -> Result<OwnedFd, Errno> {
    let root = rustix::fs::openat(CWD, "/", PLACE | OFlags::DIRECTORY, Mode::empty())?;
    let fd = open(&root, path, OFlags::PATH | flags, Mode::empty(), Rule::PLAIN).map_err(|errno| match errno {
        // Replaced by a link, or gone.
        Errno::LOOP | Errno::NOTDIR | Errno::NOENT => Errno::STALE,
        errno => errno,
    })?;
    let stat = rustix::fs::fstat(&fd)?;
    if (stat.st_dev, stat.st_ino) == identity { Ok(fd) } else { Err(Errno::STALE) }
}
