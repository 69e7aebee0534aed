//! Path resolution by hand, one component at a time, for kernels or filters without `openat2`.
//!
//! Each component is opened with `O_PATH | O_NOFOLLOW` from the descriptor of the one before; `..` goes back along the
//! descriptors that were passed, never through the file system, so it cannot leave the root even if directories are
//! moved at the same time. Symbolic links are read and expanded; those of procfs that are not plain text are refused.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::open::{Ceiling, Rule};

/// Stands for "a magic link was on the way": no errno says so, and the kernel's ELOOP also means a loop of links.
pub const MAGIC_LINK: Errno = Errno::BADFD;

/// As the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;
/// Directories held open at the same time; deeper paths are refused.
const MAX_DEPTH: usize = 256;
const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// Inode of the root directory of procfs, whose links (`self`, `mounts`, …) are plain text.
const PROC_ROOT_INO: u64 = 1;

/// `openat2` with the flags of `rule`.
pub fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode, rule: Rule) -> Result<OwnedFd, Errno> {
    let device = if rule.mounts { None } else { Some(rustix::fs::fstat(root)?.st_dev) };
    let mut stack: Vec<OwnedFd> = Vec::new();
    let mut todo = components(path);
    let mut links = 0;
    let must_be_dir = path.ends_with(b"/");
    refuse_absolute(path, rule)?;
    while let Some(name) = todo.pop_front() {
        match name.as_slice() {
            b"." => continue,
            b".." => {
                if stack.pop().is_none() && rule.ceiling == Ceiling::Refused {
                    return Err(Errno::XDEV);
                }
                continue;
            }
            _ => {}
        }
        let here = stack.last().map_or(root, |fd| fd.as_fd());
        let last = todo.is_empty();
        if let Some(target) = link_at(here, &name, last && !must_be_dir && flags.contains(OFlags::NOFOLLOW))? {
            links += 1;
            if links > MAX_LINKS || !rule.links {
                return Err(Errno::LOOP);
            }
            refuse_absolute(&target, rule)?;
            if target.starts_with(b"/") {
                stack.clear();
            }
            for part in components(&target).into_iter().rev() {
                todo.push_front(part);
            }
            continue;
        }
        if last {
            let extra = if must_be_dir { OFlags::DIRECTORY } else { OFlags::empty() };
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
            return on_device(rustix::fs::openat(here, name.as_slice(), flags, mode)?, device);
        }
        if stack.len() == MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        stack.push(on_device(rustix::fs::openat(here, name.as_slice(), step, Mode::empty())?, device)?);
    }
    let here = stack.last().map_or(root, |fd| fd.as_fd());
    rustix::fs::openat(here, c".", flags | OFlags::CLOEXEC, mode)
}

fn refuse_absolute(path: &[u8], rule: Rule) -> Result<(), Errno> {
    if path.starts_with(b"/") && rule.ceiling == Ceiling::Refused { Err(Errno::XDEV) } else { Ok(()) }
}

fn on_device(fd: OwnedFd, device: Option<u64>) -> Result<OwnedFd, Errno> {
    match device {
        Some(device) if rustix::fs::fstat(&fd)?.st_dev != device => Err(Errno::XDEV),
        _ => Ok(fd),
    }
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
}

/// The target if `name` is a symbolic link that has to be followed.
fn link_at(dir: BorrowedFd<'_>, name: &[u8], keep: bool) -> Result<Option<Vec<u8>>, Errno> {
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        // The caller's own open says what a missing name means.
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    if keep || FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    if rustix::fs::fstatfs(dir)?.f_type as u64 == PROC_SUPER_MAGIC && rustix::fs::fstat(dir)?.st_ino != PROC_ROOT_INO {
        return Err(MAGIC_LINK);
    }
    Ok(Some(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes()))
}
