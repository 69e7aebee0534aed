//! A directory as a tar archive, in steps: names by descriptor, so that no name, however odd, and no race leads out.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::{FsError, check_path};
use super::root::Root;

/// Directories within each other: one descriptor each.
const MAX_DEPTH: usize = 256;
/// Names that wait to be looked at.
const MAX_PENDING: usize = 1_000_000;
/// The archive's unit.
const BLOCK: u64 = 512;

/// What is still to be put into the archive.
struct Pending {
    directory: Arc<OwnedFd>,
    name: CString,
    /// Path in the archive.
    path: Vec<u8>,
    depth: usize,
}

/// A file whose header is out.
struct Open {
    file: OwnedFd,
    left: u64,
    padding: u64,
}

/// The transfer. Sockets, fifos and devices are left out: they mean nothing elsewhere.
pub struct TarReader {
    path: String,
    begun: bool,
    todo: Vec<Pending>,
    open: Option<Open>,
    archive: tar::Builder<Vec<u8>>,
    /// Bytes produced so far.
    pub total: u64,
}

impl TarReader {
    pub fn new(path: String) -> TarReader {
        let archive = tar::Builder::new(Vec::new());
        TarReader { path, begun: false, todo: Vec::new(), open: None, archive, total: 0 }
    }

    /// The next bytes of the archive, about `budget`, and whether they were the last.
    pub fn step(&mut self, root: &Root, budget: usize) -> Result<(Vec<u8>, bool), FsError> {
        if !self.begun {
            self.begin(root)?;
        }
        let mut chunk = Vec::new();
        let mut ended = false;
        while chunk.len() < budget && !ended {
            if let Some(open) = &mut self.open {
                if fill(open, &mut chunk, budget).map_err(|e| FsError::at(e, "cannot read below", &self.path))? {
                    self.open = None;
                }
            } else if let Some(next) = self.todo.pop() {
                self.enter(next)?;
                chunk.append(self.archive.get_mut());
            } else {
                self.archive.finish().map_err(|error| self.broken(&error))?;
                chunk.append(self.archive.get_mut());
                ended = true;
            }
        }
        self.total += chunk.len() as u64;
        Ok((chunk, ended))
    }

    fn begin(&mut self, root: &Root) -> Result<(), FsError> {
        check_path(&self.path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let failed = |error| FsError::at(error, "cannot archive", &self.path);
        let directory = root.open(&self.path, flags, Mode::empty()).map_err(failed)?;
        self.begun = true;
        self.look_into(Arc::new(directory), b"", 1)
    }

    fn broken(&self, error: &std::io::Error) -> FsError {
        FsError::new("EIO", format!("cannot archive {}: {error}", self.path))
    }

    /// Queues what is in a directory, by name.
    fn look_into(&mut self, directory: Arc<OwnedFd>, path: &[u8], depth: usize) -> Result<(), FsError> {
        let failed = |error| FsError::at(error, "cannot list below", &self.path);
        let mut names: Vec<CString> = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
            if names.len() + self.todo.len() > MAX_PENDING {
                return Err(FsError::limit(format!("{} has more than {MAX_PENDING} files side by side", self.path)));
            }
        }
        // The last is taken first.
        names.sort_unstable_by(|a, b| b.cmp(a));
        for name in names {
            let mut full = path.to_vec();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(name.to_bytes());
            self.todo.push(Pending { directory: Arc::clone(&directory), name, path: full, depth });
        }
        Ok(())
    }

    fn enter(&mut self, next: Pending) -> Result<(), FsError> {
        let directory = next.directory.as_fd();
        let failed = |error| FsError::at(error, "cannot read below", &self.path);
        let stat = match rustix::fs::statat(directory, next.name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if next.depth >= MAX_DEPTH {
                    return Err(FsError::limit(format!("{} is deeper than {MAX_DEPTH} directories", self.path)));
                }
                let below =
                    rustix::fs::openat(directory, next.name.as_c_str(), flags | OFlags::DIRECTORY, Mode::empty());
                let below = below.map_err(failed)?;
                self.head(&next.path, tar::EntryType::Directory, &stat, 0)?;
                self.look_into(Arc::new(below), &next.path, next.depth + 1)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, next.name.as_c_str(), Vec::new()).map_err(failed)?;
                let mut header = header(tar::EntryType::Symlink, &stat, 0);
                let (path, target) = (as_path(&next.path), as_path(target.to_bytes()));
                self.archive.append_link(&mut header, path, target).map_err(|error| self.broken(&error))
            }
            FileType::RegularFile => {
                let file = rustix::fs::openat(directory, next.name.as_c_str(), flags, Mode::empty()).map_err(failed)?;
                let stat = rustix::fs::fstat(&file).map_err(failed)?;
                let size = stat.st_size as u64;
                self.head(&next.path, tar::EntryType::Regular, &stat, size)?;
                self.open = Some(Open { file, left: size, padding: size.next_multiple_of(BLOCK) - size });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The header, with the GNU entry before it that a long name needs. The content is ours to add.
    fn head(&mut self, path: &[u8], kind: tar::EntryType, stat: &Stat, size: u64) -> Result<(), FsError> {
        let mut header = header(kind, stat, size);
        let done = self.archive.append_data(&mut header, as_path(path), std::io::empty());
        done.map_err(|error| self.broken(&error))
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
