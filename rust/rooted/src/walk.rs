//! A walk through a tree that another party may be changing: no link is followed, nothing recurses, and the number of
//! open descriptors does not grow with the depth. A directory that was closed on the way down is reached again by `..`
//! from the one below it, and only if it is still the same directory.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Directories of the present path that stay open, the deepest ones.
const MAX_OPEN: usize = 16;

/// In which order a directory's entries come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the file system lists them, those that are directories last. Only the names of directories are kept.
    Found,
    /// By name. All names of the directories on the present path are kept.
    Name,
}

/// What the walk keeps at most; more is `EOVERFLOW`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Names that wait to be looked at.
    pub pending: usize,
    /// Directories within each other, the top included.
    pub depth: usize,
}

impl Bounds {
    /// Enough for any honest tree, little enough for any process.
    pub const WIDE: Bounds = Bounds { pending: 1_000_000, depth: 1_000_000 };
}

/// One step of the walk.
pub enum Step<'a> {
    /// A file, a link, or a directory that the next step enters unless [`Walk::skip`] is called.
    Entry(Entry<'a>),
    /// Everything in the directory entered last and not yet left was seen.
    Left,
}

/// Something in the tree.
pub struct Entry<'a> {
    /// The directory that holds it.
    pub directory: BorrowedFd<'a>,
    pub name: &'a CStr,
    /// Names from the top down to this one, joined by slashes.
    pub path: &'a [u8],
    pub stat: Stat,
}

impl Entry<'_> {
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

struct Level {
    /// Absent while this level is too far above the present one.
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    /// Set until the listing has ended.
    listing: Option<Dir>,
    /// The next one is at the end.
    pending: Vec<CString>,
    /// Length of this directory's path.
    path: usize,
}

/// A walk. Errors are about one entry: the walk may go on after them.
pub struct Walk {
    levels: Vec<Level>,
    order: Order,
    bounds: Bounds,
    pending: usize,
    path: Vec<u8>,
    /// The present entry.
    name: CString,
    /// The present entry is a directory, to be entered.
    enter: bool,
}

impl Walk {
    /// Through everything beneath `top`.
    pub fn new(top: OwnedFd, order: Order, bounds: Bounds) -> Result<Walk, Errno> {
        let mut walk = Walk {
            levels: Vec::new(),
            order,
            bounds,
            pending: 0,
            path: Vec::new(),
            name: CString::default(),
            enter: false,
        };
        walk.push(top)?;
        Ok(walk)
    }

    /// Does not enter the directory that the last step returned.
    pub fn skip(&mut self) {
        self.enter = false;
    }

    /// How many directories the present entry is below: 1 for what is in the top.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// The next step; `None` at the end.
    pub fn step(&mut self) -> Option<Result<Step<'_>, Errno>> {
        if std::mem::take(&mut self.enter)
            && let Err(error) = self.descend()
        {
            return Some(Err(error));
        }
        loop {
            match self.find() {
                Ok(Found::Nothing) => {}
                Ok(Found::Entry(stat)) => return Some(Ok(self.entry(stat))),
                Ok(Found::End) => return None,
                Ok(Found::Left) => return Some(Ok(Step::Left)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn entry(&mut self, stat: Stat) -> Step<'_> {
        let level = &self.levels[self.levels.len() - 1];
        self.path.truncate(level.path);
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(self.name.to_bytes());
        // `find` has opened it.
        let directory = level.fd.as_ref().map_or(rustix::fs::CWD, AsFd::as_fd);
        Step::Entry(Entry { directory, name: &self.name, path: &self.path, stat })
    }

    /// Takes the next name of the deepest level.
    fn find(&mut self) -> Result<Found, Errno> {
        let Some(level) = self.levels.last_mut() else { return Ok(Found::End) };
        if let Some(listing) = &mut level.listing {
            let Some(entry) = listing.read() else {
                level.listing = None;
                if self.order == Order::Name {
                    level.pending.sort_unstable_by(|a, b| b.cmp(a));
                }
                return Ok(Found::Nothing);
            };
            let entry = entry.inspect_err(|_| level.listing = None)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                return Ok(Found::Nothing);
            }
            if self.order == Order::Name || entry.file_type() == FileType::Directory {
                return self.wait(name.to_owned());
            }
            name.clone_into(&mut self.name);
        } else if let Some(name) = level.pending.pop() {
            self.pending -= 1;
            self.name = name;
        } else {
            return self.leave();
        }
        self.look()
    }

    /// Keeps a name for later.
    fn wait(&mut self, name: CString) -> Result<Found, Errno> {
        if self.pending >= self.bounds.pending {
            return Err(Errno::OVERFLOW);
        }
        self.pending += 1;
        if let Some(level) = self.levels.last_mut() {
            level.pending.push(name);
        }
        Ok(Found::Nothing)
    }

    /// Looks at the present name.
    fn look(&mut self) -> Result<Found, Errno> {
        let Some(level) = self.levels.last_mut() else { return Ok(Found::End) };
        let Some(fd) = &level.fd else { return Err(Errno::STALE) };
        let stat = match rustix::fs::statat(fd, self.name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            // Removed since it was listed.
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            other => other?,
        };
        self.enter = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if self.enter && level.listing.is_some() {
            // The listing did not say what it is.
            self.enter = false;
            let name = self.name.clone();
            return self.wait(name);
        }
        Ok(Found::Entry(stat))
    }

    fn descend(&mut self) -> Result<(), Errno> {
        let Some(fd) = self.levels.last().and_then(|level| level.fd.as_ref()) else { return Err(Errno::STALE) };
        if self.levels.len() >= self.bounds.depth {
            return Err(Errno::OVERFLOW);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let below = rustix::fs::openat(fd, self.name.as_c_str(), flags, Mode::empty())?;
        self.push(below)
    }

    fn push(&mut self, fd: OwnedFd) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(&fd)?;
        let listing = Some(Dir::read_from(&fd)?);
        let identity = (stat.st_dev, stat.st_ino);
        self.levels.push(Level { fd: Some(fd), identity, listing, pending: Vec::new(), path: self.path.len() });
        // The top stays open: it has nothing above it, but the way back to it is the longest.
        if let Some(far) = self.levels.len().checked_sub(MAX_OPEN + 1).filter(|far| *far > 0) {
            self.levels[far].fd = None;
        }
        Ok(())
    }

    /// Goes back to the directory above.
    fn leave(&mut self) -> Result<Found, Errno> {
        let Some(done) = self.levels.pop() else { return Ok(Found::End) };
        let Some(above) = self.levels.last_mut() else { return Ok(Found::End) };
        if above.fd.is_some() {
            return Ok(Found::Left);
        }
        let reopened = done.fd.ok_or(Errno::STALE).and_then(|below| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&below, c"..", flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&fd)?;
            // Moved to another place while it was walked through: the way back is lost.
            if (stat.st_dev, stat.st_ino) == above.identity { Ok(fd) } else { Err(Errno::STALE) }
        });
        match reopened {
            Ok(fd) => {
                above.fd = Some(fd);
                Ok(Found::Left)
            }
            Err(error) => {
                // Everything that was closed above is lost with it; the top is always open.
                while self.levels.len() > 1 && self.levels.last().is_some_and(|level| level.fd.is_none()) {
                    let lost = self.levels.pop();
                    self.pending -= lost.map_or(0, |level| level.pending.len());
                }
                Err(error)
            }
        }
    }
}

/// What a step found.
enum Found {
    /// No entry yet.
    Nothing,
    Entry(Stat),
    Left,
    End,
}
