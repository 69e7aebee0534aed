//! Signals: masks, default actions, signals as a descriptor. No handler is ever installed here.

use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Result;

use crate::check;

/// The highest signal number of Linux.
const LAST: libc::c_int = 64;

/// Blocks every signal for this thread and for the threads it starts later.
pub fn block_all() {
    change_mask(libc::SIG_SETMASK, full_set());
}

/// Unblocks every signal for this thread.
pub fn unblock_all() {
    change_mask(libc::SIG_SETMASK, set_of(&[]));
}

/// Blocks these signals for this thread.
pub fn block(signals: &[i32]) {
    change_mask(libc::SIG_BLOCK, set_of(signals));
}

/// Sets every signal to its default action. Not through the C library, which keeps 32 and 33 to itself: an inherited
/// "ignored" would reach every program.
pub fn default_all() {
    // A kernel sigaction: action, flags, restorer, mask.
    let default = [0u64; 4];
    for signal in 1..=LAST {
        let none = ptr::null_mut::<u64>();
        // SAFETY: an all-zero kernel sigaction is the default action, which runs no code of this process; the kernel
        // reads it and writes nothing. Refused for KILL and STOP.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, libc::c_long::from(signal), default.as_ptr(), none, size_of::<u64>());
        }
    }
}

/// A non-blocking descriptor that reports these signals while they are blocked.
pub fn descriptor(signals: &[i32]) -> Result<OwnedFd> {
    let set = set_of(signals);
    // SAFETY: `set` is initialised and lives until the call returns.
    let number = check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the kernel has just created this descriptor, so no other owner exists.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The signal number at the front of a `struct signalfd_siginfo`, if there is a whole one.
pub fn number(record: &[u8]) -> Option<i32> {
    let number: [u8; 4] = record.get(..4)?.try_into().ok()?;
    Some(i32::from_ne_bytes(number))
}

fn change_mask(how: libc::c_int, set: libc::sigset_t) {
    // SAFETY: `set` is initialised and lives until the call returns; a mask runs no code. It fails only for an unknown
    // `how`, and the two that are passed here are known.
    unsafe { libc::sigprocmask(how, &set, ptr::null_mut()) };
}

pub(crate) fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: an all-zero sigset_t is valid storage; sigemptyset initialises it before sigaddset reads it. A number
    // that is no signal is refused and leaves the set as it is.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    }
}

pub(crate) fn full_set() -> libc::sigset_t {
    // SAFETY: an all-zero sigset_t is valid storage, which sigfillset initialises.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        set
    }
}
