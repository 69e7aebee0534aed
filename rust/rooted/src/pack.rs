//! A directory as a tar archive, in steps: names by descriptor, so that no name, however odd, and no race leads out.
//! Links stay links, a second name of a file is a hard link to the first, holes stay holes.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::tar::write::{Head, comment, end};
use crate::tar::{BLOCK, Extent, Kind, padding};
use crate::walk::{Bounds, Entry, Order, Step, Walk};

/// Directories within each other, and names that wait to be looked at.
const BOUNDS: Bounds = Bounds { depth: 257, ..Bounds::WIDE };
/// Bytes of the first names of files that have several.
const MAX_LINK_BYTES: usize = 32 << 20;
/// What the first name of a file takes beside its text.
const LINK_COST: usize = 96;
/// Parts of a sparse file; what follows is one part with its holes.
const MAX_EXTENTS: usize = 40_000;
/// Entries that are named as left out, and the bytes of their names.
const MAX_LEFT_OUT: usize = 1000;
const MAX_LEFT_OUT_BYTES: usize = 1 << 20;
/// Begin of the comment on an entry that no archive can hold.
pub const LEFT_OUT: &[u8] = b"left out: ";

/// Who owns the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whoever owns the files.
    Kept,
    /// Root: the ids of this side mean nothing on the other one.
    Root,
}

/// What goes into the archive.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub owners: Owners,
    /// Bits of the modes. A directory's sticky bit protects the files of its users from each other: it is never left out.
    pub mode: u32,
    /// The first entry is the directory itself.
    pub with_top: bool,
}

impl Rules {
    fn head<'h>(
        self,
        kind: Kind,
        path: &'h [u8],
        link: &'h [u8],
        stat: &Stat,
        extents: Option<&'h [Extent]>,
    ) -> Head<'h> {
        let (uid, gid) = match self.owners {
            Owners::Kept => (stat.st_uid, stat.st_gid),
            Owners::Root => (0, 0),
        };
        let sticky = if kind == Kind::Dir { 0o1000 } else { 0 };
        Head {
            kind,
            path,
            link,
            size: if kind == Kind::File { stat.st_size as u64 } else { 0 },
            mode: stat.st_mode & 0o7777 & (self.mode | sticky),
            uid,
            gid,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            extents,
        }
    }
}

/// Why packing stops.
#[derive(Debug)]
pub enum Failure {
    /// At the entry, named from the top; empty for the top.
    Io {
        path: Vec<u8>,
        errno: Errno,
    },
    TooDeep {
        depth: usize,
    },
    /// More names than are kept at the same time, in bytes.
    TooMany {
        what: &'static str,
        limit: usize,
    },
}

/// The archive in the making.
pub struct Pack {
    walk: Walk,
    rules: Rules,
    /// The top, as long as it is to be the next entry.
    top: Option<Stat>,
    open: Option<Open>,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), Vec<u8>>,
    name_bytes: usize,
    left_out: Vec<Vec<u8>>,
    left_out_bytes: usize,
}

/// A file whose header is out.
struct Open {
    file: OwnedFd,
    path: Vec<u8>,
    /// What is to be read, the next part at the end.
    extents: Vec<Extent>,
    padding: u64,
}

impl Pack {
    /// Of everything beneath `top`.
    pub fn new(top: OwnedFd, rules: Rules) -> Result<Pack, Errno> {
        let stat = if rules.with_top { Some(rustix::fs::fstat(&top)?) } else { None };
        let walk = Walk::new(top, Order::Name, BOUNDS)?;
        Ok(Pack {
            walk,
            rules,
            top: stat,
            open: None,
            names: HashMap::new(),
            name_bytes: 0,
            left_out: Vec::new(),
            left_out_bytes: 0,
        })
    }

    /// What no archive can hold, `a socket: name`; the first thousand.
    pub fn left_out(&self) -> &[Vec<u8>] {
        &self.left_out
    }

    /// The next bytes of the archive, about `budget`, and whether they were the last.
    pub fn step(&mut self, budget: usize) -> Result<(Vec<u8>, bool), Failure> {
        let mut chunk = Vec::new();
        if let Some(stat) = self.top.take() {
            self.rules.head(Kind::Dir, b"./", b"", &stat, None).write(&mut chunk);
        }
        while chunk.len() < budget {
            if let Some(open) = &mut self.open {
                let is_done = fill(open, &mut chunk, budget)
                    .map_err(|errno| Failure::Io { path: std::mem::take(&mut open.path), errno })?;
                if is_done {
                    self.open = None;
                }
                continue;
            }
            match self.walk.step() {
                Some(Ok(Step::Entry(entry))) => {
                    let (rules, names) = (self.rules, &mut self.names);
                    let name_bytes = &mut self.name_bytes;
                    let (left_out, left_out_bytes) = (&mut self.left_out, &mut self.left_out_bytes);
                    let mut entries = Entries { rules, names, name_bytes, left_out, left_out_bytes };
                    self.open = entries.add(&entry, &mut chunk)?;
                }
                Some(Ok(Step::Left)) => {}
                Some(Err(Errno::OVERFLOW)) => {
                    return Err(if self.walk.depth() >= BOUNDS.depth {
                        Failure::TooDeep { depth: BOUNDS.depth - 1 }
                    } else {
                        Failure::TooMany { what: "names of directories side by side", limit: BOUNDS.memory }
                    });
                }
                Some(Err(errno)) => return Err(Failure::Io { path: Vec::new(), errno }),
                None => {
                    end(&mut chunk);
                    return Ok((chunk, true));
                }
            }
        }
        Ok((chunk, false))
    }
}

/// How entries become headers.
struct Entries<'a> {
    rules: Rules,
    names: &'a mut HashMap<(u64, u64), Vec<u8>>,
    name_bytes: &'a mut usize,
    left_out: &'a mut Vec<Vec<u8>>,
    left_out_bytes: &'a mut usize,
}

impl Entries<'_> {
    /// Adds the header of an entry; a file with content is returned.
    fn add(&mut self, entry: &Entry<'_>, out: &mut Vec<u8>) -> Result<Option<Open>, Failure> {
        let failed = |errno| Failure::Io { path: entry.path.to_vec(), errno };
        match entry.kind() {
            FileType::Directory => self.rules.head(Kind::Dir, entry.path, b"", &entry.stat, None).write(out),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(entry.directory, entry.name, Vec::new()).map_err(failed)?;
                self.rules.head(Kind::Symlink, entry.path, target.to_bytes(), &entry.stat, None).write(out);
            }
            FileType::RegularFile => return self.add_file(entry, out),
            // They mean nothing elsewhere, and whoever reads a fifo waits.
            FileType::Fifo => self.leave_out(b"a fifo: ", entry, out),
            FileType::Socket => self.leave_out(b"a socket: ", entry, out),
            _ => self.leave_out(b"a device: ", entry, out),
        }
        Ok(None)
    }

    fn leave_out(&mut self, what: &[u8], entry: &Entry<'_>, out: &mut Vec<u8>) {
        let text = [what, entry.path].concat();
        comment(out, &[LEFT_OUT, &text].concat());
        if self.left_out.len() < MAX_LEFT_OUT && *self.left_out_bytes < MAX_LEFT_OUT_BYTES {
            *self.left_out_bytes += text.len();
            self.left_out.push(text);
        }
    }

    fn add_file(&mut self, entry: &Entry<'_>, out: &mut Vec<u8>) -> Result<Option<Open>, Failure> {
        let failed = |errno| Failure::Io { path: entry.path.to_vec(), errno };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::openat(entry.directory, entry.name, flags, Mode::empty()).map_err(failed)?;
        // Its attributes at the time of opening.
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed(Errno::STALE));
        }
        if stat.st_nlink > 1 {
            let identity = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.names.get(&identity) {
                let link = first.clone();
                self.rules.head(Kind::Hardlink, entry.path, &link, &stat, None).write(out);
                return Ok(None);
            }
            *self.name_bytes += entry.path.len() + LINK_COST;
            if *self.name_bytes > MAX_LINK_BYTES {
                return Err(Failure::TooMany { what: "names of files that have several", limit: MAX_LINK_BYTES });
            }
            self.names.insert(identity, entry.path.to_vec());
        }
        let size = stat.st_size as u64;
        let mut extents = if (stat.st_blocks as u64) * 512 < size { holes(&file, size).map_err(failed)? } else { None };
        let head = self.rules.head(Kind::File, entry.path, b"", &stat, extents.as_deref());
        head.write(out);
        let padding = padding(head.stored());
        let mut extents = extents.take().unwrap_or_else(|| vec![Extent { offset: 0, length: size }]);
        extents.reverse();
        Ok(Some(Open { file, path: entry.path.to_vec(), extents, padding }))
    }
}

/// The parts of a file that are no holes, in whole blocks; `None` if it has no holes that the file system knows.
fn holes(file: &OwnedFd, size: u64) -> Result<Option<Vec<Extent>>, Errno> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            // The file system knows none.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        };
        let hole = match extents.len() {
            MAX_EXTENTS.. => size,
            _ => rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(size),
        };
        let begin = data / BLOCK as u64 * BLOCK as u64;
        let end = hole.max(data + 1).next_multiple_of(BLOCK as u64).min(size);
        if begin >= end {
            break;
        }
        match extents.last_mut().filter(|last| last.offset + last.length >= begin) {
            Some(last) => last.length = end - last.offset,
            None => extents.push(Extent { offset: begin, length: end - begin }),
        }
        at = end;
    }
    if extents == [Extent { offset: 0, length: size }] {
        return Ok(None);
    }
    if extents.last().is_none_or(|last| last.offset + last.length < size) {
        // Marks the hole at the end.
        extents.push(Extent { offset: size, length: 0 });
    }
    Ok(Some(extents))
}

/// Adds content up to the budget; true when the file is done. What was announced is what comes: a file that shrank is
/// filled with zeros, one that grew is cut.
fn fill(open: &mut Open, chunk: &mut Vec<u8>, budget: usize) -> Result<bool, Errno> {
    while let Some(extent) = open.extents.last_mut() {
        if extent.length == 0 {
            open.extents.pop();
            continue;
        }
        let want = extent.length.min(budget.saturating_sub(chunk.len()) as u64) as usize;
        if want == 0 {
            return Ok(false);
        }
        let goal = chunk.len() + want;
        chunk.reserve_exact(want);
        while chunk.len() < goal {
            let before = chunk.len();
            match rustix::io::pread(open.file.as_fd(), spare_capacity(chunk), extent.offset) {
                Ok(0) => chunk.resize(goal, 0),
                Ok(_) => chunk.truncate(goal),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            let got = (chunk.len() - before) as u64;
            extent.offset += got;
            extent.length -= got;
        }
    }
    chunk.resize(chunk.len() + open.padding as usize, 0);
    Ok(true)
}
