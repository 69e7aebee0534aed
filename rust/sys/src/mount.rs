//! Attributes of mounts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Result;

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
