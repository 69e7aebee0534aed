//! Reports to the SDK: JSON lines on the report descriptor.

use microsandbox_contract::Report;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// The write end of the report pipe. Once the reader is gone, reports are discarded.
pub struct Reporter {
    pipe: Option<OwnedFd>,
}

impl Reporter {
    pub fn new(pipe: Option<OwnedFd>) -> Reporter {
        Reporter { pipe }
    }

    pub fn send(&mut self, report: &Report) {
        let Some(pipe) = &self.pipe else { return };
        // Reports are plain data; serializing them cannot fail.
        let mut line = serde_json::to_vec(report).unwrap_or_default();
        line.push(b'\n');
        let mut rest = &line[..];
        while !rest.is_empty() {
            match rustix::io::write(pipe, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.pipe = None;
                    return;
                }
            }
        }
    }

    /// No more reports follow.
    pub fn close(&mut self) {
        self.pipe = None;
    }
}
