//! Writes the entries of one layer beneath its directory. Nothing outside can be reached: every parent is opened
//! without following a symlink, and symlinks among the parents are resolved here, by hand, within the root.

use std::collections::VecDeque;

use microsandbox_contract::{IdMap, JobError};
use microsandbox_jail::ids;
use microsandbox_rooted::remove;
use microsandbox_rooted::tar::{Archive, Entry, Kind, Source};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::limits::{self, Budget, Outcome, corrupt, failed, quoted, refused, unsafe_entry};
use super::lower_layers::{self, Beneath, OPAQUE, WHITEOUT};

/// Symlinks followed while resolving one name.
const MAX_HOPS: u32 = 40;
/// Bytes of the paths of directories whose times are set at the end, and what one takes beside its path.
const MAX_DIR_BYTES: usize = 256 << 20;
const DIR_COST: usize = 56;
/// Marks of the layer format: `.wh.name` deletes, `.wh..wh..opq` empties the directory it stands in.
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
const META_PREFIX: &[u8] = b".wh..wh.";

/// A path as its names, without `.`, `..` and symlinks.
type Names = Vec<Vec<u8>>;

/// One layer's directory while it is being filled.
pub struct Tree<'a> {
    root: OwnedFd,
    /// The own layer and those beneath it.
    view: Beneath,
    id_count: u32,
    /// Those that files may have.
    mode_bits: u32,
    budget: &'a mut Budget,
    /// The parent of the last entry: as it was named, where that is, opened.
    parent: Option<(Vec<Vec<u8>>, Names, OwnedFd)>,
    /// Times of directories, set at the end: filling one changes them.
    dir_times: Vec<(Vec<u8>, (i64, u32))>,
    /// Bytes of their paths.
    dir_bytes: usize,
}

/// What stood where an entry is to be put.
#[derive(PartialEq, Eq)]
enum Former {
    Nothing,
    Whiteout,
    Dir,
}

impl<'a> Tree<'a> {
    /// `beneath` are the layers under it, top first.
    pub fn new(root: OwnedFd, beneath: Vec<OwnedFd>, map: &IdMap, budget: &'a mut Budget) -> Outcome<Tree<'a>> {
        let own = rustix::io::fcntl_dupfd_cloexec(&root, 0).map_err(|e| failed("open", b"layer directory", e))?;
        let view = Beneath::new(std::iter::once(own).chain(beneath).collect());
        // A file of the caller's with such a bit would be a program of the caller's.
        let mode_bits = if map.root_is_caller() { 0o1777 } else { 0o7777 };
        Ok(Tree {
            root,
            view,
            id_count: ids::count(map),
            mode_bits,
            budget,
            parent: None,
            dir_times: Vec::new(),
            dir_bytes: 0,
        })
    }

    /// Puts one entry in place; its content comes from `archive`.
    pub fn apply(&mut self, entry: &Entry, archive: &mut Archive<impl Source>) -> Outcome<()> {
        let names = clean(&entry.path, "entry")?;
        self.budget.entry(&self.root, entry.size, names.len())?;
        let Some((name, parents)) = names.split_last() else {
            return self.apply_root(entry);
        };
        self.enter_parent(parents, &entry.path)?;
        if name.starts_with(WHITEOUT_PREFIX) {
            return self.apply_mark(name, entry);
        }
        match entry.kind {
            Kind::File => self.put_file(name, entry, archive),
            Kind::Dir => self.put_dir(name, entry),
            Kind::Symlink => self.put_symlink(name, entry),
            Kind::Hardlink => self.put_hardlink(name, entry),
            Kind::Fifo => self.put_fifo(name, entry),
            // No device of an image ever works in a sandbox: its mounts are nodev, and /dev is its own.
            Kind::Device => Ok(()),
        }
    }

    /// Sets the times of directories. The last thing to do.
    pub fn finish(mut self) -> Outcome<()> {
        for (path, mtime) in std::mem::take(&mut self.dir_times).into_iter().rev() {
            // Replaced since by something else, or removed.
            let Ok(dir) = self.open_own_dir(&path) else { continue };
            fs::futimens(&dir, &times(mtime)).map_err(|e| failed("set the time of", &path, e))?;
        }
        Ok(())
    }

    fn apply_root(&mut self, entry: &Entry) -> Outcome<()> {
        if entry.kind != Kind::Dir {
            return Err(unsafe_entry(format!("{} would replace the root by something else", quoted(&entry.path))));
        }
        let root = rustix::io::fcntl_dupfd_cloexec(&self.root, 0).map_err(|e| failed("open", &entry.path, e))?;
        self.dress(&root, entry, true)?;
        self.dir_times.push((Vec::new(), entry.mtime));
        Ok(())
    }

    /// Notes the time of a directory for the end.
    fn time_later(&mut self, place: &[Vec<u8>], mtime: (i64, u32)) -> Outcome<()> {
        let path = joined(place);
        self.dir_bytes += path.len() + DIR_COST;
        if self.dir_bytes > MAX_DIR_BYTES {
            return Err(limits::too_many_names(MAX_DIR_BYTES));
        }
        self.dir_times.push((path, mtime));
        Ok(())
    }

    fn open_own_dir(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        if path.is_empty() {
            return rustix::io::fcntl_dupfd_cloexec(&self.root, 0);
        }
        lower_layers::open_plain(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn parent(&self) -> BorrowedFd<'_> {
        // `apply` enters a parent before it puts anything.
        self.parent.as_ref().map_or(self.root.as_fd(), |(_, _, fd)| fd.as_fd())
    }

    /// Where `name` in the current parent is.
    fn place(&self, name: &[u8]) -> Names {
        let mut names = self.parent.as_ref().map_or_else(Vec::new, |(_, place, _)| place.clone());
        names.push(name.to_vec());
        names
    }

    /// Makes `named` the current parent, with whatever is missing of it.
    fn enter_parent(&mut self, named: &[Vec<u8>], path: &[u8]) -> Outcome<()> {
        if self.parent.as_ref().is_some_and(|(known, ..)| known == named) {
            return Ok(());
        }
        let (place, fd) = match self.open_own_dir(&joined(named)) {
            Ok(fd) => (named.to_vec(), fd),
            Err(_) => {
                let place = self.canonical(named, path)?;
                let fd = self.make_dirs(&place, path)?;
                (place, fd)
            }
        };
        self.parent = Some((named.to_vec(), place, fd));
        Ok(())
    }

    /// Resolves symlinks among `named`, within the root, as the overlay of this layer and those beneath will show them.
    fn canonical(&self, named: &[Vec<u8>], path: &[u8]) -> Outcome<Names> {
        let mut todo: VecDeque<Vec<u8>> = named.to_vec().into();
        let mut place: Names = Vec::new();
        let mut hops = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                place.pop();
                continue;
            }
            place.push(name);
            let found = self.view.find(&place).map_err(|e| failed("look up", path, e))?;
            let Some((layer, stat)) = found else { continue };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                continue;
            }
            hops += 1;
            if hops > MAX_HOPS {
                return Err(unsafe_entry(format!("{} leads through too many symlinks", quoted(path))));
            }
            let target =
                fs::readlinkat(layer, joined(&place), Vec::new()).map_err(|e| failed("read the link", path, e))?;
            place.pop();
            if target.as_bytes().starts_with(b"/") {
                place.clear();
            }
            for part in target.as_bytes().split(|&byte| byte == b'/').rev() {
                if !part.is_empty() && part != b"." {
                    todo.push_front(part.to_vec());
                }
            }
            if todo.len() > 4096 {
                return Err(unsafe_entry(format!("{} leads through too long symlinks", quoted(path))));
            }
        }
        Ok(place)
    }

    /// Opens the directory at `place` in this layer, making what is missing of it.
    fn make_dirs(&mut self, place: &[Vec<u8>], path: &[u8]) -> Outcome<OwnedFd> {
        let mut at = self.open_own_dir(b"").map_err(|e| failed("open", path, e))?;
        for depth in 1..=place.len() {
            let name = &place[depth - 1][..];
            at = match lower_layers::open_dir(&at, name) {
                Ok(next) => next,
                Err(Errno::NOENT) => self.make_dir_like_beneath(&at, &place[..depth], path)?,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    if former(&at, name).map_err(|e| failed("look at", path, e))? != Former::Whiteout {
                        return Err(unsafe_entry(format!(
                            "{} lies beneath something that is no directory",
                            quoted(path)
                        )));
                    }
                    fs::unlinkat(&at, name, AtFlags::empty()).map_err(|e| failed("replace", path, e))?;
                    let dir = make_dir(&at, name, 0o755).map_err(|e| failed("create", path, e))?;
                    fs::fsetxattr(&dir, OPAQUE, b"y", fs::XattrFlags::empty()).map_err(|e| failed("mark", path, e))?;
                    dir
                }
                Err(error) => return Err(failed("open the parent of", path, error)),
            };
        }
        Ok(at)
    }

    /// A directory that the archive does not describe: the overlay shows this layer's attributes, so they must be those
    /// of the directory beneath, if there is one.
    fn make_dir_like_beneath(&mut self, at: &OwnedFd, place: &[Vec<u8>], path: &[u8]) -> Outcome<OwnedFd> {
        let fail = |error| failed("create the parent of", path, error);
        let like = self.view.find(place).map_err(fail)?.map(|(_, stat)| stat);
        let name = &place[place.len() - 1][..];
        let dir = make_dir(at, name, 0o755).map_err(fail)?;
        if let Some(stat) = like.filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
            fs::fchown(&dir, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).map_err(fail)?;
            fs::fchmod(&dir, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(fail)?;
            self.time_later(place, (stat.st_mtime, stat.st_mtime_nsec as u32))?;
        }
        Ok(dir)
    }

    /// `.wh.` entries.
    fn apply_mark(&mut self, name: &[u8], entry: &Entry) -> Outcome<()> {
        let fail = |error| failed("apply", &entry.path, error);
        if name == OPAQUE_NAME {
            if self.parent.as_ref().is_some_and(|(_, place, _)| place.is_empty()) {
                return self.hide_all_beneath(&entry.path);
            }
            return fs::fsetxattr(self.parent(), OPAQUE, b"y", fs::XattrFlags::empty()).map_err(fail);
        }
        if name.starts_with(META_PREFIX) {
            // Bookkeeping of a file system that is not in use any more; it means nothing to a reader.
            return Ok(());
        }
        let hidden = &name[WHITEOUT_PREFIX.len()..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(unsafe_entry(format!("{} names nothing that can be deleted", quoted(&entry.path))));
        }
        match former(&self.parent(), hidden) {
            // A mark is about the layers beneath; what this layer holds stays.
            Ok(Former::Dir) => {
                let dir = lower_layers::open_dir(self.parent(), hidden).map_err(fail)?;
                fs::fsetxattr(&dir, OPAQUE, b"y", fs::XattrFlags::empty()).map_err(fail)
            }
            Ok(Former::Whiteout) => Ok(()),
            Ok(Former::Nothing) => match fs::statat(self.parent(), hidden, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => self.put_whiteout(hidden).map_err(fail),
                Ok(_) => Ok(()),
                Err(error) => Err(fail(error)),
            },
            Err(error) => Err(fail(error)),
        }
    }

    fn put_whiteout(&self, name: &[u8]) -> Result<(), Errno> {
        let made = fs::mknodat(self.parent(), name, FileType::CharacterDevice, Mode::empty(), 0);
        if made != Err(Errno::PERM) {
            return made;
        }
        // Linux 6.7 knows whiteouts without a device node: an empty file and a mark on its directory.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(self.parent(), name, flags, Mode::from_raw_mode(0o600))?;
        fs::fsetxattr(&file, WHITEOUT, b"y", fs::XattrFlags::empty())?;
        if lower_layers::is_opaque(self.parent()) {
            return Ok(());
        }
        fs::fsetxattr(self.parent(), OPAQUE, b"x", fs::XattrFlags::empty())
    }

    /// The overlay does not look for the mark on the root of a layer: every name beneath is deleted instead.
    fn hide_all_beneath(&mut self, path: &[u8]) -> Outcome<()> {
        let fail = |error| failed("apply", path, error);
        for name in self.view.root_names().map_err(fail)? {
            match fs::statat(&self.root, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => self.put_whiteout(&name).map_err(fail)?,
                Ok(_) => {
                    if let Ok(dir) = lower_layers::open_dir(&self.root, &name) {
                        fs::fsetxattr(&dir, OPAQUE, b"y", fs::XattrFlags::empty()).map_err(fail)?;
                    }
                }
                Err(error) => return Err(fail(error)),
            }
        }
        Ok(())
    }

    /// Runs `create` for `name`; if something is in the way it is removed first.
    fn create<T>(
        &mut self,
        name: &[u8],
        path: &[u8],
        create: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Outcome<(T, Former)> {
        match create(self.parent(), name) {
            Ok(made) => Ok((made, Former::Nothing)),
            Err(Errno::EXIST) => {
                let before = self.clear(name, path)?;
                let made = create(self.parent(), name).map_err(|e| failed("create", path, e))?;
                Ok((made, before))
            }
            Err(error) => Err(failed("create", path, error)),
        }
    }

    fn clear(&mut self, name: &[u8], path: &[u8]) -> Outcome<Former> {
        let before = former(&self.parent(), name).map_err(|e| failed("look at", path, e))?;
        remove::entry(self.parent(), name).map_err(|e| failed("replace", path, e))?;
        Ok(before)
    }

    fn put_file(&mut self, name: &[u8], entry: &Entry, archive: &mut Archive<impl Source>) -> Outcome<()> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (file, _) = self.create(name, &entry.path, |at, name| fs::openat(at, name, flags, mode))?;
        let limits = *self.budget.limits();
        while let Some((mut at, mut piece)) = archive.piece().map_err(|error| refused(&limits, error))? {
            self.budget.written(&file, piece.len() as u64)?;
            while !piece.is_empty() {
                let count = rustix::io::pwrite(&file, piece, at).map_err(|e| failed("write", &entry.path, e))?;
                piece = &piece[count..];
                at += count as u64;
            }
        }
        if entry.is_sparse {
            // The file may end with a hole.
            fs::ftruncate(&file, entry.size).map_err(|e| failed("write", &entry.path, e))?;
        }
        self.dress(&file, entry, false)?;
        fs::futimens(&file, &times(entry.mtime)).map_err(|e| failed("set the time of", &entry.path, e))
    }

    fn put_dir(&mut self, name: &[u8], entry: &Entry) -> Outcome<()> {
        let fail = |error| failed("create", &entry.path, error);
        let exists = former(&self.parent(), name).map_err(fail)? == Former::Dir;
        let dir = if exists {
            lower_layers::open_dir(self.parent(), name).map_err(fail)?
        } else {
            let mode = entry.mode & 0o777;
            let (dir, before) = self.create(name, &entry.path, |at, name| make_dir(at, name, mode))?;
            if before == Former::Whiteout {
                // Deleted beneath and made anew: nothing of the old one may show.
                fs::fsetxattr(&dir, OPAQUE, b"y", fs::XattrFlags::empty()).map_err(fail)?;
            }
            dir
        };
        self.dress(&dir, entry, exists)?;
        let place = self.place(name);
        self.time_later(&place, entry.mtime)
    }

    fn put_symlink(&mut self, name: &[u8], entry: &Entry) -> Outcome<()> {
        if entry.link.is_empty() {
            return Err(unsafe_entry(format!("the symlink {} leads nowhere", quoted(&entry.path))));
        }
        self.create(name, &entry.path, |at, name| fs::symlinkat(&entry.link[..], at, name))?;
        self.dress_unopened(name, entry)
    }

    fn put_fifo(&mut self, name: &[u8], entry: &Entry) -> Outcome<()> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        self.create(name, &entry.path, |at, name| fs::mknodat(at, name, FileType::Fifo, mode, 0))?;
        self.dress_unopened(name, entry)
    }

    fn put_hardlink(&mut self, name: &[u8], entry: &Entry) -> Outcome<()> {
        let fail = |error| failed("link", &entry.path, error);
        let target = clean(&entry.link, "link target")?;
        let refused = |why| unsafe_entry(format!("{} links to {}, {why}", quoted(&entry.path), quoted(&entry.link)));
        let Some((base, parents)) = target.split_last() else { return Err(refused("which is the root")) };
        let mut source = self.canonical(parents, &entry.path)?;
        source.push(base.clone());
        let own = self.place(name);
        if source == own {
            return Ok(());
        }
        let Some((layer, stat)) = self.view.find(&source).map_err(fail)? else {
            return Err(refused("which is not in the image before it"));
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refused("which is a directory"));
        }
        let path = joined(&source);
        if matches!(fs::statat(&self.root, &path[..], AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) {
            let from = rustix::io::fcntl_dupfd_cloexec(layer, 0).map_err(fail)?;
            self.copy_up(&from, &source, &stat, &entry.path)?;
        }
        let dir = self.open_own_dir(&joined(&source[..source.len() - 1])).map_err(fail)?;
        self.create(name, &entry.path, |at, name| fs::linkat(&dir, &base[..], at, name, AtFlags::empty()))?;
        Ok(())
    }

    /// Brings a file from beneath into this layer, so that a link can be made to it.
    fn copy_up(&mut self, from: &OwnedFd, place: &[Vec<u8>], stat: &fs::Stat, path: &[u8]) -> Outcome<()> {
        let fail = |error| failed("copy the target of", path, error);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(unsafe_entry(format!("{} links to something beneath that is no file", quoted(path))));
        }
        let size = stat.st_size as u64;
        self.budget.entry(&self.root, size, place.len())?;
        let (name, parents) = place.split_last().ok_or_else(|| corrupt("a link to the root"))?;
        let dir = self.make_dirs(parents, path)?;
        let source = lower_layers::open_plain(from, &joined(place), OFlags::RDONLY | OFlags::NOFOLLOW).map_err(fail)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = fs::openat(&dir, &name[..], flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
        let (mut reader, mut writer) = (std::fs::File::from(source), std::fs::File::from(copy));
        std::io::copy(&mut reader, &mut writer).map_err(|e| fail(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        fs::fchown(&writer, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).map_err(fail)?;
        fs::fchmod(&writer, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(fail)?;
        fs::futimens(&writer, &times((stat.st_mtime, stat.st_mtime_nsec as u32))).map_err(fail)
    }

    /// The owner that the mapping can express. An id outside of it becomes root, and then nothing may run as it.
    fn owner(&self, entry: &Entry) -> (u32, u32, u32) {
        let inside = |id: u32| if id < self.id_count { id } else { 0 };
        let (uid, gid) = (inside(entry.uid), inside(entry.gid));
        let mode = if (uid, gid) == (entry.uid, entry.gid) { entry.mode } else { entry.mode & 0o1777 };
        (uid, gid, mode & self.mode_bits)
    }

    /// Owner, mode and attributes of something open. New things are root's already.
    fn dress(&self, fd: impl AsFd, entry: &Entry, existed: bool) -> Outcome<()> {
        let (uid, gid, mode) = self.owner(entry);
        if existed || (uid, gid) != (0, 0) {
            fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|e| failed("set the owner of", &entry.path, e))?;
        }
        if existed || mode & 0o7000 != 0 {
            fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(|e| failed("set the mode of", &entry.path, e))?;
        }
        for (name, value) in &entry.xattrs {
            if !is_harmless_attribute(name) {
                continue;
            }
            match fs::fsetxattr(&fd, &name[..], value, fs::XattrFlags::empty()) {
                // File systems without user attributes lose them; nothing of an image depends on one.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::RANGE | Errno::TOOBIG) => {}
                Err(error) => return Err(failed("set an attribute of", &entry.path, error)),
            }
        }
        Ok(())
    }

    /// The same for links and fifos, by name, never through it.
    fn dress_unopened(&self, name: &[u8], entry: &Entry) -> Outcome<()> {
        let (uid, gid, _) = self.owner(entry);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if (uid, gid) != (0, 0) {
            fs::chownat(self.parent(), name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
                .map_err(|e| failed("set the owner of", &entry.path, e))?;
        }
        fs::utimensat(self.parent(), name, &times(entry.mtime), flags)
            .map_err(|e| failed("set the time of", &entry.path, e))
    }
}

/// Attributes of images that are kept. Those of the overlay would change how the tree is shown, the others need rights
/// that a sandbox never has (file capabilities included: mounts are nosuid).
fn is_harmless_attribute(name: &[u8]) -> bool {
    name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}

/// A path from an archive as names. A leading slash is dropped (the root of the archive is the root of the image);
/// `..` is refused wherever it stands.
fn clean(path: &[u8], what: &str) -> Result<Names, JobError> {
    let mut names = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(unsafe_entry(format!("the {what} {} holds `..`", quoted(path)))),
            name => names.push(name.to_vec()),
        }
    }
    Ok(names)
}

fn joined(names: &[Vec<u8>]) -> Vec<u8> {
    names.join(&b'/')
}

fn make_dir(at: impl AsFd, name: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
    let at = at.as_fd();
    fs::mkdirat(at, name, Mode::from_raw_mode(mode))?;
    lower_layers::open_dir(at, name)
}

fn former(at: &impl AsFd, name: &[u8]) -> Result<Former, Errno> {
    match fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(Former::Nothing),
        Err(error) => Err(error),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(Former::Dir),
        Ok(stat) if lower_layers::is_whiteout(at, name, &stat) => Ok(Former::Whiteout),
        Ok(_) => Ok(Former::Nothing),
    }
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}
