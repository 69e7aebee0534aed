//! Group E: attempts to get out, performed for real inside a sandbox. The table is the filter's contract.

use std::collections::BTreeMap;

use crate::support::*;

const REFUSED: &[&str] = &[
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "mount",
    "umount2",
    "move_mount",
    "fsopen",
    "open_tree",
    "pivot_root",
    "mount_setattr",
    "unshare",
    "setns",
    "keyctl",
    "add_key",
    "request_key",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "acct",
    "swapon",
    "swapoff",
    "quotactl",
    "lookup_dcookie",
    "vmsplice",
    "kcmp",
    "pidfd_getfd",
    "open_by_handle_at",
    "fanotify_init",
    "chroot",
    "reboot",
    "syslog",
    "sethostname",
    "settimeofday",
    "clone-user",
    "clone-pid",
    "clone-mnt",
    "clone-net",
    "clone-ipc",
    "clone-uts",
    "clone-cgroup",
    "TIOCSTI",
    "TIOCSTI-high",
    "TIOCLINUX",
    "TIOCLINUX-high",
    "TIOCSETD",
    "TIOCSETD-high",
    "personality",
    "ambient",
    "mknod",
];

// hazard: E1, E2, E3, E4, E5, E6, E7, E8, E9, E10, E11, E12
#[test]
fn every_attempt_is_answered_as_promised() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("escape");
    let sandbox = scratch.sandbox("s");
    let mut runtime = Runtime::launch(&spec(&sandbox, "escapes"));
    runtime.ready();
    assert_eq!(runtime.wait(), 0);
    let text = logged(&sandbox, 8, "stdout");
    let said: BTreeMap<&str, i32> =
        text.lines().map(|line| line.rsplit_once(' ').unwrap()).map(|(name, n)| (name, n.parse().unwrap())).collect();
    let answer = |name: &str| *said.get(name).unwrap_or_else(|| panic!("{name} was not tried: {text}"));
    for name in REFUSED {
        assert_eq!(answer(name), libc::EPERM, "{name}");
    }
    for name in ["clone3", "unknown", "open_tree_attr"] {
        assert_eq!(answer(name), libc::ENOSYS, "{name}: the C library falls back on this one only");
    }
    for name in ["vsock", "packet", "netlink-audit", "alg", "sctp", "xdp"] {
        assert_eq!(answer(&format!("socket-{name}")), libc::EAFNOSUPPORT, "{name}");
    }
    assert_eq!(answer("socket-raw-icmp"), libc::EPERM);
    for name in ["inet", "inet6", "unix", "netlink-route"] {
        assert_eq!(answer(&format!("socket-{name}")), 0, "{name} must work");
    }
    assert_eq!(answer("personality-query"), 0);
    assert_ne!(answer("clear-no-new-privs"), 0);
    assert_eq!(answer("fd-5"), libc::EBADF, "a descriptor leaked in");
    assert_ne!(answer("write-own-exe"), 0);
    assert_eq!(answer("kill-all"), 0, "PID 1 is not killed by its own children");
    if cfg!(target_arch = "x86_64") {
        for name in ["iopl", "ioperm", "modify_ldt"] {
            assert_eq!(answer(name), libc::EPERM, "{name}");
        }
        assert_eq!(answer("x32-getpid"), libc::ENOSYS);
        assert_eq!(answer("int80"), 1000 + libc::SIGSYS);
    }
}
