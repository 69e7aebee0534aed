//! Calls on files.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::check;

/// Sets the mode of what the descriptor refers to; also of an `O_PATH` descriptor, which plain `fchmod` refuses.
pub fn chmod(fd: impl AsFd, mode: u32) -> Result<()> {
    let fd = fd.as_fd();
    let plain = Mode::from_raw_mode(mode & 0o7777);
    match rustix::fs::fchmod(fd, plain) {
        Err(Errno::BADF) => {}
        other => return other,
    }
    match chmod_path_fd(fd, mode) {
        Err(Errno::NOSYS) => {}
        other => return other,
    }
    // Before Linux 6.6 the descriptor's own entry in procfs is the only way: it leads to exactly the same object.
    rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), plain)
}

/// `fchmodat2` on the object behind an `O_PATH` descriptor (Linux 6.6).
fn chmod_path_fd(fd: impl AsFd, mode: u32) -> Result<()> {
    const SYS_FCHMODAT2: libc::c_long = 452;
    let (fd, mode) = (fd.as_fd().as_raw_fd(), mode & 0o7777);
    // SAFETY: the kernel reads an empty NUL-terminated path that is static; the rest are plain integers.
    check(unsafe { libc::syscall(SYS_FCHMODAT2, fd, c"".as_ptr(), mode, libc::AT_EMPTY_PATH) })?;
    Ok(())
}

/// Locks one byte of a file for whoever holds this open file description; false if another one holds it. The kernel frees it
/// when the last descriptor is closed.
pub fn lock_byte(file: impl AsFd, at: u32) -> Result<bool> {
    // SAFETY: an all-zero `flock` is a valid value of this plain structure; the kernel wants its `l_pid` to be 0.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = at.into();
    lock.l_len = 1;
    // SAFETY: the kernel reads the structure, which outlives the call.
    match check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reports to the monitor of this virtual machine with which status to exit: an ioctl of the monitor's file system (see
/// libkrun's `AugmentFs`). Any other root file system refuses the request, and the status stays as it is.
pub fn set_machine_status(code: u8) {
    const EXIT_CODE: libc::Ioctl = 0x7602;
    if let Ok(root) = rustix::fs::open("/", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        // SAFETY: the request passes its argument as a number; the kernel touches no memory of this process.
        unsafe { libc::ioctl(root.as_raw_fd(), EXIT_CODE, libc::c_ulong::from(code)) };
    }
}
