//! Processes: clone, fork, exec, signals, exit.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::process::{Pid, WaitOptions};

use crate::{check, last_error, signal};

/// `CLONE_INTO_CGROUP` of `linux/sched.h`; the constant of the libc crate is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a clone this process is.
pub enum Cloned {
    Child,
    /// The parent of this child.
    Parent {
        pid: i32,
        pidfd: OwnedFd,
    },
}

/// `clone3` without shared memory: the child is a copy of this process, which must have one thread only. `cgroup` is
/// the directory of a v2 control group that the child starts in.
pub fn clone_child(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero clone_args is a valid value of this plain structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child runs on its own copy of the stack and heap, as after fork. The process has one
    // thread, so no lock can be held by a thread that does not exist in the child. `args` and `pidfd` outlive the call.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel stored a new descriptor there because CLONE_PIDFD was set and the call succeeded.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: pid as i32, pidfd })
}

/// Splits this process, which must have one thread only: true in the child.
pub fn fork() -> Result<bool> {
    // SAFETY: with one thread no lock can be held by another, so the child may do everything that its parent may.
    check(unsafe { libc::fork() }).map(|pid| pid == 0)
}

/// Leaves the namespaces that `flags` name for new ones. `CLONE_FILES` and `CLONE_VM` are refused.
pub fn unshare(flags: i32) -> Result<()> {
    if flags & (libc::CLONE_FILES | libc::CLONE_VM) != 0 {
        return Err(Errno::INVAL);
    }
    // SAFETY: descriptors and memory stay shared as the rest of the program assumes (checked above).
    check(unsafe { libc::unshare(flags) })?;
    Ok(())
}

/// A C string from text that may hold a NUL (then `EINVAL`).
pub fn c_string(text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|_| Errno::INVAL)
}

/// As `execve` takes them: valid as long as the strings are.
pub(crate) fn pointers<T: AsRef<CStr>>(strings: &[T]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ref().as_ptr()).chain([ptr::null()]).collect()
}

/// Executes the program behind the descriptor with an empty environment. Returns only on failure.
pub fn exec_fd(program: impl AsFd, arguments: &[&CStr]) -> Errno {
    let (argv, envp) = (pointers(arguments), [ptr::null::<libc::c_char>()]);
    // SAFETY: all pointers are to null-terminated data that outlives the call.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    });
    result.err().unwrap_or(Errno::NOEXEC)
}

/// Becomes the program at this path, with every signal as a new program expects it. Returns only on failure.
pub fn exec_path(program: &CStr, argv: &[CString], envp: &[CString]) -> Errno {
    let (argv, envp) = (pointers(argv), pointers(envp));
    signal::block_all();
    signal::default_all();
    signal::unblock_all();
    // SAFETY: all pointers are to null-terminated data that outlives the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    last_error()
}

/// Sends any signal number, also unnamed real-time ones. A negative pid is a process group.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill touches no memory of this process.
    check(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// How a child ended: its exit code, or the signal that ended it.
pub type Ended = (Option<i32>, Option<i32>);

/// Collects `pid` if it has ended; never waits.
pub fn reap(pid: i32) -> Option<Ended> {
    let (_, status) = rustix::process::waitpid(Some(Pid::from_raw(pid)?), WaitOptions::NOHANG).ok()??;
    match status.exit_status() {
        Some(code) => Some((Some(code), None)),
        None => Some((None, status.terminating_signal())),
    }
}

/// Collects every child that has ended; true if no child is left.
pub fn is_childless() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(None) => return false,
            Ok(Some(_)) => {}
            Err(error) => return error == Errno::CHILD,
        }
    }
}

/// Ends this process; no destructor and no exit handler runs.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory.
    unsafe { libc::_exit(code) }
}
