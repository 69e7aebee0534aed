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
    static FILE: Cell = Cell::new();
    shared(&FILE, "msb-runtime", RUNTIME)
}

/// The host-side program that runs one virtual machine.
pub fn vmm() -> MicrosandboxResult<BorrowedFd<'static>> {
    static FILE: Cell = Cell::new();
    shared(&FILE, "msb-vmm", VMM)
}

/// PID 1 of every sandbox.
pub fn agent() -> MicrosandboxResult<BorrowedFd<'static>> {
    static FILE: Cell = Cell::new();
    shared(&FILE, "msb-agent", AGENT)
}

/// Memory files of one program: the first usable one counts. The list only grows, so that no lock is needed that a fork could
/// freeze.
type Cell = OnceLock<Box<Made>>;

struct Made {
    fd: OwnedFd,
    id: FileId,
    next: Cell,
}

/// Device and inode.
type FileId = (u64, u64);

/// A daemon closes all descriptors, and the number may then be that of another file, which must not be executed.
fn shared(first: &'static Cell, name: &str, bytes: &[u8]) -> MicrosandboxResult<BorrowedFd<'static>> {
    let all = || std::iter::successors(first.get(), |made| made.next.get());
    if let Some(made) = all().find(|made| file_id(&made.fd).is_ok_and(|id| id == made.id)) {
        return Ok(made.fd.as_fd());
    }
    let fd = sealed(name, bytes, MemfdFlags::EXEC)?;
    let id = file_id(&fd)
        .map_err(|e| MicrosandboxError::Io { context: format!("look at memory file {name}"), source: e.into() })?;
    let mut made = Box::new(Made { fd, id, next: OnceLock::new() });
    loop {
        let end = all().last().map_or(first, |last| &last.next);
        match end.set(made) {
            Ok(()) => break,
            // Another thread was faster: both are kept.
            Err(ours) => made = ours,
        }
    }
    match all().find(|made| made.id == id) {
        Some(made) => Ok(made.fd.as_fd()),
        None => Err(MicrosandboxError::Runtime(format!("memory file {name} vanished"))),
    }
}

fn file_id(fd: &OwnedFd) -> rustix::io::Result<FileId> {
    rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
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
