//! Walks through a tree that somebody else may be changing: no link is followed, depth and number are bounded.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::kind_of;
use microsandbox_core::model::FsEntryKind;

/// Depth of a tree that is walked.
const DEPTH: usize = 256;

fn open_directory(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, std::ffi::OsStr::from_bytes(name), flags, Mode::empty())
}

pub fn sum(directory: &OwnedFd, depth: usize, budget: &mut usize) -> u64 {
    let mut total = 0;
    let Ok(opened) = open_directory(directory, b".") else { return 0 };
    let Ok(entries) = Dir::read_from(&opened) else { return 0 };
    for entry in entries.flatten() {
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if *budget == 0 {
            break;
        }
        *budget -= 1;
        let Ok(stat) = rustix::fs::statat(&opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match kind_of(&stat) {
            FsEntryKind::File => total = u64::saturating_add(total, u64::try_from(stat.st_size).unwrap_or_default()),
            FsEntryKind::Directory if depth < DEPTH => {
                if let Ok(inner) = open_directory(&opened, name) {
                    total = total.saturating_add(sum(&inner, depth + 1, budget));
                }
            }
            _ => {}
        }
    }
    total
}

/// A directory with all that is in it; no link is followed.
pub fn remove_tree(parent: &OwnedFd, name: &[u8], depth: usize) -> Result<(), Errno> {
    let directory = open_directory(parent, name)?;
    if depth > DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let inner = entry.file_name().to_bytes();
        if matches!(inner, b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(&directory, entry.file_name(), AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => remove_tree(&directory, inner, depth + 1)?,
            Err(Errno::NOENT) | Ok(()) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::unlinkat(parent, std::ffi::OsStr::from_bytes(name), AtFlags::REMOVEDIR)
}
