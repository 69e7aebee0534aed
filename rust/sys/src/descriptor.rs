//! Descriptors by number, and reads into a buffer.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use bytes::BytesMut;
use rustix::io::Result;

use crate::check;

/// Takes over a descriptor that was inherited under an agreed number and makes it close-on-exec. `EBADF` if the number
/// is not open. Once per number, before this process opens a descriptor of its own.
pub fn inherit(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_SETFD sets a flag of a descriptor number and touches no memory; EBADF is reported.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the number is open (checked above) and by contract no other owner of the number exists in this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Places `source` at descriptor number `target`, without close-on-exec.
pub fn place(source: impl AsFd, target: RawFd) -> Result<()> {
    let source = source.as_fd().as_raw_fd();
    if source == target {
        // SAFETY: F_SETFD on an open descriptor touches no memory.
        check(unsafe { libc::fcntl(source, libc::F_SETFD, 0) })?;
        return Ok(());
    }
    // SAFETY: called only in a child that is about to execute another program; an owner of `target` in this process is
    // never dropped, because the process image is replaced.
    check(unsafe { libc::dup2(source, target) })?;
    Ok(())
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on. Only at the start of `main`, before this process owns any of them.
pub fn close_from(first: u32) -> Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> Result<()> {
    // SAFETY: touches no memory. Descriptors are closed only for `close_from`, whose callers own none of them.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) })?;
    Ok(())
}

/// Closes every descriptor from 3 to 63 that an exec would leave open. Only in a child that uses none of them.
pub fn close_inherited() {
    for number in 3..64 {
        // SAFETY: F_GETFD reads a flag of a descriptor number and touches no memory.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: every descriptor that this program opens is close-on-exec, so no owner of this number exists.
            unsafe { libc::close(number) };
        }
    }
}

/// Appends what one `read` returns to `buffer`, at most `max` bytes. The room is the caller's to reserve.
pub fn read_append(source: impl AsFd, buffer: &mut BytesMut, max: usize) -> Result<usize> {
    let spare = buffer.spare_capacity_mut();
    let room = spare.len().min(max);
    let (filled, _) = rustix::io::read(source, &mut spare[..room])?;
    let count = filled.len();
    // SAFETY: the kernel has initialised the `count` bytes of the spare capacity that follow the old length.
    unsafe { buffer.set_len(buffer.len() + count) };
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_append_keeps_what_is_there_and_stops_at_the_maximum() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&write, b"abcdef").unwrap();
        let mut buffer = BytesMut::from(&b"__"[..]);
        buffer.reserve(100);
        assert_eq!(read_append(&read, &mut buffer, 4), Ok(4));
        assert_eq!(&buffer[..], b"__abcd");
        assert_eq!(read_append(&read, &mut buffer, 100), Ok(2));
        assert_eq!(&buffer[..], b"__abcdef");
    }

    #[test]
    fn inherit_refuses_a_number_that_is_not_open() {
        assert_eq!(inherit(999_999).unwrap_err(), rustix::io::Errno::BADF);
    }
}
