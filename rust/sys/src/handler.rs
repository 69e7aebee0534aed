//! Signal handlers of a process that is not ours alone: each is put back when it is dropped.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Result;

use crate::check;

/// Where handlers write to; -1 while none is to be written to.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// From now on a caught signal writes its number, one byte, to this pipe. The pipe has to be non-blocking and is never
/// closed: a handler may run on another thread at any moment.
pub fn forward_to(pipe: &'static OwnedFd) {
    PIPE.store(pipe.as_raw_fd(), Ordering::Release);
}

/// From now on a caught signal has no effect.
pub fn forward_to_none() {
    PIPE.store(-1, Ordering::Release);
}

/// A caught signal. The former handler is back when this is dropped.
pub struct Caught {
    signal: i32,
    previous: libc::sigaction,
}

impl Caught {
    /// `None` when the signal is ignored, as `nohup` and background jobs have it: it stays ignored.
    pub fn new(signal: i32) -> Result<Option<Caught>> {
        let previous = current(signal)?;
        if previous.sa_sigaction == libc::SIG_IGN {
            return Ok(None);
        }
        // SAFETY: an all-zero sigaction is a valid value of this plain structure; the fields that matter are set next.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: `action` is complete and its handler is async-signal-safe.
        check(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) })?;
        Ok(Some(Caught { signal, previous }))
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        // SAFETY: `previous` is what sigaction itself reported for this signal and has not been changed.
        unsafe { libc::sigaction(self.signal, &self.previous, ptr::null_mut()) };
    }
}

/// The address of the present handler of a signal.
pub fn address_of(signal: i32) -> Result<usize> {
    current(signal).map(|action| action.sa_sigaction)
}

fn current(signal: i32) -> Result<libc::sigaction> {
    // SAFETY: an all-zero sigaction is a valid value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action the call only reports; `action` is a valid place to write to.
    check(unsafe { libc::sigaction(signal, ptr::null(), &mut action) })?;
    Ok(action)
}

/// Only async-signal-safe calls; errno is kept for the code that was interrupted.
extern "C" fn on_signal(signal: libc::c_int) {
    let pipe = PIPE.load(Ordering::Acquire);
    if pipe < 0 {
        return;
    }
    let byte = signal as u8;
    // SAFETY: write(2) is async-signal-safe; the pipe is never closed (see `forward_to`); `byte` outlives the call.
    // A full pipe loses the signal, after thousands that were not read.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(pipe, ptr::from_ref(&byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}
