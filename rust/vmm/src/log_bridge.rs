//! Messages of libkrun's crates as lines on standard error: the runtime keeps them in `kernel.log`.
//!
//! Errors, and why a processor stopped for good (a triple fault, say), which libkrun calls information.

use std::io::Write as _;

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let most = if metadata.target().ends_with("::vstate") { log::Level::Info } else { log::Level::Error };
        metadata.level() <= most
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            // One write per line; a pipe without a reader is no reason to exit.
            let line = format!("msb-vmm: {}: {}\n", record.level().as_str().to_lowercase(), record.args());
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Writes every later message to standard error.
pub fn to_stderr() {
    // Fails only when called twice.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}
