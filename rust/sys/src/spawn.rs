//! A program started in memory that the child shares with the agent.
//!
//! The child shares the agent's memory until it has executed its program (`CLONE_VM | CLONE_VFORK`, as `posix_spawn`
//! does), so nothing is copied and the child can leave its error in the parent's memory. What makes that sound:
//! everything it touches was prepared before, it only makes system calls, no signal handler exists (see
//! [`crate::signal`]), and the parent's thread sleeps until the child is gone or has a memory of its own.
//! The agent is not dumpable, so a child that has already changed its user cannot be traced into this memory.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_char, c_int, c_long, c_void};

use crate::process::pointers;

const STACK: usize = 64 << 10;

/// Everything the child needs, ready to use.
pub struct Plan<'a> {
    pub argv: Vec<CString>,
    pub envp: Vec<CString>,
    /// Paths to try in order, as `execvp` does.
    pub candidates: Vec<CString>,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// Standard input becomes the controlling terminal.
    pub tty: bool,
    pub cwd: BorrowedFd<'a>,
    pub limits: Vec<Limit>,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: &'a [u32],
    /// The ids are the agent's own: a kernel that denies `setgroups` loses nothing.
    pub same_ids: bool,
}

/// A resource limit as `prlimit64` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// Where a child failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Clone,
    Stdio,
    Pty,
    Rlimit,
    User,
    Chdir,
    Exec,
}

/// What the child left behind before it ended.
#[derive(Debug, Clone, Copy)]
pub struct SpawnError {
    pub stage: Stage,
    pub errno: i32,
    /// Index into [`Plan::candidates`] or [`Plan::limits`].
    pub index: usize,
}

struct Shared<'a> {
    plan: &'a Plan<'a>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    failure: Option<SpawnError>,
}

/// Starts the program; returns its process id once it runs. A failed child has already been reaped.
pub fn spawn(plan: &Plan<'_>) -> Result<i32, SpawnError> {
    let mut shared = Shared { plan, argv: pointers(&plan.argv), envp: pointers(&plan.envp), failure: None };
    let mut stack: Vec<u128> = Vec::with_capacity(STACK / size_of::<u128>());
    // SAFETY: one past the end of the allocation, 16-byte aligned: the stack grows down from there.
    let top = unsafe { stack.as_mut_ptr().add(stack.capacity()) };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let argument: *mut Shared<'_> = &mut shared;
    // SAFETY: `child_main` gets a stack of its own and a pointer that stays valid: CLONE_VFORK suspends this thread
    // until the child has executed a program or ended. See the module's text for what the child may do.
    let pid = unsafe { libc::clone(child_main, top.cast::<c_void>(), flags, argument.cast::<c_void>()) };
    if pid < 0 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN);
        return Err(SpawnError { stage: Stage::Clone, errno, index: 0 });
    }
    // SAFETY: the child is done with our memory; a volatile read because it wrote behind the compiler's back.
    match unsafe { ptr::read_volatile(&raw const (*argument).failure) } {
        None => Ok(pid),
        Some(failure) => {
            let mut status: c_int = 0;
            // SAFETY: the child ends right after it has written its failure; no other code reaps it in this one thread.
            while unsafe { libc::waitpid(pid, &mut status, 0) } < 0
                && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
            {}
            Err(failure)
        }
    }
}

extern "C" fn child_main(argument: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a live Shared that no other code uses while the parent sleeps.
    let shared = unsafe { &mut *argument.cast::<Shared<'_>>() };
    // SAFETY: system calls on prepared data only.
    let Err(failure) = unsafe { become_program(shared) };
    // SAFETY: plain store to the parent's memory.
    unsafe { ptr::write_volatile(&mut shared.failure, Some(failure)) };
    // SAFETY: ends this process only; no destructor and no exit handler runs.
    unsafe { libc::_exit(127) }
}

/// The steps between clone and exec. Returns only on failure.
unsafe fn become_program(shared: &Shared<'_>) -> Result<std::convert::Infallible, SpawnError> {
    let plan = shared.plan;
    // SAFETY: of the whole body. Every pointer handed to the kernel refers to data that `spawn` keeps alive; raw system calls
    // are used for ids because glibc's wrappers would try to change the other threads of the agent as well.
    unsafe {
        libc::setsid();
        let stdio = [plan.stdin.as_raw_fd(), plan.stdout.as_raw_fd(), plan.stderr.as_raw_fd()];
        for (target, source) in (0..).zip(stdio) {
            place(source, target)?;
        }
        if plan.tty {
            step(Stage::Pty, 0, libc::ioctl(0, libc::TIOCSCTTY, 0) as c_long)?;
        }
        for (index, limit) in plan.limits.iter().enumerate() {
            let value = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
            let null = ptr::null_mut::<libc::rlimit64>();
            let done = libc::syscall(libc::SYS_prlimit64, 0, limit.resource as c_long, &raw const value, null);
            step(Stage::Rlimit, index, done)?;
        }
        switch_user(plan)?;
        step(Stage::Chdir, 0, libc::syscall(libc::SYS_fchdir, plan.cwd.as_raw_fd()))?;
        check_cwd()?;
        libc::syscall(libc::SYS_umask, 0o022);
        // Everything is close-on-exec already; this also covers what a future change might forget.
        libc::syscall(libc::SYS_close_range, 3 as c_long, c_long::from(u32::MAX), 0 as c_long);
        let none: u64 = 0;
        let null = ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, null, size_of::<u64>());
        execute(shared)
    }
}

/// Puts `source` at `target` without close-on-exec.
unsafe fn place(source: c_int, target: c_int) -> Result<(), SpawnError> {
    // SAFETY: descriptor numbers only.
    let done =
        unsafe { if source == target { libc::fcntl(target, libc::F_SETFD, 0) } else { libc::dup2(source, target) } };
    step(Stage::Stdio, 0, c_long::from(done))
}

unsafe fn switch_user(plan: &Plan<'_>) -> Result<(), SpawnError> {
    let (uid, gid) = (plan.uid, plan.gid);
    // SAFETY: the group list is live; ids are plain numbers, and -1 was refused when they were parsed.
    unsafe {
        let groups = libc::syscall(libc::SYS_setgroups, plan.groups.len(), plan.groups.as_ptr());
        if groups < 0 && !plan.same_ids {
            step(Stage::User, 0, groups)?;
        }
        step(Stage::User, 1, libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        step(Stage::User, 2, libc::syscall(libc::SYS_setresuid, uid, uid, uid))
    }
}

/// A directory outside the root shows as `(unreachable)…` (CVE-2024-21626).
unsafe fn check_cwd() -> Result<(), SpawnError> {
    let mut path = [0u8; 4096];
    // SAFETY: the kernel writes at most the given length.
    let len = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    match len {
        1.. if path[0] == b'/' => Ok(()),
        1.. => Err(SpawnError { stage: Stage::Chdir, errno: libc::EXDEV, index: 0 }),
        _ => step(Stage::Chdir, 0, len),
    }
}

/// Tries each candidate; what decides is the first file that exists and may be executed.
unsafe fn execute(shared: &Shared<'_>) -> Result<std::convert::Infallible, SpawnError> {
    let mut denied = None;
    let mut last = SpawnError { stage: Stage::Exec, errno: libc::ENOENT, index: 0 };
    for (index, candidate) in shared.plan.candidates.iter().enumerate() {
        // SAFETY: NUL-terminated strings and NULL-terminated arrays that outlive the call.
        unsafe { libc::execve(candidate.as_ptr(), shared.argv.as_ptr(), shared.envp.as_ptr()) };
        // SAFETY: the parent sleeps, so errno is ours alone.
        let errno = unsafe { *libc::__errno_location() };
        last = SpawnError { stage: Stage::Exec, errno, index };
        match errno {
            libc::EACCES => denied = denied.or(Some(last)),
            // The name is there, so its interpreter is what is missing.
            // SAFETY: NUL-terminated path.
            libc::ENOENT if unsafe { libc::access(candidate.as_ptr(), libc::F_OK) } == 0 => return Err(last),
            libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ELOOP => {}
            _ => return Err(last),
        }
    }
    Err(denied.unwrap_or(last))
}

fn step(stage: Stage, index: usize, result: c_long) -> Result<(), SpawnError> {
    if result >= 0 {
        return Ok(());
    }
    // SAFETY: errno of the one running thread.
    Err(SpawnError { stage, errno: unsafe { *libc::__errno_location() }, index })
}
