//! Making directories and files beneath a root, where they are missing or something else has their name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::open::{Rule, open};

/// Mounts in which nothing is made. Known by their ids (statx(2), `stx_mnt_id`), so that links inside cannot lead around the check.
#[derive(Debug, Default)]
pub struct Mounts(Vec<u64>);

impl Mounts {
    /// Adds the mount that is attached at `place`.
    pub fn add(&mut self, place: impl AsFd) -> Result<(), Errno> {
        self.0.extend(mount_id(place)?);
        Ok(())
    }

    fn refuse(&self, place: impl AsFd) -> Result<(), Errno> {
        if self.0.is_empty() {
            return Ok(());
        }
        match mount_id(place)? {
            Some(id) if !self.0.contains(&id) => Ok(()),
            // A kernel that does not tell mounts apart (before 5.8): nothing is made rather than in the wrong place.
            _ => Err(Errno::NOENT),
        }
    }
}

fn mount_id(place: impl AsFd) -> Result<Option<u64>, Errno> {
    let found = fs::statx(place, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok((found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id))
}

/// What `path` leads to beneath `root`.
fn find(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::PATH | flags, Mode::empty(), Rule::INSIDE)
}

/// The directory `path` beneath `root`, made with its parents where it is missing.
pub fn ensure_dir(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    ensure_dir_outside(root, path, &Mounts::default())
}

/// As [`ensure_dir`], but nothing is made in one of the mounts `closed`: there a missing directory is `ENOENT`.
pub fn ensure_dir_outside(root: impl AsFd, path: &str, closed: &Mounts) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    match find(root, path, OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let mut at = find(root, "/", OFlags::DIRECTORY)?;
    let mut so_far = String::from("/");
    for name in names(path)? {
        so_far.push('/');
        so_far.push_str(name);
        at = match find(root, &so_far, OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                closed.refuse(&at)?;
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

/// The file `path` beneath `root` for something to be mounted on: an empty one is made where none is, but not in one of the
/// mounts `closed`.
pub fn ensure_file_outside(root: impl AsFd, path: &str, closed: &Mounts) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    match find(root, path, OFlags::empty()) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let (parent, name) = split(path)?;
    let parent = ensure_dir_outside(root, parent, closed)?;
    closed.refuse(&parent)?;
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
