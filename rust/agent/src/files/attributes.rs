//! Changing size, owner, mode and times, always through a descriptor of the file that was resolved.

use std::os::fd::{AsFd, BorrowedFd};

use microsandbox_protocol::message::FsAttrs;
use microsandbox_rooted::attributes::{is_of_programs, time};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::entries::open_path;
use super::error::FsError;
use super::handles::Handle;
use super::root::Root;

/// By path.
pub fn set(root: &Root, path: &str, follow: bool, attrs: &FsAttrs) -> Result<(), FsError> {
    let fd = open_path(root, path, follow, "cannot change")?;
    if let Some(size) = attrs.size {
        truncate(root, path, follow, fd.as_fd(), size)?;
    }
    change(fd.as_fd(), attrs).map_err(|e| FsError::at(e, "cannot change", path))
}

/// By handle.
pub fn set_open(handle: &Handle, attrs: &FsAttrs) -> Result<(), FsError> {
    let failed = |e| FsError::at(e, "cannot change", &handle.path);
    if let Some(size) = attrs.size {
        rustix::fs::ftruncate(&handle.fd, size).map_err(failed)?;
    }
    change(handle.fd.as_fd(), attrs).map_err(failed)
}

/// Opens for writing what was resolved; a path that means another file by now is refused.
fn truncate(root: &Root, path: &str, follow: bool, seen: BorrowedFd<'_>, size: u64) -> Result<(), FsError> {
    let failed = |e| FsError::at(e, "cannot truncate", path);
    let before = rustix::fs::fstat(seen).map_err(failed)?;
    match FileType::from_raw_mode(before.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(failed(Errno::ISDIR)),
        _ => return Err(FsError::not_regular(path)),
    }
    let last = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | last;
    let file = root.open(path, flags, Mode::empty()).map_err(failed)?;
    let now = rustix::fs::fstat(&file).map_err(failed)?;
    if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino) {
        return Err(failed(Errno::STALE));
    }
    rustix::fs::ftruncate(&file, size).map_err(failed)
}

/// Owner first: changing it clears set-id bits, which the mode may set again.
fn change(fd: BorrowedFd<'_>, attrs: &FsAttrs) -> Result<(), Errno> {
    // -1 means "keep" to the kernel, so it is no id.
    if attrs.uid == Some(u32::MAX) || attrs.gid == Some(u32::MAX) {
        return Err(Errno::INVAL);
    }
    if attrs.uid.is_some() || attrs.gid.is_some() {
        let (uid, gid) = (attrs.uid.map(Uid::from_raw), attrs.gid.map(Gid::from_raw));
        rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
    }
    if let Some(mode) = attrs.mode {
        microsandbox_sys::file::chmod(fd, mode)?;
    }
    if attrs.atime.is_some() || attrs.mtime.is_some() {
        let or_omit = |seconds: Option<i64>, nanos| {
            seconds.map_or(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, |seconds| time(seconds, nanos))
        };
        let times = Timestamps {
            last_access: or_omit(attrs.atime, 0),
            last_modification: or_omit(attrs.mtime, attrs.mtime_nanos.unwrap_or(0)),
        };
        rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH)?;
    }
    Ok(())
}

/// Bytes of the names, and of one value, that are copied.
const MAX_LIST: usize = 64 << 10;

/// Copies the attributes that programs set: those of users, and access lists. A file system without them has none, which is
/// no error, as for `cp --preserve`.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    if matches!(rustix::fs::flistxattr_query(from), Ok(0) | Err(_)) {
        return;
    }
    let mut names = vec![0; MAX_LIST];
    let Ok(count) = rustix::fs::flistxattr(from, &mut names[..]) else { return };
    let mut value = vec![0; MAX_LIST];
    for name in names[..count].split(|&byte| byte == 0) {
        if (is_of_programs(name) || name.starts_with(b"system.posix_acl_"))
            && let Ok(count) = rustix::fs::fgetxattr(from, name, &mut value[..])
        {
            let _ = rustix::fs::fsetxattr(to, name, &value[..count], rustix::fs::XattrFlags::empty());
        }
    }
}
