//! Attempts to get out, each performed for real: one line per attempt, its name and what came of it.
#![allow(unsafe_code, reason = "system calls that no safe wrapper makes")]

use std::fmt::Write;

/// A system call by number; its errno, or zero.
fn call(number: i64, args: [i64; 6]) -> i32 {
    // SAFETY: every attempt passes null or small numbers where the kernel expects pointers; it refuses before it looks.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

/// What happens to a child that does this: its exit status, or 1000 + the signal that killed it.
fn in_child(act: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the stand-in has one thread; the child only acts and leaves.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::_exit(act() & 0xff);
        }
        let mut status = 0;
        libc::waitpid(pid, &mut status, 0);
        if libc::WIFSIGNALED(status) { 1000 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
    }
}

pub fn all() -> String {
    let mut out = String::new();
    // Before anything here opens one of its own.
    let _ = writeln!(out, "fd-5 {}", call(libc::SYS_fchdir, [5, 0, 0, 0, 0, 0]));
    let plain = [
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("move_mount", libc::SYS_move_mount),
        ("fsopen", libc::SYS_fsopen),
        ("open_tree", libc::SYS_open_tree),
        ("pivot_root", libc::SYS_pivot_root),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("open_tree_attr", 467),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("clone3", libc::SYS_clone3),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("request_key", libc::SYS_request_key),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_uring_register", libc::SYS_io_uring_register),
        ("kexec_load", libc::SYS_kexec_load),
        ("kexec_file_load", libc::SYS_kexec_file_load),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("delete_module", libc::SYS_delete_module),
        ("acct", libc::SYS_acct),
        ("swapon", libc::SYS_swapon),
        ("swapoff", libc::SYS_swapoff),
        ("quotactl", libc::SYS_quotactl),
        ("lookup_dcookie", libc::SYS_lookup_dcookie),
        ("vmsplice", libc::SYS_vmsplice),
        ("kcmp", libc::SYS_kcmp),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("chroot", libc::SYS_chroot),
        ("reboot", libc::SYS_reboot),
        ("syslog", libc::SYS_syslog),
        ("sethostname", libc::SYS_sethostname),
        ("settimeofday", libc::SYS_settimeofday),
        ("unknown", 9999),
    ];
    for (name, number) in plain {
        let _ = writeln!(out, "{name} {}", call(number, [0; 6]));
    }
    #[cfg(target_arch = "x86_64")]
    for (name, number) in [("iopl", libc::SYS_iopl), ("ioperm", libc::SYS_ioperm), ("modify_ldt", libc::SYS_modify_ldt)]
    {
        let _ = writeln!(out, "{name} {}", call(number, [0; 6]));
    }
    clones(&mut out);
    sockets(&mut out);
    requests(&mut out);
    entries(&mut out);
    out
}

fn clones(out: &mut String) {
    let flags = [
        ("user", libc::CLONE_NEWUSER),
        ("pid", libc::CLONE_NEWPID),
        ("mnt", libc::CLONE_NEWNS),
        ("net", libc::CLONE_NEWNET),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("cgroup", libc::CLONE_NEWCGROUP),
    ];
    for (name, flag) in flags {
        let bits = i64::from(flag as u32) | i64::from(libc::SIGCHLD);
        let _ = writeln!(out, "clone-{name} {}", call(libc::SYS_clone, [bits, 0, 0, 0, 0, 0]));
    }
}

fn sockets(out: &mut String) {
    let cases = [
        ("vsock", 40, libc::SOCK_STREAM, 0),
        ("packet", libc::AF_PACKET, libc::SOCK_DGRAM, 0),
        ("netlink-audit", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
        ("netlink-route", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
        ("alg", 38, libc::SOCK_SEQPACKET, 0),
        ("xdp", 44, libc::SOCK_RAW, 0),
        ("raw-icmp", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        ("sctp", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        ("inet", libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0),
        ("inet6", libc::AF_INET6, libc::SOCK_DGRAM, 0),
        ("unix", libc::AF_UNIX, libc::SOCK_SEQPACKET, 0),
    ];
    for (name, family, kind, protocol) in cases {
        let args = [i64::from(family), i64::from(kind), i64::from(protocol), 0, 0, 0];
        let _ = writeln!(out, "socket-{name} {}", call(libc::SYS_socket, args));
    }
}

fn requests(out: &mut String) {
    for (name, request) in [("TIOCSTI", 0x5412i64), ("TIOCLINUX", 0x541c), ("TIOCSETD", 0x5423)] {
        let _ = writeln!(out, "{name} {}", call(libc::SYS_ioctl, [0, request, 0, 0, 0, 0]));
        let high = request | 1 << 40;
        let _ = writeln!(out, "{name}-high {}", call(libc::SYS_ioctl, [0, high, 0, 0, 0, 0]));
    }
    let _ = writeln!(out, "personality {}", call(libc::SYS_personality, [0x0400000, 0, 0, 0, 0, 0]));
    let _ = writeln!(out, "personality-query {}", call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]));
    // E10, E11, E12: what there is to take hold of.
    let own = std::fs::OpenOptions::new().write(true).open("/proc/self/exe");
    let _ = writeln!(out, "write-own-exe {}", own.map_or_else(|e| e.raw_os_error().unwrap_or(-1), |_| 0));
    let no_new_privs = call(libc::SYS_prctl, [i64::from(libc::PR_SET_NO_NEW_PRIVS), 0, 0, 0, 0, 0]);
    let _ = writeln!(out, "clear-no-new-privs {no_new_privs}");
    let ambient = [i64::from(libc::PR_CAP_AMBIENT), i64::from(libc::PR_CAP_AMBIENT_RAISE), 21, 0, 0, 0];
    let _ = writeln!(out, "ambient {}", call(libc::SYS_prctl, ambient));
    let device = call(libc::SYS_mknodat, [-100, c"/sda".as_ptr() as i64, 0o60666, 0x800, 0, 0]);
    let _ = writeln!(out, "mknod {device}");
}

/// E7: other ways into the kernel.
fn entries(out: &mut String) {
    #[cfg(target_arch = "x86_64")]
    {
        let _ = writeln!(out, "x32-getpid {}", call(0x4000_0000 | libc::SYS_getpid, [0; 6]));
        let killed = in_child(|| {
            let result: i32;
            // SAFETY: getpid through the 32-bit entry, which touches no memory.
            unsafe { core::arch::asm!("int 0x80", inlateout("eax") 20 => result) };
            i32::from(result <= 0)
        });
        let _ = writeln!(out, "int80 {killed}");
    }
    let _ = writeln!(out, "kill-all {}", in_child(|| call(libc::SYS_kill, [1, 9, 0, 0, 0, 0])));
}
