//! A walk through a tree that another party may be changing: no link is followed, nothing recurses, and the number of
//! open descriptors does not grow with the depth. A directory that was closed on the way down is reached again by `..`
//! from the one below it, and only if it is still the same directory. Files are not kept because there are many of them: what
//! a tree costs is the names of the directories that wait to be entered, and of those on the present path.

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
    /// By name. Where the names are too many to be kept ([`SORTED`]), the files of a directory come before its directories, and
    /// those of a very large one ([`BATCH`]) in several runs, each of them by name.
    Name,
}

/// Bytes of names of one directory that are sorted together.
const BATCH: usize = 4 << 20;
/// Bytes of all that is kept, beyond which files come first.
const SORTED: usize = 16 << 20;
/// What a name and a directory on the present path take beside their text.
const NAME_COST: usize = 48;
const LEVEL_COST: usize = 192;

/// What the walk keeps at most; more is `EOVERFLOW`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of names that wait to be looked at, and of the present path.
    pub memory: usize,
    /// Directories within each other, the top included.
    pub depth: usize,
}

impl Bounds {
    /// Enough for any honest tree, little enough for any process.
    pub const WIDE: Bounds = Bounds { memory: 64 << 20, depth: usize::MAX };
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
    /// Bytes of the names that were put there since the last run.
    batch: usize,
    /// A run of files: directories among them wait in `aside`.
    is_run: bool,
    aside: Vec<CString>,
    /// Length of this directory's path.
    path: usize,
    /// Bytes that it adds to those that are kept.
    own: usize,
}

/// A walk. Errors are about one entry: the walk may go on after them.
pub struct Walk {
    levels: Vec<Level>,
    order: Order,
    bounds: Bounds,
    /// Bytes that are kept.
    kept: usize,
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
            kept: 0,
            path: Vec::new(),
            name: CString::default(),
            enter: false,
        };
        walk.push(top, 0)?;
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
        if let Some(listing) = level.listing.as_mut().filter(|_| !level.is_run) {
            let Some(entry) = listing.read() else {
                self.listed();
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
            self.kept -= cost(&name);
            self.name = name;
        } else if std::mem::take(&mut level.is_run) {
            if level.listing.is_none() {
                level.pending = std::mem::take(&mut level.aside);
                sort(&mut level.pending);
            }
            return Ok(Found::Nothing);
        } else {
            return self.leave();
        }
        self.look()
    }

    /// The listing of the deepest level has ended.
    fn listed(&mut self) {
        let Some(level) = self.levels.last_mut() else { return };
        level.listing = None;
        if self.order == Order::Name {
            level.is_run = !level.aside.is_empty() || self.kept > SORTED;
            sort(&mut level.pending);
        }
    }

    /// Keeps a name for later.
    fn wait(&mut self, name: CString) -> Result<Found, Errno> {
        self.keep(cost(&name))?;
        if let Some(level) = self.levels.last_mut() {
            level.batch += cost(&name);
            level.pending.push(name);
            if self.order == Order::Name && level.batch > BATCH {
                level.batch = 0;
                level.is_run = true;
                sort(&mut level.pending);
            }
        }
        Ok(Found::Nothing)
    }

    fn keep(&mut self, bytes: usize) -> Result<(), Errno> {
        if self.kept.saturating_add(bytes) > self.bounds.memory {
            return Err(Errno::OVERFLOW);
        }
        self.kept += bytes;
        Ok(())
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
        if self.enter && level.is_run {
            self.enter = false;
            let name = self.name.clone();
            self.keep(cost(&name))?;
            if let Some(level) = self.levels.last_mut() {
                level.aside.push(name);
            }
            return Ok(Found::Nothing);
        }
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
        self.push(below, LEVEL_COST + self.name.to_bytes().len())
    }

    /// `own` is what it adds to the bytes that are kept.
    fn push(&mut self, fd: OwnedFd, own: usize) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(&fd)?;
        let listing = Some(Dir::read_from(&fd)?);
        // Last: what is kept of a level that is not there would never be given back.
        self.keep(own)?;
        let identity = (stat.st_dev, stat.st_ino);
        let (pending, aside) = (Vec::new(), Vec::new());
        let path = self.path.len();
        self.levels.push(Level { fd: Some(fd), identity, listing, pending, batch: 0, is_run: false, aside, path, own });
        // The top stays open: it has nothing above it, but the way back to it is the longest.
        if let Some(far) = self.levels.len().checked_sub(MAX_OPEN + 1).filter(|far| *far > 0) {
            self.levels[far].fd = None;
        }
        Ok(())
    }

    /// Goes back to the directory above.
    fn leave(&mut self) -> Result<Found, Errno> {
        let Some(done) = self.levels.pop() else { return Ok(Found::End) };
        self.forget(&done);
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
                while self.levels.len() > 1
                    && let Some(lost) = self.levels.pop_if(|level| level.fd.is_none())
                {
                    self.forget(&lost);
                }
                Err(error)
            }
        }
    }

    /// Gives back what a level took that is no longer on the path.
    fn forget(&mut self, level: &Level) {
        let names: usize = level.pending.iter().chain(&level.aside).map(|name| cost(name)).sum();
        self.kept -= names + level.own;
    }
}

fn cost(name: &CStr) -> usize {
    name.to_bytes().len() + NAME_COST
}

/// The first one at the end.
fn sort(names: &mut [CString]) {
    names.sort_unstable_by(|a, b| b.cmp(a));
}

/// What a step found.
enum Found {
    /// No entry yet.
    Nothing,
    Entry(Stat),
    Left,
    End,
}
