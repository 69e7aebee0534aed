// The system calls of a virtual machine monitor, as data. Included by `build.rs`. A call that stands in no list is
// answered with ENOSYS; a call through the 32-bit entry kills the process.

/// What libkrun's device threads and its file server make.
const MONITOR_ALLOWED: Calls = calls! {
    // files of the guest
    SYS_close SYS_close_range SYS_copy_file_range SYS_dup SYS_dup3 SYS_faccessat SYS_faccessat2 SYS_fallocate
    SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr
    SYS_flistxattr SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_getdents64
    SYS_getxattr SYS_lgetxattr SYS_linkat SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr
    SYS_mkdirat SYS_mknodat SYS_newfstatat SYS_openat SYS_openat2 SYS_pread64 SYS_preadv SYS_preadv2 SYS_pwrite64
    SYS_pwritev SYS_pwritev2 SYS_read SYS_readlinkat SYS_readv SYS_removexattr SYS_renameat SYS_renameat2 SYS_setxattr
    SYS_statfs SYS_statx SYS_symlinkat SYS_sync_file_range SYS_syncfs SYS_truncate SYS_umask SYS_unlinkat SYS_utimensat
    SYS_write SYS_writev
    // as whom
    SYS_capget SYS_capset SYS_getegid SYS_geteuid SYS_getgid SYS_getuid SYS_setresgid SYS_setresuid
    // memory
    SYS_brk SYS_madvise SYS_memfd_create SYS_mmap SYS_mprotect SYS_mremap SYS_munmap
    // threads, and the signal that takes a processor out of its guest
    SYS_clone SYS_exit SYS_exit_group SYS_futex SYS_getcpu SYS_getpid SYS_gettid SYS_membarrier SYS_prctl SYS_prlimit64
    SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigreturn
    SYS_rt_sigtimedwait SYS_sched_getaffinity SYS_sched_yield SYS_set_robust_list SYS_set_tid_address SYS_sigaltstack
    SYS_tgkill SYS_tkill SYS_uname SYS_sysinfo SYS_getrandom
    // waiting
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait
    SYS_eventfd2 SYS_nanosleep SYS_pipe2 SYS_ppoll SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime
    SYS_gettimeofday
    // sockets to clients and to the runtime
    SYS_accept SYS_accept4 SYS_bind SYS_connect SYS_getpeername SYS_getsockname SYS_getsockopt SYS_listen SYS_recvfrom
    SYS_recvmsg SYS_sendmsg SYS_sendto SYS_setsockopt SYS_shutdown SYS_socketpair
    // only until the monitor has confined itself
    SYS_execveat SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_seccomp
};

#[cfg(target_arch = "x86_64")]
const MONITOR_ALLOWED_OLD: Calls = calls! { SYS_arch_prctl SYS_epoll_wait SYS_poll };
#[cfg(not(target_arch = "x86_64"))]
const MONITOR_ALLOWED_OLD: Calls = &[];

/// Refused with EPERM once the monitor has confined itself: from then on it reads what a hostile kernel wrote.
const MONITOR_CONFINED: Calls = calls! {
    SYS_execveat SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_seccomp
};

/// `ioctl` requests that are not of the type of KVM: TCGETS, FIONBIO. Every other one is answered with ENOSYS.
const MONITOR_IOCTLS: &[u64] = &[0x5401, 0x5421];
/// Bits 8 to 15 of a request are its type; that of KVM (`linux/kvm.h`).
const IOCTL_TYPE_MASK: u64 = 0xff00;
const KVM_IOCTL_TYPE: u64 = 0xae00;
