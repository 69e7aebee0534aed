//! Attributes of mounts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

use crate::check;

/// `mount_setattr` on the mount behind `fd`. With `userns` the mount maps ids as that user namespace does.
pub fn set_attributes(
    fd: impl AsFd,
    recursive: bool,
    set: u64,
    propagation: u64,
    userns: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: set | if userns.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 },
        attr_clr: 0,
        propagation,
        userns_fd: userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path is an empty C string, `attr` a valid structure of the size given; both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attr,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// `listmount(2)` has the same number on every architecture.
const SYS_LISTMOUNT: libc::c_long = 458;
/// `STATX_MNT_ID_UNIQUE` of `linux/stat.h`.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// `struct mnt_id_req` of `linux/mount.h`, first version.
#[repr(C)]
struct MountRequest {
    size: u32,
    spare: u32,
    mount: u64,
    after: u64,
}

/// Whether other mounts are attached beneath the attached mount behind `fd`; none where the kernel does not answer (before 6.8).
pub fn has_children(fd: impl AsFd) -> Result<Option<bool>> {
    // SAFETY: an all-zero statx is a valid value of this plain structure.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: path is an empty C string, `found` a structure of the size that the call fills; both outlive the call.
    check(unsafe { libc::statx(number, c"".as_ptr(), libc::AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &mut found) })?;
    if found.stx_mask & STATX_MNT_ID_UNIQUE == 0 {
        return Ok(None);
    }
    let request = MountRequest { size: size_of::<MountRequest>() as u32, spare: 0, mount: found.stx_mnt_id, after: 0 };
    let mut first = [0_u64; 1];
    // SAFETY: the request says its own size, and the kernel writes at most the one number that `first` has room for.
    match check(unsafe { libc::syscall(SYS_LISTMOUNT, &request, first.as_mut_ptr(), first.len(), 0) }) {
        Ok(count) => Ok(Some(count > 0)),
        Err(Errno::NOSYS | Errno::PERM) => Ok(None),
        Err(error) => Err(error),
    }
}
