// The system calls of msb-runtime's own processes while they read what a guest or an image made, as data. Included by `build.rs`.
// A call that stands in no list is answered with ENOSYS; a call through the 32-bit entry kills the process. Neither can map
// memory for execution, start a program, open a socket or reach another process but by a descriptor that it has.

/// What both do: files that are open or lie beneath an open directory (Landlock bounds which), memory, the end.
const WORKER_ALLOWED: Calls = calls! {
    SYS_close SYS_fcntl SYS_fstat SYS_ftruncate SYS_getdents64 SYS_lseek SYS_newfstatat SYS_openat SYS_pread64 SYS_pwrite64
    SYS_read SYS_readlinkat SYS_readv SYS_renameat SYS_renameat2 SYS_statx SYS_unlinkat SYS_write SYS_writev
    SYS_brk SYS_madvise SYS_mremap SYS_munmap
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_futex SYS_getrandom SYS_gettimeofday SYS_nanosleep SYS_ppoll
    SYS_restart_syscall SYS_sched_yield
    SYS_exit SYS_exit_group SYS_getpid SYS_gettid SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sigaltstack
    SYS_tgkill SYS_tkill
};
#[cfg(target_arch = "x86_64")]
const WORKER_ALLOWED_OLD: Calls = calls! { SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_stat SYS_unlink };
#[cfg(not(target_arch = "x86_64"))]
const WORKER_ALLOWED_OLD: Calls = &[];

/// The supervisor, once its agent is ready: its channel, the guest's end, and the descriptors that it watches.
const SUPERVISOR_ALLOWED: Calls = calls! {
    SYS_accept SYS_accept4 SYS_recvfrom SYS_recvmsg SYS_sendmsg SYS_sendto SYS_shutdown
    SYS_kill SYS_pidfd_send_signal SYS_wait4 SYS_waitid
};

/// The unpacker: files with the owners, modes, times and attributes of an image, and the thread that hands them to the disk.
const UNPACKER_ALLOWED: Calls = calls! {
    SYS_copy_file_range SYS_fallocate SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_fdatasync SYS_fgetxattr
    SYS_flistxattr SYS_fremovexattr SYS_fstatfs SYS_fsetxattr SYS_fsync SYS_linkat SYS_mkdirat SYS_mknodat SYS_openat2 SYS_symlinkat
    SYS_sync_file_range SYS_syncfs SYS_umask SYS_utimensat
    SYS_clone SYS_membarrier SYS_rseq SYS_sched_getaffinity SYS_set_robust_list SYS_set_tid_address
};

/// Calls that could make memory executable, with the number of the argument that says so; refused with EPERM with that bit.
const MAPPINGS: &[(libc::c_long, u8)] = &[(libc::SYS_mmap, 2), (libc::SYS_mprotect, 2)];
