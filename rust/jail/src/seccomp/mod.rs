//! The system call filters of a sandbox and of a monitor. The tables are `table.rs` and
//! `monitor_table.rs`; `build.rs` compiles them.

use rustix::io::Errno;

use microsandbox_sys::seccomp::{BpfInstruction, install_filter};

include!(concat!(env!("OUT_DIR"), "/seccomp.rs"));

/// Installs the filter for this process and everything it will start. `no_new_privs` must be set.
pub fn install() -> Result<(), Errno> {
    for program in [&ALLOW[..], &FAMILY[..], &REFUSE[..]] {
        install_filter(program)?;
    }
    Ok(())
}

/// Refuses set-id bits to programs, or to the monitor that serves their files. Install this filter before the others,
/// which distinguish calls that the machine does not know from calls that it refuses.
pub fn install_mode_guard() -> Result<(), Errno> {
    install_filter(&MODE_UNSEEN)?;
    install_filter(&MODE_GUARD)
}

/// The filter that a virtual machine monitor is executed with.
pub fn install_for_monitor() -> Result<(), Errno> {
    install_filter(&MONITOR_ALLOW)
}

/// What a monitor adds once it is ready: it executes nothing and changes its walls no more.
pub fn confine_monitor() -> Result<(), Errno> {
    install_filter(&MONITOR_REFUSE)
}
