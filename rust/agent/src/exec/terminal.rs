//! Pseudo terminals, opened through the master's own descriptor so that no path inside the sandbox can redirect them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::files::root::Root;

use super::failure::{Failure, FailureKind};
use super::launch;

/// A fresh pair; both ends are close-on-exec, the master is non-blocking.
pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Opens a terminal of the given size for `uid`.
pub fn open(root: &Root, rows: u16, cols: u16, uid: u32) -> Result<Terminal, Failure> {
    let failed =
        |what: &str, error: Errno| Failure::with_errno(FailureKind::PtySetupFailed, "pty", error.raw_os_error(), what);
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let master = root.open("/dev/ptmx", flags, Mode::empty()).map_err(|e| failed("cannot open /dev/ptmx", e))?;
    rustix::pty::unlockpt(&master).map_err(|e| failed("cannot unlock the terminal", e))?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer).map_err(|e| failed("cannot open the terminal", e))?;
    set_size(&master, rows, cols).map_err(|e| failed("cannot set the terminal's size", e))?;
    launch::give(&slave, uid);
    Ok(Terminal { master, slave })
}

/// Sets the size of a terminal.
pub fn set_size(terminal: impl AsFd, rows: u16, cols: u16) -> Result<(), Errno> {
    rustix::termios::tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })
}
