//! Reading a file as a stream of chunks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{FsError, check_path};
use super::handles::Handle;
use super::root::Root;

/// A transfer that moves when its client has room.
pub struct Reader {
    path: String,
    source: Source,
    offset: u64,
    remaining: u64,
    /// Bytes produced so far.
    pub total: u64,
}

enum Source {
    /// Opened by the first step, on a worker.
    Unopened,
    File(OwnedFd),
    Handle(Arc<Handle>),
}

impl Reader {
    /// A whole file.
    pub fn of_path(path: String) -> Reader {
        Reader { path, source: Source::Unopened, offset: 0, remaining: u64::MAX, total: 0 }
    }

    /// A part of an open one.
    pub fn of_handle(handle: Arc<Handle>, offset: u64, len: u64) -> Reader {
        Reader { path: handle.path.clone(), source: Source::Handle(handle), offset, remaining: len, total: 0 }
    }

    /// The next chunk of at most `budget` bytes, and whether it was the last.
    pub fn step(&mut self, root: &Root, budget: usize) -> Result<(Vec<u8>, bool), FsError> {
        if matches!(self.source, Source::Unopened) {
            self.source = Source::File(open_regular(root, &self.path)?);
        }
        let fd: BorrowedFd<'_> = match &self.source {
            Source::File(fd) => fd.as_fd(),
            Source::Handle(handle) => handle.fd.as_fd(),
            // Opened above.
            Source::Unopened => return Err(FsError::at(Errno::BADF, "cannot read", &self.path)),
        };
        let want = self.remaining.min(budget as u64) as usize;
        // The file's size is a hint only: those of procfs say 0.
        let hint =
            rustix::fs::fstat(fd).map_or(want as u64, |stat| (stat.st_size as u64).saturating_sub(self.offset) + 1);
        let mut chunk = Vec::with_capacity(want.min((hint as usize).max(16 << 10)));
        while chunk.len() < want {
            if chunk.len() == chunk.capacity() {
                chunk.reserve((want - chunk.len()).min(64 << 10));
            }
            match rustix::io::pread(fd, spare_capacity(&mut chunk), self.offset) {
                Ok(0) => return Ok((chunk, true)),
                Ok(got) => {
                    self.offset += got as u64;
                    self.total += got as u64;
                    self.remaining -= (got as u64).min(self.remaining);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(FsError::at(error, "cannot read", &self.path)),
            }
        }
        // The end is reported with the last byte: a read of its own would need credit the client may never give.
        let ended = self.remaining == 0 || matches!(rustix::io::pread(fd, &mut [0u8; 1][..], self.offset), Ok(0));
        Ok((chunk, ended))
    }
}

/// Opens a regular file; a fifo or device is recognised without waiting for it.
pub fn open_regular(root: &Root, path: &str) -> Result<OwnedFd, FsError> {
    check_path(path)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = root.open(path, flags, Mode::empty()).map_err(|error| open_error(error, "cannot read", path))?;
    require_regular(file.as_fd(), "cannot read", path)?;
    Ok(file)
}

/// `ENXIO` is what a fifo without reader or a socket answers.
pub fn open_error(error: Errno, verb: &str, path: &str) -> FsError {
    if error == Errno::NXIO { FsError::not_regular(path) } else { FsError::at(error, verb, path) }
}

pub fn require_regular(fd: BorrowedFd<'_>, verb: &str, path: &str) -> Result<(), FsError> {
    let stat = rustix::fs::fstat(fd).map_err(|e| FsError::at(e, verb, path))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(FsError::at(Errno::ISDIR, verb, path)),
        _ => Err(FsError::not_regular(path)),
    }
}
