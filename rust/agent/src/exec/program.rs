//! Which file a program name means, and what exactly was wrong with it.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use microsandbox_protocol::names;
use microsandbox_sys::spawn::SpawnError;
use rustix::fs::{Mode, OFlags};

use crate::files::root::Root;

use super::c_word;
use super::failure::{Failure, FailureKind, quote};

/// More directories than this on a `PATH` are not searched.
const MAX_CANDIDATES: usize = 256;

/// The paths to try: a name with a slash stands for itself, others are looked up on `path`.
pub fn candidates(program: &str, path: &str) -> Result<Vec<CString>, Failure> {
    let bad = |text: &str| Failure::new(FailureKind::BadArgs, "exec", text);
    if program.is_empty() {
        return Err(bad("the program name is empty"));
    }
    let own = |text: String| c_word(&text).map_err(|_| bad("the program name or PATH holds a NUL byte"));
    if program.contains('/') {
        return Ok(vec![own(program.to_owned())?]);
    }
    let dirs = path.split(':').take(MAX_CANDIDATES);
    dirs.map(|dir| own(if dir.is_empty() { program.to_owned() } else { format!("{dir}/{program}") })).collect()
}

/// Explains an `execve` that failed.
pub fn explain(root: &Root, cwd: BorrowedFd<'_>, program: &str, tried: &[CString], error: SpawnError) -> Failure {
    let path = tried.get(error.index).map_or(program.into(), |tried| names::to_text(tried.to_bytes()));
    let (name, path) = (quote(&path), &*path);
    let fail = |kind, text: &str| Failure::with_errno(kind, "exec", error.errno, text);
    match error.errno {
        libc::ENOENT | libc::ENOTDIR => match head(root, cwd, path) {
            Some(head) => fail(FailureKind::NotFound, &format!("{name} exists, but {}", missing_interpreter(&head))),
            None if program.contains('/') => fail(FailureKind::NotFound, &format!("program {name}")),
            None => fail(FailureKind::NotFound, &format!("program {} is on no directory of PATH", quote(program))),
        },
        libc::EACCES | libc::EPERM => {
            fail(FailureKind::PermissionDenied, &format!("{name} may not be executed by this user"))
        }
        libc::ENOEXEC => fail(FailureKind::NotExecutable, &format!("{name} {}", bad_format(head(root, cwd, path)))),
        libc::ELIBBAD | libc::EINVAL | libc::EISDIR => {
            fail(FailureKind::NotExecutable, &format!("{name} is no usable executable"))
        }
        libc::E2BIG => fail(FailureKind::BadArgs, "arguments and environment are longer than the kernel takes"),
        libc::ENOMEM => fail(FailureKind::OutOfMemory, &format!("{name} could not be loaded")),
        libc::EAGAIN => fail(FailureKind::ResourceLimit, &format!("{name}: the user's process limit is reached")),
        libc::ENAMETOOLONG | libc::ELOOP => fail(FailureKind::NotFound, &format!("program {name}")),
        _ => fail(FailureKind::Other, &format!("{name} could not be executed")),
    }
}

/// The first bytes of the file, if there is one.
fn head(root: &Root, cwd: BorrowedFd<'_>, path: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = root.open_from(cwd, path, flags, Mode::empty()).ok()?;
    let mut head = vec![0; 256];
    let len = rustix::io::read(&file, &mut head[..]).unwrap_or(0);
    head.truncate(len);
    Some(head)
}

fn missing_interpreter(head: &[u8]) -> String {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
        let text = String::from_utf8_lossy(line);
        let name = text.split_whitespace().next().unwrap_or("").to_owned();
        let hint = if name.ends_with('\r') || text.ends_with('\r') { " (the line ends with CR)" } else { "" };
        return format!("its interpreter {} does not{hint}", quote(&name));
    }
    if head.starts_with(b"\x7fELF") {
        return "its ELF interpreter (dynamic loader) does not".to_owned();
    }
    "something it needs does not".to_owned()
}

fn bad_format(head: Option<Vec<u8>>) -> String {
    let Some(head) = head else { return "has an unknown executable format".to_owned() };
    if head.is_empty() {
        return "is empty".to_owned();
    }
    if !head.starts_with(b"\x7fELF") {
        return "is neither an ELF program nor a script with a #! line".to_owned();
    }
    match head.get(18..20) {
        Some(&[low, high]) => {
            let machine = u16::from_le_bytes([low, high]);
            format!(
                "is an ELF program for {}, not for this machine ({})",
                machine_name(machine),
                std::env::consts::ARCH
            )
        }
        _ => "is a truncated ELF program".to_owned(),
    }
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "i386".to_owned(),
        8 => "mips".to_owned(),
        21 => "ppc64".to_owned(),
        22 => "s390x".to_owned(),
        40 => "arm".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv64".to_owned(),
        other => format!("machine type {other}"),
    }
}
