//! The embedded programs, as sealed memory files: executed from memory, never from a path that a sandbox could
//! reach or rewrite (CVE-2019-5736).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, SealFlags};

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

static RUNTIME: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/msb-runtime"));
static VMM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/msb-vmm"));
static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/msb-agent"));

/// The host-side program that boots and supervises one sandbox.
pub fn runtime() -> MicrosandboxResult<BorrowedFd<'static>> {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    shared(&FILE, "msb-runtime", RUNTIME)
}

/// The host-side program that runs one virtual machine.
pub fn vmm() -> MicrosandboxResult<BorrowedFd<'static>> {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    shared(&FILE, "msb-vmm", VMM)
}

/// PID 1 of every sandbox.
pub fn agent() -> MicrosandboxResult<BorrowedFd<'static>> {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    shared(&FILE, "msb-agent", AGENT)
}

fn shared(cell: &'static OnceLock<OwnedFd>, name: &str, bytes: &[u8]) -> MicrosandboxResult<BorrowedFd<'static>> {
    if cell.get().is_none() {
        let made = sealed(name, bytes, MemfdFlags::EXEC)?;
        // Losing the race only means that this copy is dropped.
        let _ = cell.set(made);
    }
    match cell.get() {
        Some(fd) => Ok(fd.as_fd()),
        None => Err(MicrosandboxError::Runtime(format!("memory file {name} vanished"))),
    }
}

/// A memory file with the content `bytes`, sealed: no process can change the content.
pub fn sealed(name: &str, bytes: &[u8], extra: MemfdFlags) -> MicrosandboxResult<OwnedFd> {
    let fail = |source: std::io::Error| MicrosandboxError::Io { context: format!("create memory file {name}"), source };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | extra) {
        // Kernels before 6.3 do not know the flag and need none.
        Err(rustix::io::Errno::INVAL) if !extra.is_empty() => rustix::fs::memfd_create(name, flags),
        other => other,
    }
    .map_err(|e| fail(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(fail)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(|e| fail(e.into()))?;
    Ok(file.into())
}
