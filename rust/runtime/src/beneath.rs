//! Files beneath a root that somebody else filled: every path is resolved by the kernel with the root as its ceiling
//! and without magic links; what comes back is a descriptor, and everything else is done on that.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a resolution that raced with a rename is tried again.
const RETRIES: u32 = 128;

/// Opens `path` beneath `root`. Symlinks are followed, but never out of the root.
pub fn open(root: impl AsFd, path: impl AsRef<OsStr>, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    open_with(root.as_fd(), path.as_ref(), flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` beneath `root`, refusing every symlink on the way (`ELOOP`).
pub fn open_plain(root: impl AsFd, path: impl AsRef<OsStr>, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    open_with(root.as_fd(), path.as_ref(), flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
}

fn open_with(
    root: BorrowedFd<'_>,
    path: &OsStr,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    for _ in 0..RETRIES {
        match fs::openat2(root, path.as_bytes(), flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// The directory `path` beneath `root`, made with its parents where it is missing.
pub fn ensure_dir(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    match open(root, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let mut at = open(root, "/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let mut so_far = String::from("/");
    for name in names(path)? {
        so_far.push('/');
        so_far.push_str(name);
        at = match open(root, &so_far, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => {
                fs::mkdirat(&at, name, Mode::from_raw_mode(0o755))?;
                fs::openat(
                    &at,
                    name,
                    OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?
            }
            result => result?,
        };
    }
    Ok(at)
}

/// The file `path` beneath `root` for something to be mounted on: an empty one is made where none is.
pub fn ensure_file(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    match open(root, path, OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let (parent, name) = split(path)?;
    let parent = ensure_dir(root, parent)?;
    let made = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(fs::openat(&parent, name, made, Mode::from_raw_mode(0o644))?);
    fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The directory `/name` itself, never what a symlink of that name leads to: anything else of that name is removed.
pub fn replace_with_dir(root: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(root, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR | Errno::LOOP) => fs::unlinkat(root, name, AtFlags::empty())?,
        result => return result,
    }
    fs::mkdirat(root, name, Mode::from_raw_mode(0o755))?;
    fs::openat(root, name, flags, Mode::empty())
}

/// Puts a file with this content at `dir/name`, in place of whatever had that name (a symlink is replaced, not
/// followed).
pub fn write_file(dir: impl AsFd, name: &str, content: &[u8], mode: u32) -> Result<(), Errno> {
    let dir = dir.as_fd();
    let temporary = format!(".{name}.msb-new");
    match fs::unlinkat(dir, temporary.as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(dir, temporary.as_str(), flags, Mode::from_raw_mode(mode))?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    fs::renameat(dir, temporary.as_str(), dir, name)
}

/// Whether `fd` is a directory.
pub fn is_dir(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// The parts of an absolute path without `..`.
fn names(path: &str) -> Result<Vec<&str>, Errno> {
    Path::new(path)
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .map(|part| match part {
            Component::Normal(name) => name.to_str().ok_or(Errno::INVAL),
            _ => Err(Errno::INVAL),
        })
        .collect()
}

fn split(path: &str) -> Result<(&str, &str), Errno> {
    let (parent, name) = path.trim_end_matches('/').rsplit_once('/').ok_or(Errno::INVAL)?;
    if name.is_empty() || name == "." || name == ".." {
        return Err(Errno::INVAL);
    }
    Ok((if parent.is_empty() { "/" } else { parent }, name))
}
