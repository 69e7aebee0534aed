//! Attributes of a file that a copy or an archive brings: what is taken over of them, the same for both.

use std::os::fd::AsFd;

use microsandbox_sys::file::chmod;
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

/// Larger values have other meanings for the kernel.
const MOST_NANOS: u32 = 999_999_999;

/// Whether an extended attribute may come along: those of programs. Those of the overlay would change how a tree is shown, the
/// others need rights that a sandbox never has.
pub fn is_of_programs(name: &[u8]) -> bool {
    name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}

/// Sets a mode, without its set-id bits where this process may not set them.
pub fn set_mode(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    match chmod(&fd, mode) {
        Err(Errno::PERM) if mode & 0o6000 != 0 => chmod(&fd, mode & 0o1777),
        other => other,
    }
}

/// A time, for the kernel.
pub fn time(seconds: i64, nanos: u32) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos.min(MOST_NANOS)) }
}

/// This modification time; that of the last access stays.
pub fn modified((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: time(seconds, nanos) }
}
