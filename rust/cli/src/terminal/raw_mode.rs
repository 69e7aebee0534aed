//! The user's terminal: raw mode that always ends, its size, and the keys that let go of it.

use std::os::fd::BorrowedFd;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

/// Rows and columns when there is no terminal to ask.
pub const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// Raw mode from its making to its end, by whichever path that comes.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Keys reach the guest as they are typed; Ctrl-C is a byte, not a signal.
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
        // Nobody is left to be told when this fails.
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

/// Whether this process may read its terminal without being stopped for it (a background job may not). One that does not
/// control our session, as under setsid(1), stops nobody.
pub fn is_foreground() -> bool {
    tcgetpgrp(stdin()).map_or(true, |group| group == rustix::process::getpgrp())
}

/// Rows and columns, of whichever standard stream is a terminal.
pub fn size() -> Option<(u16, u16)> {
    [rustix::stdio::stdout(), stdin(), rustix::stdio::stderr()]
        .into_iter()
        .find_map(|fd| tcgetwinsize(fd).ok())
        .filter(|size| size.ws_row > 0 && size.ws_col > 0)
        .map(|size| (size.ws_row, size.ws_col))
}
