//! The streams of one invocation, and their properties.
//!
//! Results go to standard output, everything else to standard error. Tests pass their own streams.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use microsandbox_core::names;
use rustix::event::{PollFd, PollFlags, poll};

use crate::output::failure::{Failure, Outcome};

/// A stream that a writing thread may share.
pub type Sink = Arc<Mutex<dyn Write + Send>>;

/// Source of the guest's standard input.
#[derive(Debug, Clone)]
pub enum Input {
    /// The standard input of this process.
    Host,
    /// A fixed text (tests).
    Bytes(Bytes),
}

/// Standard streams and their properties.
pub struct Console {
    pub input: Input,
    pub out: Sink,
    pub err: Sink,
    pub in_is_terminal: bool,
    pub out_is_terminal: bool,
    pub err_is_terminal: bool,
    /// `NO_COLOR` is unset, `TERM` is not `dumb`.
    pub may_color: bool,
}

impl Console {
    /// The standard streams of this process.
    pub fn host() -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Console {
            input: Input::Host,
            out: Arc::new(Mutex::new(HostStream(rustix::stdio::stdout()))),
            err: Arc::new(Mutex::new(HostStream(rustix::stdio::stderr()))),
            in_is_terminal: rustix::termios::isatty(rustix::stdio::stdin()),
            out_is_terminal: rustix::termios::isatty(rustix::stdio::stdout()),
            err_is_terminal: rustix::termios::isatty(rustix::stdio::stderr()),
            may_color: !is_set("NO_COLOR") && !dumb,
        }
    }

    /// The same streams for another owner.
    pub fn share(&self) -> Self {
        Console { input: self.input.clone(), out: self.out.clone(), err: self.err.clone(), ..*self }
    }

    /// A result: `text` unchanged.
    pub fn print(&self, text: &str) -> Outcome<()> {
        self.print_bytes(text.as_bytes())
    }

    /// A result: one line.
    pub fn line(&self, text: &str) -> Outcome<()> {
        self.print(&format!("{text}\n"))
    }

    /// A result that may be other than text.
    pub fn print_bytes(&self, data: &[u8]) -> Outcome<()> {
        let mut out = lock(&self.out);
        out.write_all(data).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
    }

    /// A remark on standard error. A failure to write it is ignored: there is no other place to report it.
    pub fn note(&self, text: &str) {
        let mut err = lock(&self.err);
        let _ = err.write_all(format!("{text}\n").as_bytes()).and_then(|()| err.flush());
    }

    /// Whether results may be coloured.
    pub fn colors(&self) -> bool {
        self.may_color && self.out_is_terminal
    }
}

/// Locks the stream, also after a panic of another writer: a stream has no invariant that a panic could break.
pub fn lock(sink: &Sink) -> MutexGuard<'_, dyn Write + Send + 'static> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An unbuffered standard stream: written data is out even if the process is killed next.
struct HostStream(BorrowedFd<'static>);

impl Write for HostStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(self.0, data) {
                Ok(written) => return Ok(written),
                Err(rustix::io::Errno::INTR) => {}
                // Another process that shares this stream made it non-blocking.
                Err(rustix::io::Errno::AGAIN) => {
                    let mut fds = [PollFd::new(&self.0, PollFlags::OUT)];
                    let _ = poll(&mut fds, None);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Untrusted text made safe for a terminal: control characters other than line ends and tabs are escaped, so that a
/// name or a message cannot move the cursor or set the title. Bytes of names that are not UTF-8 are shown as `\xff`.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in names::shown(text).chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
