//! The last walls before the guest runs: from here on the monitor reads what a hostile kernel wrote.

use microsandbox_contract::monitor::path;
use microsandbox_jail::{landlock, seccomp};

/// Files first, while the calls for it are still allowed; then the calls themselves. Threads made later inherit both.
pub fn now() -> Result<(), String> {
    landlock::confine_monitor(path::ROOT, path::SOCKETS, path::DEVICES)
        .map_err(|error| format!("Landlock: {error}"))?;
    seccomp::confine_monitor().map_err(|error| format!("system call filter: {error}"))
}
