//! Processes: clone, fork, exec, signals, exit.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::process::{DumpableBehavior, Pid, WaitOptions};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet};

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

/// The user and group for whom the kernel counts what a new user namespace holds, and who own it.
pub type Creator = Option<(u32, u32)>;

/// Whether this process may be the [`Creator`] that it likes: root of a container may lack a capability for it.
pub fn may_choose_creator() -> bool {
    const NEEDED: CapabilitySet = CapabilitySet::SETPCAP.union(CapabilitySet::SETUID).union(CapabilitySet::SETGID);
    rustix::thread::capabilities(None).is_ok_and(|own| own.effective.contains(NEEDED))
}

/// [`clone_child`] with these effective ids during the call: they are what the kernel takes for the creator of a user namespace
/// (`kernel/user_namespace.c`). Files are reached as before, and every capability stays. Only where
/// [`may_choose_creator`] says so.
pub fn clone_child_as(creator: Creator, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    let Some(creator) = creator else { return clone_child(flags, cgroup) };
    let acting = Acting::start(creator)?;
    let cloned = clone_child(flags, cgroup);
    if !matches!(cloned, Ok(Cloned::Child)) {
        acting.end()?;
    }
    // The child has the capabilities of its namespace, and here only what the ids of its files, which are the parent's, allow.
    cloned
}

/// A user namespace whose only process has ended: `work` gets its number, while it has not been collected and its entries in
/// `/proc` are there. Not a copy of this process: it runs on this process's memory, which waits until it has ended.
pub fn with_user_namespace<T>(creator: Creator, work: impl FnOnce(i32) -> T) -> Result<T> {
    #[repr(align(16))]
    struct Stack([u8; 4096]);
    extern "C" fn end(_: *mut libc::c_void) -> libc::c_int {
        0
    }
    let acting = creator.map(Acting::start).transpose()?;
    let mut stack = Stack([0; 4096]);
    let flags = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child runs `end`, which does nothing, on a stack of its own that outlives it: CLONE_VFORK lets this process
    // continue only when the child is gone. The pointer is the end of the array; stacks grow down.
    let cloned = check(unsafe { libc::clone(end, stack.0.as_mut_ptr_range().end.cast(), flags, ptr::null_mut()) });
    if let Some(acting) = acting {
        acting.end()?;
    }
    let pid = cloned?;
    let result = work(pid);
    rustix::io::retry_on_intr(|| rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty()))?;
    Ok(result)
}

/// While this thread acts with the effective ids of another user.
struct Acting {
    own: (u32, u32),
    before: CapabilitiesSecureBits,
}

impl Acting {
    fn start(creator: (u32, u32)) -> Result<Acting> {
        let before = rustix::thread::capabilities_secure_bits()?;
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        rustix::thread::set_capabilities_secure_bits(before | CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
        set_effective_ids(creator, own)?;
        Ok(Acting { own, before })
    }

    fn end(self) -> Result<()> {
        set_effective_ids(self.own, self.own)?;
        rustix::thread::set_capabilities_secure_bits(self.before)?;
        // A process that changed its ids is not dumpable.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
    }
}

/// Of this thread: user and group that it acts as, and those that it reaches files as.
fn set_effective_ids(acts: (u32, u32), files: (u32, u32)) -> Result<()> {
    const SAME: u32 = u32::MAX;
    // SAFETY: plain numbers; the calls themselves, unlike the C library's functions, are for this thread only.
    unsafe {
        check(libc::syscall(libc::SYS_setresgid, SAME, acts.1, SAME))?;
        check(libc::syscall(libc::SYS_setresuid, SAME, acts.0, SAME))?;
        // The answer is the one before, whether or not it was changed.
        libc::syscall(libc::SYS_setfsgid, files.1);
        libc::syscall(libc::SYS_setfsuid, files.0);
    }
    Ok(())
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
