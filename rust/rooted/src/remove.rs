//! Removing trees that a hostile party filled: by descriptor, never through a symbolic link, never into another file
//! system, without recursion, and with a bounded number of descriptors however deep the tree is.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use microsandbox_sys::file;
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

/// Directories open at the same time; a deeper one is first moved up to the top, so depth has no limit. Where the file system moves
/// none, the upper ones are closed, and reached again by `..` if they are still the same. Small, because the process may
/// have a limit of 64 descriptors and use most of them.
const MAX_OPEN: usize = 16;
/// Passes over a directory that others keep filling.
const MAX_PASSES: u32 = 64;
/// Room for one batch of directory entries.
const ENTRIES_ROOM: usize = 32 << 10;
/// Names of moved directories that are remembered; further ones are found by the next pass over the top.
const MAX_REMEMBERED: usize = 1024;

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
    Sweep::new(fs::openat(CWD, path, flags, Mode::empty())?, None)?.run()
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
    directory(at, name, &AtomicBool::new(false))
}

/// Removes the directory `name` in `at` with everything beneath it. `ECANCELED` soon after `cancel` is set.
pub fn directory(at: impl AsFd, name: &[u8], cancel: &AtomicBool) -> Result<(), Errno> {
    let at = at.as_fd();
    Sweep::new(open_dir(at, name)?, Some(cancel))?.run()?;
    fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

/// One directory on the way down.
struct Level {
    /// Absent while it is too far above the present one.
    dir: Option<OwnedFd>,
    identity: (u64, u64),
    /// Its name in the level above; empty for the top.
    name: CString,
    /// Directories with content that this pass has found and not yet entered.
    pending: Vec<CString>,
    passes: u32,
    /// This pass has seen an entry.
    seen: bool,
}

impl Level {
    fn new(dir: OwnedFd, name: CString, stat: &Stat) -> Level {
        let identity = (stat.st_dev, stat.st_ino);
        Level { dir: Some(dir), identity, name, pending: Vec::new(), passes: 0, seen: false }
    }

    fn dir(&self) -> Result<&OwnedFd, Errno> {
        self.dir.as_ref().ok_or(Errno::STALE)
    }
}

/// The removal of everything beneath one directory, the top.
struct Sweep<'a> {
    /// The top first. Never empty.
    levels: Vec<Level>,
    device: u64,
    room: Vec<u8>,
    /// Directories that were moved to the top because they were too deep; also the number in the next name.
    moved: u64,
    /// `moved` when the present pass over the top began.
    moved_before: u64,
    cancel: Option<&'a AtomicBool>,
}

impl<'a> Sweep<'a> {
    fn new(top: OwnedFd, cancel: Option<&'a AtomicBool>) -> Result<Sweep<'a>, Errno> {
        let stat = fs::fstat(&top)?;
        let levels = vec![Level::new(top, CString::default(), &stat)];
        Ok(Sweep {
            levels,
            device: stat.st_dev,
            room: Vec::with_capacity(ENTRIES_ROOM),
            moved: 0,
            moved_before: 0,
            cancel,
        })
    }

    fn run(mut self) -> Result<(), Errno> {
        while let Some(level) = self.levels.last_mut() {
            if self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                return Err(Errno::CANCELED);
            }
            if let Some(name) = level.pending.pop() {
                self.descend(name)?;
            } else if !clear_batch(level, &mut self.room)? && self.leave()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A pass over the deepest open directory has ended. True if that was the last of the top.
    fn leave(&mut self) -> Result<bool, Errno> {
        let (depth, moved) = (self.levels.len(), self.moved != self.moved_before);
        let Some(level) = self.levels.last_mut() else { return Ok(true) };
        let seen = std::mem::take(&mut level.seen);
        level.passes += 1;
        if depth == 1 {
            if !seen {
                return Ok(true);
            }
            if moved {
                // What was moved here accounts for what this pass has seen.
                self.moved_before = self.moved;
                level.passes = 0;
            }
            if level.passes >= MAX_PASSES {
                return Err(Errno::NOTEMPTY);
            }
            return rewind(level.dir()?).map(|()| false);
        }
        self.reopen_above()?;
        let (above, level) = (self.levels[depth - 2].dir()?, &self.levels[depth - 1]);
        match fs::unlinkat(above, level.name.as_c_str(), AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.passes < MAX_PASSES => rewind(level.dir()?)?,
            // Filled faster than it is emptied: a later pass over the top finds it again.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => drop(self.levels.pop()),
            Err(Errno::ACCESS) if grant(above) => rewind(level.dir()?)?,
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// Opens the directory above the deepest one again, where it was closed.
    fn reopen_above(&mut self) -> Result<(), Errno> {
        let [.., above, level] = &mut self.levels[..] else { return Ok(()) };
        if above.dir.is_none() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = fs::openat(level.dir()?, c"..", flags, Mode::empty())?;
            let stat = fs::fstat(&dir)?;
            // Moved to another place while it was emptied: the way back is lost.
            if (stat.st_dev, stat.st_ino) != above.identity {
                return Err(Errno::STALE);
            }
            above.dir = Some(dir);
        }
        Ok(())
    }

    /// Closes the directories between the top and the deepest `keep`.
    fn close_far(&mut self, keep: usize) {
        let far = self.levels.len().saturating_sub(keep);
        for level in self.levels.iter_mut().take(far).skip(1).rev() {
            // Those above are closed already.
            if level.dir.take().is_none() {
                break;
            }
        }
    }

    /// Makes the directory `name` of the deepest level the next one to be emptied.
    fn descend(&mut self, name: CString) -> Result<(), Errno> {
        let depth = self.levels.len();
        if depth >= MAX_OPEN && self.move_up(&name)? {
            return Ok(());
        }
        let open = |sweep: &Self| open_dir(sweep.levels[depth - 1].dir()?.as_fd(), name.to_bytes());
        let opened = match open(self) {
            Err(Errno::MFILE | Errno::NFILE) if depth > 1 => {
                if self.move_up(&name)? {
                    return Ok(());
                }
                self.close_far(1);
                open(self)
            }
            other => other,
        };
        let dir = match opened {
            Ok(dir) => dir,
            // Gone, or something else by now, which a later pass finds.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(error),
        };
        let stat = fs::fstat(&dir)?;
        if stat.st_dev != self.device {
            return Err(Errno::XDEV);
        }
        self.levels.push(Level::new(dir, name, &stat));
        self.close_far(MAX_OPEN);
        Ok(())
    }

    /// Moves a directory of the deepest level to the top. False where the file system does not move directories, as an
    /// overlay with those of its lower layers.
    fn move_up(&mut self, name: &CString) -> Result<bool, Errno> {
        let mut granted = false;
        loop {
            let up = CString::new(format!(".msb-removing-{}", self.moved)).map_err(|_| Errno::INVAL)?;
            let (top, level) = (self.levels[0].dir()?, self.levels[self.levels.len() - 1].dir()?);
            match fs::renameat(level, name.as_c_str(), top, up.as_c_str()) {
                Ok(()) => {
                    self.moved += 1;
                    let pending = &mut self.levels[0].pending;
                    if pending.len() < MAX_REMEMBERED {
                        pending.push(up);
                    }
                    return Ok(true);
                }
                // The name is taken.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => self.moved += 1,
                Err(Errno::NOENT) => return Ok(true),
                // The directory, the one above it and the top all have to be writable.
                Err(Errno::ACCESS) if !granted => {
                    granted = true;
                    grant(top);
                    grant(level);
                    unlock(level.as_fd(), name.to_bytes())?;
                }
                Err(Errno::XDEV) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

fn rewind(dir: &OwnedFd) -> Result<(), Errno> {
    fs::seek(dir, fs::SeekFrom::Start(0)).map(drop)
}

/// Removes what one batch of entries names, except directories with content, which become pending. False at the end.
fn clear_batch(level: &mut Level, room: &mut Vec<u8>) -> Result<bool, Errno> {
    let dir = level.dir.as_ref().ok_or(Errno::STALE)?;
    let mut entries = RawDir::new(dir, room.spare_capacity_mut());
    while let Some(found) = entries.next() {
        let found = found?;
        let name = found.file_name();
        if name != c"." && name != c".." {
            level.seen = true;
            if !remove_plain(dir, name, found.file_type())? {
                level.pending.push(name.to_owned());
            }
        }
        if entries.is_buffer_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes an entry unless it is a directory with content.
fn remove_plain(dir: &OwnedFd, name: &std::ffi::CStr, kind: FileType) -> Result<bool, Errno> {
    let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    loop {
        return match fs::unlinkat(dir, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR) => Ok(false),
            // The type may be unknown to this file system; only a directory gives this to unlink.
            Err(Errno::PERM) if flags.is_empty() && is_dir(dir, name) => Ok(false),
            // No directory any more: the next pass sees what it is.
            Err(Errno::NOTDIR) if !flags.is_empty() => Ok(true),
            Err(Errno::ACCESS) if grant(dir) => continue,
            Err(error) => Err(error),
        };
    }
}

fn is_dir(at: &OwnedFd, name: &std::ffi::CStr) -> bool {
    fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Opens a directory to be emptied, even one that its owner has locked.
fn open_dir(at: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(at, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {}
        result => return result,
    }
    unlock(at, name)?;
    fs::openat(at, name, flags, Mode::empty())
}

/// Gives the owner every right to the directory `name`, which need not be readable.
fn unlock(at: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    file::chmod(&fs::openat(at, name, flags, Mode::empty())?, 0o700)
}

/// Makes an open directory writable for its owner; false if it was already, so that no call is repeated for ever.
fn grant(dir: &OwnedFd) -> bool {
    let Ok(stat) = fs::fstat(dir) else { return false };
    stat.st_mode & 0o700 != 0o700 && fs::fchmod(dir, Mode::RWXU).is_ok()
}
