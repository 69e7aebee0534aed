// The system calls of a sandbox, as data. Included by `build.rs`, which compiles it into BPF; a call that is in no
// list is answered with ENOSYS, so that a C library of tomorrow falls back to what it used yesterday. That also covers
// `clone3` (its flags are in memory, which no filter reads), asynchronous I/O (`io_setup`: one count of contexts for the
// whole machine, and every user of it has another way), `syncfs` (it writes back the file system of the host that holds a
// volume, with what everybody else wrote to it) and, on x86-64, every x32 number; a call through the 32-bit entry kills the
// process.

/// Names to numbers of the machine this is compiled on.
macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

type Calls = &'static [(&'static str, libc::c_long)];

/// Allowed whatever the arguments, except where a rule below says otherwise.
const ALLOWED: Calls = calls! {
    // files
    SYS_close SYS_close_range SYS_copy_file_range SYS_dup SYS_dup3 SYS_faccessat SYS_faccessat2 SYS_fadvise64
    SYS_fallocate SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync
    SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate
    SYS_getcwd SYS_getdents64 SYS_getxattr SYS_lgetxattr SYS_linkat SYS_listxattr SYS_llistxattr SYS_lremovexattr
    SYS_lseek SYS_lsetxattr SYS_mkdirat SYS_mknodat SYS_name_to_handle_at SYS_newfstatat SYS_openat SYS_openat2
    SYS_pread64 SYS_preadv SYS_preadv2 SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat
    SYS_readv SYS_removexattr SYS_renameat SYS_renameat2 SYS_sendfile SYS_setxattr SYS_splice SYS_statfs SYS_statx
    SYS_symlinkat SYS_sync SYS_sync_file_range SYS_tee SYS_truncate SYS_umask SYS_unlinkat SYS_utimensat
    SYS_write SYS_writev SYS_chdir SYS_ioctl SYS_pipe2 SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch
    // memory
    SYS_brk SYS_madvise SYS_memfd_create SYS_mincore SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap
    SYS_mprotect SYS_mremap SYS_mseal SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_pkey_alloc SYS_pkey_free
    SYS_pkey_mprotect SYS_membarrier
    // processes and threads
    SYS_capget SYS_capset SYS_clone SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_get_robust_list SYS_getcpu
    SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority
    SYS_getresgid SYS_getresuid SYS_getrlimit SYS_getrusage SYS_getsid SYS_gettid SYS_getuid SYS_ioprio_get
    SYS_ioprio_set SYS_kill SYS_personality SYS_pidfd_open SYS_pidfd_send_signal SYS_prctl SYS_prlimit64
    SYS_restart_syscall SYS_rseq SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getaffinity
    SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity
    SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_set_robust_list
    SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid SYS_setpriority
    SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setrlimit SYS_setsid SYS_setuid SYS_sysinfo SYS_tgkill
    SYS_times SYS_tkill SYS_uname SYS_wait4 SYS_waitid SYS_landlock_add_rule SYS_landlock_create_ruleset
    SYS_landlock_restrict_self
    // signals, time, waiting
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait
    SYS_epoll_pwait2 SYS_eventfd2 SYS_futex SYS_futex_waitv SYS_getrandom SYS_gettimeofday SYS_nanosleep SYS_ppoll
    SYS_pselect6 SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn
    SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sigaltstack SYS_signalfd4 SYS_timer_create
    SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime
    SYS_timerfd_settime
    // sockets and System V or POSIX queues of the own ipc namespace
    SYS_accept SYS_accept4 SYS_bind SYS_connect SYS_getpeername SYS_getsockname SYS_getsockopt SYS_listen SYS_recvfrom
    SYS_recvmmsg SYS_recvmsg SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setsockopt SYS_shutdown SYS_socket SYS_socketpair
    SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_msgctl SYS_msgget
    SYS_msgrcv SYS_msgsnd SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget
};

/// Allowed as well where they exist: the forms without a directory descriptor, and older ones.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: Calls = calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_wait
    SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_inotify_init SYS_lchown SYS_link SYS_lstat
    SYS_mkdir SYS_mknod SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_signalfd
    SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
};
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: Calls = &[];

/// Answered with success and not done: `sync` writes back every file system of the host and cannot fail, so no program
/// handles another answer. `fsync` and `fdatasync` are done.
const NEUTRAL: Calls = calls! { SYS_sync };

/// Refused with EPERM: what acts on the machine, on other processes' memory, or opens a kernel surface that no ordinary
/// program needs.
const REFUSED: Calls = calls! {
    SYS_acct SYS_add_key SYS_adjtimex SYS_bpf SYS_chroot SYS_clock_adjtime SYS_clock_settime SYS_delete_module
    SYS_fanotify_init SYS_fanotify_mark SYS_finit_module SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick
    SYS_get_mempolicy SYS_init_module SYS_io_uring_enter SYS_io_uring_register SYS_io_uring_setup SYS_kcmp
    SYS_kexec_load SYS_keyctl SYS_lookup_dcookie SYS_mbind SYS_migrate_pages SYS_mount SYS_mount_setattr SYS_move_mount
    SYS_move_pages SYS_nfsservctl SYS_open_by_handle_at SYS_open_tree SYS_perf_event_open SYS_pidfd_getfd
    SYS_pivot_root SYS_process_madvise SYS_process_vm_readv SYS_process_vm_writev SYS_ptrace SYS_quotactl
    SYS_quotactl_fd SYS_reboot SYS_request_key SYS_set_mempolicy SYS_set_mempolicy_home_node SYS_setdomainname
    SYS_sethostname SYS_setns SYS_settimeofday SYS_swapoff SYS_swapon SYS_syslog SYS_umount2 SYS_unshare
    SYS_userfaultfd SYS_vhangup SYS_vmsplice
};
#[cfg(target_arch = "x86_64")]
const REFUSED_OLD: Calls = calls! { SYS_ioperm SYS_iopl SYS_kexec_file_load SYS_modify_ldt };
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OLD: Calls = &[];

/// Calls that give a file its mode, with the number of the argument that is the mode.
const SET_MODE: &[(libc::c_long, u8)] = &[
    (libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (libc::SYS_fchmodat2, 2), (libc::SYS_mknodat, 2),
];
#[cfg(target_arch = "x86_64")]
const SET_MODE_OLD: &[(libc::c_long, u8)] = &[(libc::SYS_chmod, 1), (libc::SYS_creat, 1), (libc::SYS_mknod, 1)];
#[cfg(not(target_arch = "x86_64"))]
const SET_MODE_OLD: &[(libc::c_long, u8)] = &[];

/// Calls that do so when a flag says that they create, with the numbers of flags and mode.
const OPEN_MODE: &[(libc::c_long, u8, u8)] = &[(libc::SYS_openat, 2, 3)];
#[cfg(target_arch = "x86_64")]
const OPEN_MODE_OLD: &[(libc::c_long, u8, u8)] = &[(libc::SYS_open, 1, 2)];
#[cfg(not(target_arch = "x86_64"))]
const OPEN_MODE_OLD: &[(libc::c_long, u8, u8)] = &[];

/// Calls whose mode is in memory, which no filter reads: answered with ENOSYS, for which every caller has a fallback.
const UNSEEN_MODE: &[libc::c_long] = &[libc::SYS_openat2];

const SET_IDS: &[u32] = &[libc::S_ISUID, libc::S_ISGID];
/// The bit of O_TMPFILE without that of O_DIRECTORY.
const CREATES: &[i32] = &[libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY];

/// `clone` with any of these bits is refused with EPERM.
const REFUSED_CLONE_FLAGS: &[i32] = &[
    libc::CLONE_NEWNS, libc::CLONE_NEWCGROUP, libc::CLONE_NEWUTS, libc::CLONE_NEWIPC, libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID, libc::CLONE_NEWNET,
];

/// `ioctl` requests refused with EPERM; only the low 32 bits are compared, as the kernel does: TIOCSTI, TIOCLINUX,
/// TIOCCONS, TIOCSETD.
const REFUSED_IOCTLS: &[u64] = &[0x5412, 0x541c, 0x541d, 0x5423];

/// `personality` values allowed: Linux, 32-bit uname, no randomisation, both, and the query.
const ALLOWED_PERSONALITIES: &[u64] = &[0, 0x0008, 0x0040000, 0x20000, 0x20008, 0xffff_ffff];

/// Socket families allowed; every other one is answered with EAFNOSUPPORT, whatever its type: programs that ask for audit
/// or for packets read that as "this machine has none", and give up at EPERM.
const ALLOWED_FAMILIES: &[i32] = &[libc::AF_UNIX, INTERNET[0], INTERNET[1], libc::AF_NETLINK];
const INTERNET: &[i32] = &[libc::AF_INET, libc::AF_INET6];

/// Of netlink, only what lists interfaces, addresses and routes: the kernel asks for CAP_NET_ADMIN for every request of it
/// that changes something, which no program has here. Other protocols are answered with EAFNOSUPPORT.
const NETLINK_PROTOCOL: i32 = libc::NETLINK_ROUTE;

/// Protocols allowed for internet sockets (no SCTP, DCCP, MPTCP …): default, ICMP, TCP, UDP, ICMPv6.
const ALLOWED_PROTOCOLS: &[i32] = &[0, libc::IPPROTO_ICMP, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMPV6];

/// Types of internet sockets refused with EPERM, compared without the flag bits.
const REFUSED_SOCKET_TYPES: &[i32] = &[libc::SOCK_RAW, SOCK_PACKET];
/// The obsolete way to packet sockets.
const SOCK_PACKET: i32 = 10;
const SOCKET_TYPE_MASK: u64 = 0xf;
