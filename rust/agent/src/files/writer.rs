//! Writing a file from a stream of chunks.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use microsandbox_protocol::names;
use microsandbox_rooted::attributes;
use microsandbox_rooted::replace::{
    Holes, Temporary, open_existing, refuses_names, write_all, write_over, write_sparsely,
};
use rustix::fs::{FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::error::{FsError, check_path};
use super::handles::Handle;
use super::reader::{open_error, require_regular};
use super::root::{self, Root};

const DEFAULT_FILE_MODE: u32 = 0o644;
/// As the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;

/// A transfer towards a file.
pub struct Writer {
    path: String,
    target: Target,
    mode: Option<u32>,
    /// Seconds and nanoseconds.
    mtime: Option<(i64, u32)>,
    offset: u64,
    /// Bytes the client announced.
    announced: Option<u64>,
    /// Bytes taken so far.
    pub written: u64,
    holes: Holes,
}

enum Target {
    /// Opened by the first step, on a worker.
    Unopened {
        atomic: bool,
    },
    /// Not atomic: what is written replaces the old content piece by piece, and the end is cut at the end.
    InPlace {
        file: OwnedFd,
        /// Bytes it had.
        old: u64,
        /// Set with the first piece.
        mode: Option<Mode>,
    },
    Atomic {
        temporary: Temporary,
        name: OsString,
    },
    Handle(Arc<Handle>),
}

impl Writer {
    pub fn of_path(path: String, mode: Option<u32>, atomic: bool, mtime: Option<(i64, u32)>) -> Writer {
        Writer {
            path,
            target: Target::Unopened { atomic },
            mode,
            mtime,
            offset: 0,
            announced: None,
            written: 0,
            holes: Holes::default(),
        }
    }

    pub fn of_handle(handle: Arc<Handle>, offset: u64, len: u64) -> Writer {
        let path = handle.path.clone();
        let target = Target::Handle(handle);
        Writer {
            path,
            target,
            mode: None,
            mtime: None,
            offset,
            announced: Some(len),
            written: 0,
            holes: Holes::default(),
        }
    }

    /// Opens the target if that is still to be done.
    pub fn open(&mut self, root: &Root) -> Result<(), FsError> {
        match self.target {
            Target::Unopened { atomic: false } => self.open_in_place(root),
            Target::Unopened { atomic: true } => self.open_atomic(root),
            _ => Ok(()),
        }
    }

    pub fn write(&mut self, data: &[u8]) -> Result<(), FsError> {
        self.begin()?;
        self.written += data.len() as u64;
        if let Some(len) = self.announced
            && self.written > len
        {
            let text = format!("{} bytes were announced for {}, more came", len, self.path);
            return Err(FsError { kind: "EINVAL", errno: Some(libc::EINVAL), message: text });
        }
        // A part of an open file may have other content in place of the zeros.
        let written = match self.target {
            Target::Handle(_) => write_all(self.fd()?, data, self.offset),
            Target::InPlace { old, .. } => {
                write_over(file_of(&self.target, &self.path)?, data, self.offset, old, &mut self.holes)
            }
            _ => write_sparsely(file_of(&self.target, &self.path)?, data, self.offset, &mut self.holes),
        };
        written.map_err(|error| FsError::at(error, "cannot write", &self.path))?;
        self.offset += data.len() as u64;
        Ok(())
    }

    /// What comes changes the file. Until then a file that is written in place is as it was.
    fn begin(&mut self) -> Result<(), FsError> {
        if let Target::InPlace { file, mode, .. } = &mut self.target
            && let Some(mode) = mode.take()
        {
            rustix::fs::fchmod(&*file, mode).map_err(|e| FsError::at(e, "cannot write", &self.path))?;
        }
        Ok(())
    }

    /// All data was written: makes the result visible.
    pub fn finish(mut self) -> Result<(), FsError> {
        self.begin()?;
        let failed = |e| FsError::at(e, "cannot write", &self.path);
        if !matches!(self.target, Target::Handle(_)) {
            // The last piece may have been a hole.
            rustix::fs::ftruncate(self.fd()?, self.offset).map_err(failed)?;
        }
        if let Some(time) = self.mtime {
            rustix::fs::futimens(self.fd()?, &attributes::modified(time)).map_err(failed)?;
        }
        match self.target {
            Target::Atomic { temporary, name } => {
                rustix::fs::fsync(temporary.file()).map_err(failed)?;
                temporary.publish(&*name).map(drop).map_err(failed)
            }
            _ => Ok(()),
        }
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, FsError> {
        file_of(&self.target, &self.path)
    }

    fn open_in_place(&mut self, root: &Root) -> Result<(), FsError> {
        check_path(&self.path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.mode.unwrap_or(DEFAULT_FILE_MODE) & 0o7777);
        let failed = |e| open_error(e, "cannot write", &self.path);
        let file = root.open(&self.path, flags, mode).map_err(failed)?;
        require_regular(file.as_fd(), "cannot write", &self.path)?;
        // Not by O_TRUNC: what is no regular file must not be touched, nor a file for which nothing comes.
        self.target = in_place(file, self.mode.map(|_| mode)).map_err(failed)?;
        Ok(())
    }

    fn open_atomic(&mut self, root: &Root) -> Result<(), FsError> {
        check_path(&self.path)?;
        let failed = |e| open_error(e, "cannot write", &self.path);
        let old = existing(root, &self.path)?;
        let (dir, name) = final_name(root, &self.path)?;
        let again = rustix::io::fcntl_dupfd_cloexec(&dir, 3).map_err(failed)?;
        let temporary = match Temporary::new(dir) {
            // Programs can write the file although its directory takes no new name: in place.
            Err(error) if refuses_names(error) && old.is_some() => {
                let file = open_existing(&again, &*name).map_err(|_| failed(error))?;
                self.target = in_place(file, None).map_err(failed)?;
                return Ok(());
            }
            other => other.map_err(failed)?,
        };
        let mode = self.mode.unwrap_or_else(|| old.as_ref().map_or(DEFAULT_FILE_MODE, |stat| stat.st_mode));
        if let Some(stat) = &old {
            // Best effort, as with an editor's "save": where ids are not mapped the file becomes root's.
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            let _ = rustix::fs::fchown(temporary.file(), Some(uid), Some(gid));
        }
        rustix::fs::fchmod(temporary.file(), Mode::from_raw_mode(mode & 0o7777)).map_err(failed)?;
        self.target = Target::Atomic { temporary, name };
        Ok(())
    }
}

fn file_of<'a>(target: &'a Target, path: &str) -> Result<BorrowedFd<'a>, FsError> {
    match target {
        Target::InPlace { file, .. } => Ok(file.as_fd()),
        Target::Atomic { temporary, .. } => Ok(temporary.file()),
        Target::Handle(handle) => Ok(handle.fd.as_fd()),
        Target::Unopened { .. } => Err(FsError::at(Errno::BADF, "cannot write", path)),
    }
}

fn in_place(file: OwnedFd, mode: Option<Mode>) -> Result<Target, Errno> {
    let old = rustix::fs::fstat(&file)?.st_size as u64;
    Ok(Target::InPlace { file, old, mode })
}

/// The file that exists at the path; anything but a regular file is refused.
fn existing(root: &Root, path: &str) -> Result<Option<Stat>, FsError> {
    let failed = |e| FsError::at(e, "cannot write", path);
    match root.open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => {
            require_regular(fd.as_fd(), "cannot write", path)?;
            rustix::fs::fstat(&fd).map(Some).map_err(failed)
        }
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The directory and name that a rename must replace: links at the end are followed, so that a link stays a link.
fn final_name(root: &Root, path: &str) -> Result<(OwnedFd, OsString), FsError> {
    let failed = |e| FsError::at(e, "cannot write", path);
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        if at.ends_with('/') {
            return Err(failed(Errno::ISDIR));
        }
        let (parent, name) = root::split(&at).map_err(|_| failed(Errno::ISDIR))?;
        let name = names::to_os(name);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = root.open(parent, flags, Mode::empty()).map_err(failed)?;
        match root::lstat_at(dir.as_fd(), &name) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                let target = rustix::fs::readlinkat(&dir, &*name, Vec::new()).map_err(failed)?;
                let target = names::to_text(target.as_bytes());
                at = if target.starts_with('/') { target.into_owned() } else { format!("{parent}/{target}") };
            }
            _ => return Ok((dir, name.into_owned())),
        }
    }
    Err(failed(Errno::LOOP))
}
