//! The user's terminal: raw mode with a guaranteed end, and the window size.

use std::os::fd::BorrowedFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

/// Rows and columns where there is no terminal.
pub const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// Raw mode from construction to drop.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Each key reaches the guest immediately; Ctrl-C is a byte, not a signal.
    pub fn enter() -> std::io::Result<RawMode> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        Ok(RawMode { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A failure cannot be reported: this runs on error paths, too.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}

/// No echo of what is typed, from construction to drop.
pub struct Unseen {
    before: Termios,
}

impl Unseen {
    pub fn enter() -> std::io::Result<Unseen> {
        let before = tcgetattr(stdin())?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Drain, &unseen)?;
        Ok(Unseen { before })
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // A failure cannot be reported: this runs on error paths, too.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}

fn stdin() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}

/// Whether standard input is a terminal.
pub fn is_present() -> bool {
    rustix::termios::isatty(stdin())
}

/// Whether this process may read its terminal without being stopped by SIGTTIN, as a background job is. A terminal that
/// does not control our session, as under setsid(1), never stops the reader.
pub fn is_foreground() -> bool {
    tcgetpgrp(stdin()).map_or(true, |group| group == rustix::process::getpgrp())
}

/// Rows and columns, from the first standard stream that is a terminal.
pub fn size() -> Option<(u16, u16)> {
    [rustix::stdio::stdout(), stdin(), rustix::stdio::stderr()]
        .into_iter()
        .find_map(|fd| tcgetwinsize(fd).ok())
        .filter(|size| size.ws_row > 0 && size.ws_col > 0)
        .map(|size| (size.ws_row, size.ws_col))
}
