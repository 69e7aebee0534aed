//! Removing trees that somebody hostile filled: by descriptor, never through a symlink, never into another file system,
//! and with a bounded number of descriptors however deep the tree is.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

/// Directories open at once; what lies deeper is moved up first.
const MAX_OPEN: usize = 48;
/// Room for one batch of directory entries.
const ENTRIES_ROOM: usize = 32 << 10;

/// Removes `path` with everything beneath it. Absent is removed.
pub fn tree(path: &Path) -> Result<(), Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = match fs::openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    };
    match entry(&parent, name.as_bytes()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Empties the directory `path`.
pub fn content(path: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = fs::openat(CWD, path, flags, Mode::empty())?;
    empty(dir)
}

/// Removes `name` in `at`, whatever it is.
pub fn entry(at: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let at = at.as_fd();
    match fs::unlinkat(at, name, AtFlags::empty()) {
        // What unlink says of a directory depends on the file system.
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    match fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        result => return result,
    }
    empty(open_dir(at, name)?)?;
    fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

/// One directory on the way down.
struct Level {
    dir: OwnedFd,
    /// Its name in the level above; unused for the first.
    name: Vec<u8>,
}

fn empty(top: OwnedFd) -> Result<(), Errno> {
    let device = fs::fstat(&top)?.st_dev;
    let mut levels = vec![Level { dir: top, name: Vec::new() }];
    let mut moved = 0u64;
    while let Some(level) = levels.last() {
        let Some(name) = clear_files(&level.dir)? else {
            let name = levels.pop().map(|level| level.name).unwrap_or_default();
            if let Some(above) = levels.last() {
                fs::unlinkat(&above.dir, &name[..], AtFlags::REMOVEDIR)?;
            }
            continue;
        };
        if levels.len() >= MAX_OPEN {
            // The top directory gets it; it is found there when its turn comes.
            let up = format!(".msb-removing-{moved}");
            moved += 1;
            match fs::renameat_with(&level.dir, &name[..], &levels[0].dir, up.as_str(), fs::RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::EXIST) => continue,
                Err(error) => return Err(error),
            }
        }
        let dir = open_dir(level.dir.as_fd(), &name)?;
        if fs::fstat(&dir)?.st_dev != device {
            return Err(Errno::XDEV);
        }
        levels.push(Level { dir, name });
    }
    Ok(())
}

/// Removes everything in `dir` that is not a directory with content; the name of one that is, if there is any.
fn clear_files(dir: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    let mut room = Vec::with_capacity(ENTRIES_ROOM);
    loop {
        let mut removed = false;
        fs::seek(dir, fs::SeekFrom::Start(0))?;
        let mut entries = RawDir::new(dir, room.spare_capacity_mut());
        while let Some(found) = entries.next() {
            let found = found?;
            let name = found.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let flags = match found.file_type() {
                FileType::Directory => AtFlags::REMOVEDIR,
                _ => AtFlags::empty(),
            };
            match fs::unlinkat(dir, name, flags) {
                Ok(()) => removed = true,
                Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR) => return Ok(Some(name.to_vec())),
                // The type may be unknown to this file system; only a directory gives this to unlink.
                Err(Errno::PERM) if flags.is_empty() && is_dir(dir, name) => return Ok(Some(name.to_vec())),
                Err(Errno::ACCESS) if grant(dir) => removed = true,
                Err(error) => return Err(error),
            }
        }
        if !removed {
            return Ok(None);
        }
    }
}

fn is_dir(at: &OwnedFd, name: &[u8]) -> bool {
    fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Opens a directory to be emptied, even one that its owner has locked.
fn open_dir(at: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(at, name, flags | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) => {}
        Ok(dir) => return Ok(dir),
        Err(error) => return Err(error),
    }
    let locked = fs::openat(at, name, flags | OFlags::PATH, Mode::empty())?;
    // A path descriptor cannot be given a mode itself; its name in /proc leads to exactly the same directory.
    let magic = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&locked));
    fs::chmod(magic.as_str(), Mode::RWXU)?;
    fs::openat(at, name, flags | OFlags::RDONLY, Mode::empty())
}

/// Makes a directory of ours writable; false if it was already, so that nobody tries for ever.
fn grant(dir: &OwnedFd) -> bool {
    let Ok(stat) = fs::fstat(dir) else { return false };
    stat.st_mode & 0o700 != 0o700 && fs::fchmod(dir, Mode::RWXU).is_ok()
}
