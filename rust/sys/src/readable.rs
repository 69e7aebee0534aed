//! Waiting for a descriptor in the async runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `fd` for reading. Must be called inside a runtime.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, returns the same number at every call, and is closed by nothing but its drop, which
    // the `AsyncFd` that owns it runs after the deregistration.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
