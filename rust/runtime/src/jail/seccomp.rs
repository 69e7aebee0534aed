//! The system call filter of a sandbox. The table is `seccomp_table.rs`; `build.rs` compiles it.

use rustix::io::Errno;

use crate::syscall::{BpfInstruction, install_filter};

include!(concat!(env!("OUT_DIR"), "/seccomp.rs"));

/// Installs the filter for this process and everything it will start. `no_new_privs` must be set.
pub fn install() -> Result<(), Errno> {
    for program in [&ALLOW[..], &FAMILY[..], &REFUSE[..]] {
        install_filter(program)?;
    }
    Ok(())
}

/// The filter of a virtual machine monitor.
pub fn install_for_monitor() -> Result<(), Errno> {
    Ok(())
}
