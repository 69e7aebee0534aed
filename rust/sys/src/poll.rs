//! `poll(2)` on descriptor numbers: the set is kept between the rounds of a loop, which borrowed descriptors forbid.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

use crate::check;

/// Waits until a descriptor of the set is ready; an interrupted wait counts as none ready.
pub fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> Result<usize> {
    // SAFETY: pointer and length describe one live slice, which the kernel only writes `revents` of. A number that is
    // not open is reported in `revents`.
    match check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) }) {
        Ok(count) => Ok(count as usize),
        Err(Errno::INTR) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Every writer of this pipe, or every program on this terminal, has closed its end.
pub fn hung_up(fd: impl AsFd) -> bool {
    let mut set = [libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: 0, revents: 0 }];
    poll(&mut set, 0).is_ok() && set[0].revents & libc::POLLHUP != 0
}
