//! A directory as a tar archive, in steps: names by descriptor, so that no name, however odd, and no race leads out.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use microsandbox_rooted::walk::{Bounds, Entry, Order, Step, Walk};
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::{FsError, check_path};
use super::root::Root;

/// Directories within each other, and names that wait to be looked at.
const BOUNDS: Bounds = Bounds { depth: 257, pending: 1_000_000 };
/// The archive's unit.
const BLOCK: u64 = 512;

/// A file whose header is out.
struct Open {
    file: OwnedFd,
    left: u64,
    padding: u64,
}

/// The transfer. Sockets, fifos and devices are left out: they mean nothing elsewhere.
pub struct Pack {
    path: String,
    walk: Option<Walk>,
    open: Option<Open>,
    archive: Archive,
    /// Bytes produced so far.
    pub total: u64,
}

impl Pack {
    pub fn new(path: String) -> Pack {
        Pack { path, walk: None, open: None, archive: Archive(tar::Builder::new(Vec::new())), total: 0 }
    }

    /// The next bytes of the archive, about `budget`, and whether they were the last.
    pub fn step(&mut self, root: &Root, budget: usize) -> Result<(Vec<u8>, bool), FsError> {
        let walk = match &mut self.walk {
            Some(walk) => walk,
            empty => empty.insert(begin(root, &self.path)?),
        };
        let broken = |error: std::io::Error| FsError::new("EIO", format!("cannot archive {}: {error}", self.path));
        let mut chunk = Vec::new();
        let mut ended = false;
        while chunk.len() < budget && !ended {
            if let Some(open) = &mut self.open {
                if fill(open, &mut chunk, budget).map_err(|e| FsError::at(e, "cannot read below", &self.path))? {
                    self.open = None;
                }
                continue;
            }
            match walk.step() {
                Some(Ok(Step::Entry(entry))) => {
                    let open = open_regular(&entry).map_err(|e| FsError::at(e, "cannot read below", &self.path))?;
                    self.archive.head(&entry, open.as_ref()).map_err(broken)?;
                    self.open = open.map(|(file, _)| file);
                }
                Some(Ok(Step::Left)) => {}
                Some(Err(error)) => return Err(stopped(error, &self.path)),
                None => {
                    self.archive.0.finish().map_err(broken)?;
                    ended = true;
                }
            }
            chunk.append(self.archive.0.get_mut());
        }
        self.total += chunk.len() as u64;
        Ok((chunk, ended))
    }
}

fn begin(root: &Root, path: &str) -> Result<Walk, FsError> {
    check_path(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let top = root.open(path, flags, Mode::empty()).and_then(|top| Walk::new(top, Order::Name, BOUNDS));
    top.map_err(|error| FsError::at(error, "cannot archive", path))
}

fn stopped(error: Errno, path: &str) -> FsError {
    match error {
        Errno::OVERFLOW => {
            let Bounds { pending, depth } = BOUNDS;
            FsError::limit(format!(
                "{path} is deeper than {} directories or has more than {pending} files side by side",
                depth - 1
            ))
        }
        error => FsError::at(error, "cannot read below", path),
    }
}

/// A regular file with its attributes at the time of opening; nothing else is opened.
fn open_regular(entry: &Entry<'_>) -> Result<Option<(Open, Stat)>, Errno> {
    if entry.kind() != FileType::RegularFile {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(entry.directory, entry.name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let size = stat.st_size as u64;
    Ok(Some((Open { file, left: size, padding: size.next_multiple_of(BLOCK) - size }, stat)))
}

/// The headers of the archive; content is added by [`fill`].
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    /// The header of an entry, with the GNU entry before it that a long name needs.
    fn head(&mut self, entry: &Entry<'_>, open: Option<&(Open, Stat)>) -> std::io::Result<()> {
        let path = as_path(entry.path);
        match (entry.kind(), open) {
            (FileType::Directory, _) => {
                let mut header = header(tar::EntryType::Directory, &entry.stat, 0);
                self.0.append_data(&mut header, path, std::io::empty())
            }
            (FileType::Symlink, _) => {
                let target = rustix::fs::readlinkat(entry.directory, entry.name, Vec::new())?;
                let mut header = header(tar::EntryType::Symlink, &entry.stat, 0);
                self.0.append_link(&mut header, path, as_path(target.to_bytes()))
            }
            (_, Some((open, stat))) => {
                let mut header = header(tar::EntryType::Regular, stat, open.left);
                self.0.append_data(&mut header, path, std::io::empty())
            }
            _ => Ok(()),
        }
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn header(kind: tar::EntryType, stat: &Stat, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(stat.st_mtime.max(0) as u64);
    header.set_size(size);
    header
}

/// Adds content up to the budget; true when the file is done. What was announced is what comes: a file that shrank is
/// filled with zeros, one that grew is cut.
fn fill(open: &mut Open, chunk: &mut Vec<u8>, budget: usize) -> Result<bool, Errno> {
    let want = open.left.min(budget.saturating_sub(chunk.len()) as u64) as usize;
    let goal = chunk.len() + want;
    chunk.reserve_exact(want);
    while chunk.len() < goal {
        let before = chunk.len();
        match rustix::io::read(&open.file, spare_capacity(chunk)) {
            Ok(0) => chunk.resize(goal, 0),
            Ok(_) => chunk.truncate(goal),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        open.left -= (chunk.len() - before) as u64;
    }
    if open.left > 0 {
        return Ok(false);
    }
    chunk.resize(chunk.len() + open.padding as usize, 0);
    Ok(true)
}
