//! A tar archive as a directory. Every name is resolved beneath the directory, by descriptor; a file appears complete; links
//! stay links, and nothing is written through one that leads out.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use microsandbox_sys::file::chmod;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::attributes::{is_of_programs, modified, set_mode};
use crate::open::{Ceiling, Rule, open};
use crate::replace::{
    Holes, Temporary, open_existing, refuses_names, with_free_name, write_over, write_sparsely, write_zeros,
};
use crate::tar::{self, Archive, Entry, Kind, Source, quoted};

/// Names of one path.
const MAX_DEPTH: usize = 1024;
/// Bytes of a path that the kernel takes, with its end.
const PATH_MAX: usize = 4096;
/// Bytes of the directories whose attributes are still to be set, before those that are full are completed; and most of them.
const MAX_HELD: usize = 16 << 20;
const MAX_DIRECTORY_BYTES: usize = 64 << 20;
/// What such a directory takes besides its path.
const DIRECTORY_BYTES: usize = 160;
/// Directories made here that the archive has not described yet; further ones stay as they were made.
const MAX_MADE: usize = 200_000;
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// What is taken over from the archive.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How the names among the parents of an entry are resolved.
    pub parents: Rule,
    /// Owners and attributes as the archive says, where this process may; else its own, and a directory that was there
    /// keeps its mode and times: they are not the archive's to choose.
    pub keeps_owners: bool,
    /// Bits of the modes of files and of directories.
    pub file_mode: u32,
    pub directory_mode: u32,
    /// Fifos are made; else they are left out.
    pub makes_fifos: bool,
    /// An entry for the directory itself gives it its attributes; else they stay.
    pub sets_top: bool,
}

/// Why unpacking stops.
#[derive(Debug)]
pub enum Failure {
    Archive(tar::Error),
    /// The name of an entry, or the target of a hard link, leads above the directory.
    LeadsOut {
        path: Vec<u8>,
    },
    /// At the entry of this name.
    Refused {
        path: Vec<u8>,
        why: &'static str,
    },
    Io {
        path: Vec<u8>,
        action: &'static str,
        errno: Errno,
    },
}

type Outcome<T> = Result<T, Failure>;
/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    Made,
    /// A file of a kind that the rules leave out.
    LeftOut,
}

#[derive(Clone, Copy)]
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: (i64, u32),
}

/// A directory being filled.
pub struct Unpack {
    base: OwnedFd,
    rules: Rules,
    /// The parent of the last entry.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Something was replaced since, perhaps the link through which that parent was found.
    is_stale: bool,
    /// A directory's mode and times come last: what is put into it would change or forbid them.
    directories: BTreeMap<Vec<u8>, (Attributes, Xattrs)>,
    /// What those take, in bytes, and from where on those that are full are completed.
    held: usize,
    complete_at: usize,
    /// The directories that were made here, by device and inode, where that matters.
    made: HashSet<(u64, u64)>,
}

impl Unpack {
    /// Beneath `base`, a descriptor of a directory.
    pub fn new(base: OwnedFd, rules: Rules) -> Unpack {
        let (directories, made) = (BTreeMap::new(), HashSet::new());
        Unpack { base, rules, parent: None, is_stale: false, directories, held: 0, complete_at: MAX_HELD, made }
    }

    /// Puts one entry in place; its content comes from `archive`.
    pub fn apply<S: Source>(&mut self, entry: &Entry, archive: &mut Archive<S>) -> Outcome<Placed> {
        let path = clean(&entry.path)?;
        let attributes = self.attributes(entry);
        if entry.kind == Kind::Dir {
            return self.directory(path, attributes, entry);
        }
        let (parents, name) = split(&path);
        if name.is_empty() {
            return Err(refused(entry, "would replace the directory itself"));
        }
        match entry.kind {
            Kind::Device => return Err(refused(entry, "is a device, which cannot be made here")),
            Kind::Fifo if !self.rules.makes_fifos => return Ok(Placed::LeftOut),
            Kind::Symlink if entry.link.is_empty() => return Err(refused(entry, "is a link to nothing")),
            _ => {}
        }
        self.enter(parents, entry)?;
        let failed = |action: &'static str| move |errno| Failure::Io { path: entry.path.clone(), action, errno };
        match entry.kind {
            Kind::Symlink => {
                self.replace(name, |dir, name| fs::symlinkat(OsStr::from_bytes(&entry.link), dir, name))
                    .map_err(failed("create"))?;
                self.dress_unopened(name, attributes, false).map_err(failed("set the attributes of"))?;
            }
            Kind::Fifo => {
                self.replace(name, |dir, name| fs::mknodat(dir, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0))
                    .map_err(failed("create"))?;
                self.dress_unopened(name, attributes, true).map_err(failed("set the attributes of"))?;
            }
            Kind::Hardlink => {
                let target = clean(&entry.link)?;
                let (parents, old) = split(&target);
                let from = self.open_directory(parents).map_err(failed("find the target of"))?;
                let old = OsStr::from_bytes(old);
                if !self.is_same(&from, old, name) {
                    self.replace(name, |dir, name| fs::linkat(&from, old, dir, name, AtFlags::empty()))
                        .map_err(failed("link"))?;
                }
            }
            _ => self.file(name, entry, attributes, archive)?,
        }
        Ok(Placed::Made)
    }

    /// Everything was put in place: sets the attributes of directories, the deepest first.
    pub fn finish(mut self) -> Outcome<()> {
        for (path, (attributes, xattrs)) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.complete(&path, attributes, &xattrs)?;
        }
        Ok(())
    }

    /// Frees memory: sets the attributes of all directories but those around `current`. Archives that are written as a walk goes
    /// down and up again come back to none of them; in another one, a later entry changes the time of its directory.
    fn complete_others(&mut self, current: &[u8]) -> Outcome<()> {
        self.held = 0;
        for (path, (attributes, xattrs)) in std::mem::take(&mut self.directories).into_iter().rev() {
            let is_around =
                path.is_empty() || current.strip_prefix(&path[..]).is_some_and(|rest| rest.starts_with(b"/"));
            if is_around {
                self.held += memory(&path, &xattrs);
                self.directories.insert(path, (attributes, xattrs));
            } else if let Some(identity) = self.complete(&path, attributes, &xattrs)? {
                self.made.remove(&identity);
            }
        }
        Ok(())
    }

    /// Sets the attributes of a directory into which nothing more is put; its identity, if it is still there.
    fn complete(&self, path: &[u8], attributes: Attributes, xattrs: &Xattrs) -> Outcome<Option<(u64, u64)>> {
        let failed = |errno| Failure::Io { path: path.to_vec(), action: "set the attributes of", errno };
        let directory = match self.open_directory(path) {
            Ok(directory) => directory,
            // Removed since, or replaced.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        // Else another one has its place.
        if self.may_dress(path, &directory).map_err(failed)? {
            self.dress(&directory, attributes, xattrs).map_err(failed)?;
        }
        identity(&directory).map(Some).map_err(failed)
    }

    fn attributes(&self, entry: &Entry) -> Attributes {
        let mask = if entry.kind == Kind::Dir { self.rules.directory_mode } else { self.rules.file_mode };
        Attributes { uid: entry.uid, gid: entry.gid, mode: entry.mode & mask, mtime: entry.mtime }
    }

    /// Opens a directory beneath the base. A path that is longer than the kernel takes is opened in pieces; what is so deep has no
    /// links on the way.
    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut rest = if path.is_empty() { b"." } else { path };
        let (mut rule, mut held) = (self.rules.parents, None);
        while rest.len() >= PATH_MAX {
            let cut = rest[..PATH_MAX].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?;
            let from = held.as_ref().unwrap_or(&self.base);
            held = Some(open(from, OsStr::from_bytes(&rest[..cut]), OFlags::PATH | DIRECTORY, Mode::empty(), rule)?);
            (rest, rule) = (&rest[cut + 1..], Rule { links: false, ceiling: Ceiling::Refused, mounts: true });
        }
        let from = held.as_ref().unwrap_or(&self.base);
        open(from, OsStr::from_bytes(rest), OFlags::RDONLY | DIRECTORY, Mode::empty(), rule)
    }

    /// Makes `path` the current parent, with whatever is missing of it.
    fn enter(&mut self, path: &[u8], entry: &Entry) -> Outcome<()> {
        if !self.is_stale && self.parent.as_ref().is_some_and(|(known, _)| known == path) {
            return Ok(());
        }
        let failed = |errno| Failure::Io { path: entry.path.clone(), action: "create the parent of", errno };
        let directory = match self.open_directory(path) {
            Err(Errno::NOENT) => self.make_all(path, 0o755).map_err(failed)?,
            other => other.map_err(failed)?,
        };
        self.parent = Some((path.to_vec(), directory));
        self.is_stale = false;
        Ok(())
    }

    /// The directory `path`, made with its parents; the last one with `mode`.
    fn make_all(&mut self, path: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
        if path.split(|&byte| byte == b'/').count() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let mut at = self.open_directory(b"")?;
        let mut begin = 0;
        while begin < path.len() {
            let end = path[begin..].iter().position(|&byte| byte == b'/').map_or(path.len(), |len| begin + len);
            let wanted = if end == path.len() { mode } else { 0o755 };
            at = match self.open_directory(&path[..end]) {
                Err(Errno::NOENT) => {
                    let name = OsStr::from_bytes(&path[begin..end]);
                    let is_new = match fs::mkdirat(&at, name, Mode::from_raw_mode(wanted)) {
                        Ok(()) => true,
                        // Made by another process in between; opened below, never through a link.
                        Err(Errno::EXIST) => false,
                        Err(error) => return Err(error),
                    };
                    let next = fs::openat(&at, name, OFlags::RDONLY | OFlags::NOFOLLOW | DIRECTORY, Mode::empty())?;
                    // One too many stays as it was made.
                    if is_new && !self.rules.keeps_owners && self.made.len() < MAX_MADE {
                        self.made.insert(identity(&next)?);
                    }
                    next
                }
                other => other?,
            };
            begin = end + 1;
        }
        Ok(at)
    }

    fn directory(&mut self, path: Vec<u8>, attributes: Attributes, entry: &Entry) -> Outcome<Placed> {
        let failed = |errno| Failure::Io { path: entry.path.clone(), action: "create", errno };
        let directory = match self.open_directory(&path) {
            // Closed for others until its own mode is set.
            Err(Errno::NOENT) => self.make_all(&path, 0o700).map_err(failed)?,
            other => other.map_err(failed)?,
        };
        if !self.may_dress(&path, &directory).map_err(failed)? {
            return Ok(Placed::Made);
        }
        if self.held > self.complete_at {
            self.complete_others(&path)?;
            // What is left are the directories around this one: they are not looked at again for each that follows.
            self.complete_at = MAX_HELD.max(2 * self.held);
        }
        let xattrs = if self.rules.keeps_owners { entry.xattrs.clone() } else { Xattrs::new() };
        self.held += memory(&path, &xattrs);
        if self.held > MAX_DIRECTORY_BYTES {
            return Err(refused(
                entry,
                "is one directory too many: the names of those around it are bounded to 64 MiB; copy it in parts",
            ));
        }
        self.directories.insert(path, (attributes, xattrs));
        Ok(Placed::Made)
    }

    /// Whether the directory at `path` is given what the archive says.
    fn may_dress(&self, path: &[u8], directory: &OwnedFd) -> Result<bool, Errno> {
        if path.is_empty() {
            return Ok(self.rules.sets_top);
        }
        Ok(self.rules.keeps_owners || self.made.contains(&identity(directory)?))
    }

    fn dir(&self) -> &OwnedFd {
        // `apply` enters a parent before it puts anything.
        self.parent.as_ref().map_or(&self.base, |(_, directory)| directory)
    }

    /// Creates a name, or replaces the file of that name in one step; a directory is not replaced.
    fn replace(&mut self, name: &[u8], create: impl Fn(&OwnedFd, &OsStr) -> Result<(), Errno>) -> Result<(), Errno> {
        let name = OsStr::from_bytes(name);
        match create(self.dir(), name) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
        let dir = self.dir();
        let (temporary, ()) = with_free_name(|temporary| create(dir, OsStr::new(temporary)))?;
        let renamed = fs::renameat(dir, &*temporary, dir, name);
        // After a rename that succeeded, the name is still there where both were links to one file.
        let _ = fs::unlinkat(dir, &*temporary, AtFlags::empty());
        self.is_stale = true;
        renamed
    }

    fn is_same(&self, from: &OwnedFd, old: &OsStr, name: &[u8]) -> bool {
        let identity = |dir: &OwnedFd, name: &OsStr| {
            fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| (stat.st_dev, stat.st_ino))
        };
        let first = identity(from, old);
        first.is_some() && first == identity(self.dir(), OsStr::from_bytes(name))
    }

    fn file<S: Source>(
        &mut self,
        name: &[u8],
        entry: &Entry,
        attributes: Attributes,
        archive: &mut Archive<S>,
    ) -> Outcome<()> {
        let failed = |errno| Failure::Io { path: entry.path.clone(), action: "write", errno };
        let name = OsStr::from_bytes(name);
        let dir = rustix::io::fcntl_dupfd_cloexec(self.dir(), 3).map_err(failed)?;
        let kind = fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if kind == Ok(FileType::Directory) {
            return Err(failed(Errno::ISDIR));
        }
        let temporary = match Temporary::new(dir) {
            Err(error) if refuses_names(error) && kind == Ok(FileType::RegularFile) => {
                let file = open_existing(self.dir(), name).map_err(|_| failed(error))?;
                return pour_over(&file, entry, archive);
            }
            other => other.map_err(failed)?,
        };
        pour(temporary.file(), entry, archive)?;
        self.dress(temporary.file(), attributes, &entry.xattrs).map_err(|errno| Failure::Io {
            path: entry.path.clone(),
            action: "set the attributes of",
            errno,
        })?;
        temporary.publish(name).map_err(failed)?;
        self.is_stale |= kind.is_ok();
        Ok(())
    }

    /// Owner, mode, attributes and time of something open. An owner that this process may not give leaves the file to it, and a
    /// set-id bit goes with the owner: such a program would be another one.
    fn dress(&self, fd: impl AsFd, attributes: Attributes, xattrs: &Xattrs) -> Result<(), Errno> {
        let mut mode = attributes.mode;
        if self.rules.keeps_owners {
            match chown(&fd, attributes) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::INVAL) => mode &= 0o1777,
                Err(error) => return Err(error),
            }
        }
        set_mode(&fd, mode)?;
        if self.rules.keeps_owners {
            for (name, value) in xattrs.iter().filter(|(name, _)| is_of_programs(name)) {
                match fs::fsetxattr(&fd, &name[..], value, XattrFlags::empty()) {
                    // A file system without room for attributes has none.
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::RANGE | Errno::TOOBIG) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        fs::futimens(&fd, &modified(attributes.mtime))
    }

    /// The same for links and fifos, by name, never through a link.
    fn dress_unopened(&self, name: &[u8], attributes: Attributes, has_mode: bool) -> Result<(), Errno> {
        let (dir, name) = (self.dir(), OsStr::from_bytes(name));
        let fd = fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if self.rules.keeps_owners {
            match chown(&fd, attributes) {
                Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
        if has_mode {
            chmod(&fd, attributes.mode & 0o777)?;
        }
        fs::utimensat(dir, name, &modified(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }
}

fn memory(path: &[u8], xattrs: &Xattrs) -> usize {
    let attributes = xattrs.iter().map(|(name, value)| name.len() + value.len() + size_of::<(Vec<u8>, Vec<u8>)>());
    DIRECTORY_BYTES + path.len() + attributes.sum::<usize>()
}

fn identity(fd: impl AsFd) -> Result<(u64, u64), Errno> {
    fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

fn pour<S: Source>(file: impl AsFd, entry: &Entry, archive: &mut Archive<S>) -> Outcome<()> {
    let failed = |errno| Failure::Io { path: entry.path.clone(), action: "write", errno };
    let mut holes = Holes::default();
    while let Some((at, piece)) = archive.piece().map_err(Failure::Archive)? {
        write_sparsely(&file, piece, at, &mut holes).map_err(failed)?;
    }
    fs::ftruncate(&file, entry.size).map_err(failed)
}

/// The same over the content of an existing file, the end of which is cut last. Not atomic.
fn pour_over<S: Source>(file: impl AsFd, entry: &Entry, archive: &mut Archive<S>) -> Outcome<()> {
    let failed = |errno| Failure::Io { path: entry.path.clone(), action: "write", errno };
    let old = fs::fstat(&file).map_err(failed)?.st_size as u64;
    let (mut end, mut holes) = (0, Holes::default());
    while let Some((at, piece)) = archive.piece().map_err(Failure::Archive)? {
        // A hole of a sparse file.
        write_zeros(&file, end, at.min(old)).map_err(failed)?;
        write_over(&file, piece, at, old, &mut holes).map_err(failed)?;
        end = at + piece.len() as u64;
    }
    write_zeros(&file, end, entry.size.min(old)).map_err(failed)?;
    fs::ftruncate(&file, entry.size).map_err(failed)
}

fn chown(fd: impl AsFd, attributes: Attributes) -> Result<(), Errno> {
    let Attributes { uid, gid, .. } = attributes;
    // -1 means "keep" to the kernel, so it is no id.
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    fs::chownat(fd, c"", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)
}

fn refused(entry: &Entry, why: &'static str) -> Failure {
    Failure::Refused { path: entry.path.clone(), why }
}

/// A path of an archive, relative to the directory, without `.`; a leading slash is dropped, `..` is refused.
fn clean(path: &[u8]) -> Outcome<Vec<u8>> {
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Failure::LeadsOut { path: path.to_vec() }),
            name => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(name);
            }
        }
    }
    Ok(clean)
}

/// The directory and the last name of a clean path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// What stopped it, for a message: the entry is quoted.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Archive(error) => write!(f, "the archive cannot be read: {error}"),
            Failure::LeadsOut { path } => write!(f, "{} in the archive leads out of it", quoted(path)),
            Failure::Refused { path, why } => write!(f, "{} in the archive {why}", quoted(path)),
            Failure::Io { path, action, errno } => {
                let text = std::io::Error::from_raw_os_error(errno.raw_os_error());
                write!(f, "cannot {action} {}: {text}", quoted(path))
            }
        }
    }
}
