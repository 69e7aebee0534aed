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

    /// A remark on standard error, made safe for a terminal. A failure to write it is ignored: there is no other place to
    /// report it.
    pub fn note(&self, text: &str) {
        self.note_styled(&printable(text));
    }

    /// As [`Console::note`], for text whose control sequences are our own.
    pub fn note_styled(&self, text: &str) {
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

/// JSON text whose strings are safe for a terminal as well: JSON itself escapes the controls below U+0020 only.
pub fn json_for_terminals(text: &str) -> String {
    use std::fmt::Write as _;
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if names::is_active(c) && c > '\u{1f}' {
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Untrusted text made safe for a terminal: control characters other than line ends and tabs, and marks of direction (Unicode
/// UAX 9), are escaped, so that a name or a message cannot move the cursor, set the title or show another order. Bytes of
/// names that are not UTF-8 are shown as `\xff`.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in names::shown(text).chars() {
        if names::is_active(c) && c != '\n' && c != '\t' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_turns_text_is_escaped() {
        assert_eq!(
            printable("a\x1b]0;t\x07b\x7f\u{9b}\u{202e}\tc\n"),
            "a\\u{1b}]0;t\\u{7}b\\u{7f}\\u{9b}\\u{202e}\tc\n"
        );
    }

    #[test]
    fn json_keeps_its_meaning_and_no_control_character() {
        let text = serde_json::to_string("\u{9b}31m \x7f \u{2066} é").unwrap();
        let shown = json_for_terminals(&text);
        assert_eq!(shown, r#""\u009b31m \u007f \u2066 é""#);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), "\u{9b}31m \x7f \u{2066} é");
    }
}
