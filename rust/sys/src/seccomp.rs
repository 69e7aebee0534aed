//! Installing a filter for system calls.

use rustix::io::{Errno, Result};

use crate::check;

/// One classic BPF instruction in the kernel's layout (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct BpfInstruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// Installs a seccomp filter for this thread. `no_new_privs` must be set.
pub fn install_filter(program: &[BpfInstruction]) -> Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let prog = libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: `BpfInstruction` has the layout of `sock_filter`; the kernel reads `len` of them and writes nothing.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &prog) })?;
    Ok(())
}
