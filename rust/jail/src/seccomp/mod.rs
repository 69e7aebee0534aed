//! The system call filters of a sandbox, of a monitor, and of the runtime's own processes. The tables are `table.rs`,
//! `monitor_table.rs` and `worker_tables.rs`; `build.rs` compiles them.

use rustix::io::Errno;

use microsandbox_sys::seccomp::{BpfInstruction, install_filter};

include!(concat!(env!("OUT_DIR"), "/seccomp.rs"));

/// Installs the filter for this process and everything it will start. `no_new_privs` must be set.
pub fn install() -> Result<(), Errno> {
    for program in [&BY_NUMBER[..], &FAMILY[..], &REFUSE[..]] {
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

/// What a supervisor adds once its agent is ready: from then on it reads what a guest wrote. `no_new_privs` must be set.
pub fn confine_supervisor() -> Result<(), Errno> {
    // The other way round the second could not be installed.
    install_filter(&WORKER_REFUSE)?;
    install_filter(&SUPERVISOR)
}

/// What an unpacker adds before it reads its archive, and before it starts a thread. `no_new_privs` must be set.
pub fn confine_unpacker() -> Result<(), Errno> {
    install_filter(&WORKER_REFUSE)?;
    install_filter(&UNPACKER)
}
