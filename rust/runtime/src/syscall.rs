//! The system calls that no safe wrapper covers. The only place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;

/// Result of a call that reports failure by `errno`.
pub type Result<T> = std::result::Result<T, Errno>;

/// `CLONE_INTO_CGROUP` of `linux/sched.h`; the constant of the libc crate is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn check(value: i64) -> Result<i64> {
    if value < 0 {
        // SAFETY: errno of this thread was set by the call that has just failed.
        return Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }));
    }
    Ok(value)
}

/// Takes over a descriptor that was inherited under an agreed number; `None` when it is not open.
pub fn adopt_fd(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD reads a flag of a number and touches no memory.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: the number is open (checked above), and `main` calls this once per agreed number before anything else
    // opens or owns descriptors, so nobody else believes to own it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    // The descriptors of the contract are for this process alone.
    // SAFETY: F_SETFD on an open descriptor touches no memory.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    Some(fd)
}

/// What `clone3` made.
pub enum Cloned {
    /// We are the child.
    Child,
    /// We are the parent of this child.
    Parent { pid: i32, pidfd: OwnedFd },
}

/// `clone3` without sharing memory: the child is a copy of this single-threaded process. `cgroup` is the directory of
/// a v2 control group the child starts in.
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
    // SAFETY: no CLONE_VM, so the child runs on its own copy of our stack and heap, as after fork. The process has one
    // thread, so no lock can be held by a thread that does not exist in the child. `args` and `pidfd` outlive the call.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel stored a new descriptor there because CLONE_PIDFD was set and the call succeeded.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: pid as i32, pidfd })
}

/// `mount_setattr` on the mount behind `fd`.
pub fn mount_setattr(
    fd: impl AsFd,
    recursive: bool,
    set: u64,
    propagation: u64,
    userns: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: set | if userns.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 },
        attr_clr: 0,
        propagation,
        userns_fd: userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path is an empty C string, `attr` a valid structure of the size given; both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attr,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Leaves the namespaces that `flags` name for new ones.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: the process has one thread, and CLONE_FILES and CLONE_VM are not among the flags used.
    check(i64::from(unsafe { libc::unshare(flags) }))?;
    Ok(())
}

/// Places `source` at descriptor number `target`, without close-on-exec.
pub fn place_fd(source: impl AsFd, target: RawFd) -> Result<()> {
    let source = source.as_fd().as_raw_fd();
    if source == target {
        // SAFETY: F_SETFD on an open descriptor touches no memory.
        check(i64::from(unsafe { libc::fcntl(source, libc::F_SETFD, 0) }))?;
        return Ok(());
    }
    // SAFETY: called only in a child that is about to execute another program; whoever owned `target` in this process
    // is never dropped, because the process image is replaced.
    check(i64::from(unsafe { libc::dup2(source, target) }))?;
    Ok(())
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn cloexec_from(first: u32) -> Result<()> {
    // SAFETY: changes descriptor flags only.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Closes every descriptor from `first` on. Only for a child that owns none of them.
pub fn close_from(first: u32) -> Result<()> {
    // SAFETY: called once at the start of `main`, before this process owns any descriptor from `first` on.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}

/// Executes the program behind `program` with an empty environment. Returns only on failure.
pub fn exec_fd(program: impl AsFd, arguments: &[&CStr]) -> Errno {
    let argv: Vec<*const libc::c_char> = arguments.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
    let envp = [ptr::null::<libc::c_char>()];
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

/// One classic BPF instruction, as the kernel wants it (`struct sock_filter`).
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

/// Sets the interface `lo` of this network namespace up.
pub fn loopback_up(socket: impl AsFd) -> Result<()> {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    check(i64::from(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &request) }))?;
    Ok(())
}

/// Blocks `signals` for this thread and returns a descriptor that reports them instead.
pub fn signal_fd(signals: &[i32]) -> Result<OwnedFd> {
    // SAFETY: sigset_t is initialised by sigemptyset before anything reads it; all pointers are to locals.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        check(i64::from(libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut())))?;
        let fd = check(i64::from(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// A write beyond the caller's `RLIMIT_FSIZE` becomes an error like any other instead of the end of this process.
pub fn survive_file_size_limit() {
    // SAFETY: sigset_t is initialised by sigemptyset before it is read; blocking a signal runs no code.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGXFSZ);
        libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut());
    }
}

/// Gives every signal its default action and unblocks all: what the agent expects to start with.
pub fn reset_signals() {
    // SAFETY: SIG_DFL is a valid disposition; failures (KILL, STOP, unused numbers) are harmless.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut());
    }
}

/// Reads once into the room that `buffer` has beyond its length.
pub fn read_into(fd: impl AsFd, buffer: &mut bytes::BytesMut) -> Result<usize> {
    let len = buffer.len();
    let (filled, _) = rustix::io::read(fd, buffer.spare_capacity_mut())?;
    let count = filled.len();
    // SAFETY: the kernel has initialised `count` bytes of the spare capacity that follows `len`.
    unsafe { buffer.set_len(len + count) };
    Ok(count)
}

/// Gives free heap pages back to the kernel.
pub fn trim_heap() {
    // SAFETY: malloc_trim only releases memory that is not in use.
    unsafe { libc::malloc_trim(0) };
}

/// Ends this process at once, running nothing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Waits for `pid` without holding up; `Some((code, signal))` when it has ended.
pub fn reap(pid: i32) -> Option<(Option<i32>, Option<i32>)> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let got = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
    if got != pid {
        return None;
    }
    if libc::WIFEXITED(status) {
        return Some((Some(libc::WEXITSTATUS(status)), None));
    }
    Some((None, Some(libc::WTERMSIG(status))))
}

/// A C string from text that may hold a NUL (then `EINVAL`).
pub fn c_string(text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|_| Errno::INVAL)
}
