//! Signals as a stream; the earlier handlers are restored at the end.
//!
//! This runs inside a Python process, which has handlers of its own. A registration that cannot be undone (tokio's)
//! would disable Ctrl-C after [`crate::main`] returned. Therefore: a handler that writes the number to a pipe, and
//! `sigaction` before and after.

#![allow(unsafe_code, reason = "sigaction has no safe wrapper in the crates we use")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::Receiver;

/// The caught signals: requests to exit, and the change of the window size.
const CAUGHT: [libc::c_int; 5] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGWINCH];

/// Writing end for the handler; -1 without a listener.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);
static IN_USE: AtomicBool = AtomicBool::new(false);
/// Created once and never closed: a handler may run on another thread at any moment.
static PIPE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();

/// Catches signals from construction to drop.
pub struct Signals {
    /// Absent if another invocation in this process listens already: this instance then receives nothing.
    reader: Option<Receiver>,
    saved: Vec<(libc::c_int, libc::sigaction)>,
}

impl Signals {
    /// Must be called inside the tokio runtime that reads.
    pub fn listen() -> io::Result<Signals> {
        if IN_USE.swap(true, Ordering::AcqRel) {
            return Ok(Signals { reader: None, saved: Vec::new() });
        }
        // From here on `drop` resets `IN_USE`, also if a step below fails.
        let mut signals = Signals { reader: None, saved: Vec::new() };
        let (read, write) = match PIPE.get() {
            Some(pipe) => pipe,
            None => {
                let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                PIPE.get_or_init(|| pipe)
            }
        };
        drain(read);
        signals.reader = Some(Receiver::from_owned_fd(read.try_clone()?)?);
        WRITE_END.store(write.as_raw_fd(), Ordering::Release);
        for signal in CAUGHT {
            if let Some(previous) = catch(signal)? {
                signals.saved.push((signal, previous));
            }
        }
        Ok(signals)
    }

    /// The next signal. Cancel safe. Never returns if this instance receives nothing.
    pub async fn next(&self) -> i32 {
        let Some(reader) = &self.reader else { return std::future::pending().await };
        loop {
            // The writing end is never closed. On any failure, receiving no signals is safe: their default action is
            // not restored, but the verb still ends when its work is done.
            if reader.readable().await.is_err() {
                return std::future::pending().await;
            }
            let mut byte = [0u8; 1];
            match reader.try_read(&mut byte) {
                Ok(1) => return i32::from(byte[0]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Ok(_) | Err(_) => return std::future::pending().await,
            }
        }
    }

    /// The next signal that asks for an exit.
    pub async fn ending(&self) -> i32 {
        loop {
            let signal = self.next().await;
            if signal != libc::SIGWINCH {
                return signal;
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let owner = self.reader.is_some();
        for (signal, previous) in self.saved.drain(..) {
            // SAFETY: `previous` was reported by sigaction for this signal and has not been changed.
            unsafe { libc::sigaction(signal, &previous, std::ptr::null_mut()) };
        }
        if owner {
            WRITE_END.store(-1, Ordering::Release);
            IN_USE.store(false, Ordering::Release);
        }
    }
}

fn drain(read: &OwnedFd) {
    let mut bytes = [0u8; 64];
    while matches!(rustix::io::read(read, &mut bytes), Ok(n) if n > 0) {}
}

/// Installs the handler. `None` if the parent process ignores the signal (`nohup`, a background job): it stays ignored.
fn catch(signal: libc::c_int) -> io::Result<Option<libc::sigaction>> {
    // SAFETY: an all-zero sigaction is a valid value of that plain C structure.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only queries; `previous` is valid for writing.
    if unsafe { libc::sigaction(signal, std::ptr::null(), &mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if previous.sa_sigaction == libc::SIG_IGN {
        return Ok(None);
    }
    // SAFETY: as above; the fields that matter are set next.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is complete and its handler is async-signal-safe.
    if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Some(previous))
}

/// Only async-signal-safe calls; errno is restored for the interrupted code.
extern "C" fn on_signal(signal: libc::c_int) {
    let fd = WRITE_END.load(Ordering::Acquire);
    if fd < 0 {
        return;
    }
    let byte = signal as u8;
    // SAFETY: write(2) is async-signal-safe; `fd` is the pipe in `PIPE`, which is never closed; `byte` outlives the
    // call. A full pipe, with thousands of unread signals, drops the signal.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(fd, std::ptr::from_ref(&byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler_of(signal: libc::c_int) -> usize {
        // SAFETY: an all-zero sigaction is a valid value of that plain C structure.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: a null new action only queries; `action` is valid for writing.
        assert_eq!(unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) }, 0);
        action.sa_sigaction
    }

    /// One test, because handlers belong to the whole process.
    #[test]
    fn handlers_are_restored_and_signals_received_each_time() {
        let before = CAUGHT.map(handler_of);
        for _ in 0..3 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let signals = Signals::listen().unwrap();
                let second = Signals::listen().unwrap();
                assert!(CAUGHT.map(handler_of).iter().zip(before).any(|(now, before)| *now != before));
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::WINCH).unwrap();
                let received = tokio::time::timeout(std::time::Duration::from_secs(10), signals.next()).await;
                assert_eq!(received, Ok(libc::SIGWINCH));
                // A second listener receives nothing, and its drop changes nothing.
                drop(second);
                assert!(CAUGHT.map(handler_of).iter().zip(before).any(|(now, before)| *now != before));
            });
            assert_eq!(CAUGHT.map(handler_of), before);
        }
    }
}
