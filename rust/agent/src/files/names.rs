//! Operations on names: directories, links, renames.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};

use microsandbox_protocol::names;
use microsandbox_sys::file::chmod;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::entries::open_path;
use super::error::{FsError, check_path};
use super::root::{Root, split};

/// Components of a path that is created.
const MAX_COMPONENTS: usize = 1024;
const DEFAULT_DIR_MODE: u32 = 0o755;

/// The parent directory and last component of a path whose name is to be changed.
pub fn parent<'a>(root: &Root, path: &'a str, verb: &str) -> Result<(OwnedFd, Cow<'a, OsStr>), FsError> {
    check_path(path)?;
    root.parent(path).map_err(|error| match error {
        Errno::INVAL => FsError::invalid(path, "ends in `.` or `..`"),
        error => FsError::at(error, verb, path),
    })
}

/// Creates a directory and its missing parents. Parents get the default mode.
pub fn mkdir(root: &Root, path: &str, mode: Option<u32>) -> Result<(), FsError> {
    check_path(path)?;
    let failed = |e| FsError::at(e, "cannot create directory", path);
    let mut missing: Vec<Cow<'_, OsStr>> = Vec::new();
    let mut at = path;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = loop {
        match root.open(at, flags, Mode::empty()) {
            Ok(dir) => break dir,
            Err(Errno::NOENT) if missing.len() < MAX_COMPONENTS => {}
            Err(error) => return Err(failed(error)),
        }
        // A missing component before `..` has no parent to go back to.
        let (parent, name) = split(at).map_err(|_| failed(Errno::NOENT))?;
        missing.push(names::to_os(name));
        at = parent;
    };
    while let Some(name) = missing.pop() {
        let wanted = if missing.is_empty() { mode.unwrap_or(DEFAULT_DIR_MODE) } else { DEFAULT_DIR_MODE };
        let made = match rustix::fs::mkdirat(&dir, &*name, Mode::from_raw_mode(wanted & 0o1777)) {
            Ok(()) => true,
            // Another process created the name first; it is opened below, without following a symbolic link.
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed(error)),
        };
        let step = flags | OFlags::NOFOLLOW;
        dir = rustix::fs::openat(&dir, &*name, step, Mode::empty()).map_err(failed)?;
        if made && wanted & 0o6000 != 0 {
            // `mkdir` ignores the set-id bits.
            chmod(&dir, wanted).map_err(failed)?;
        }
    }
    Ok(())
}

pub fn symlink(root: &Root, target: &str, link: &str) -> Result<(), FsError> {
    if target.is_empty() || target.contains('\0') {
        return Err(FsError::invalid(target, "cannot be the target of a link"));
    }
    let (dir, name) = parent(root, link, "cannot create link")?;
    rustix::fs::symlinkat(&*names::to_os(target), &dir, &*name).map_err(|e| FsError::at(e, "cannot create link", link))
}

/// A second name of a file; a link is linked itself, not followed.
pub fn link(root: &Root, existing: &str, new: &str) -> Result<(), FsError> {
    let (from, old) = parent(root, existing, "cannot link")?;
    let (to, name) = parent(root, new, "cannot create link")?;
    rustix::fs::linkat(&from, &*old, &to, &*name, rustix::fs::AtFlags::empty())
        .map_err(|e| FsError::at(e, "cannot create link", new))
}

pub fn readlink(root: &Root, path: &str) -> Result<String, FsError> {
    let failed = |e| FsError::at(e, "cannot read link", path);
    let fd = open_path(root, path, false, "cannot read link")?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Err(failed(Errno::INVAL));
    }
    let target = rustix::fs::readlinkat(&fd, c"", Vec::new()).map_err(failed)?;
    Ok(names::to_text(target.as_bytes()).into_owned())
}

/// The canonical path of an existing file, as the kernel sees it from the root.
pub fn real_path(root: &Root, path: &str) -> Result<String, FsError> {
    let failed = |e| FsError::at(e, "cannot resolve", path);
    let fd = open_path(root, path, true, "cannot resolve")?;
    let own = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let real = rustix::fs::readlink(own, Vec::new()).map_err(failed)?;
    let real = names::to_text(real.as_bytes()).into_owned();
    if !real.starts_with('/') {
        return Err(FsError::new("PathEscapes", format!("{path} is not beneath the root any more")));
    }
    Ok(real)
}

/// Removes a file, link or special file.
pub fn remove(root: &Root, path: &str) -> Result<(), FsError> {
    let (dir, name) = parent(root, path, "cannot remove")?;
    rustix::fs::unlinkat(&dir, &*name, rustix::fs::AtFlags::empty()).map_err(|e| FsError::at(e, "cannot remove", path))
}
