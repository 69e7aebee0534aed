//! What a process passes on to every program that it starts, apart from descriptors, signals and the environment: put
//! back to what a program expects, so that a sandbox is the same whatever process created it.
//!
//! Nothing here is an error. An ordinary user, a security module or the filter of a container around this process may
//! refuse a step (raising a hard limit, lowering `nice`); then that one property stays as it was inherited, and it
//! restricts the programs further than was meant, never less.

use std::ptr;

use libc::{c_int, c_long};
use rustix::io::Result;

use crate::check;

/// `linux/ioprio.h`: whose priority; the value 0 is "none", which follows the nice value.
const IOPRIO_WHO_PROCESS: c_int = 1;
/// `linux/mempolicy.h`.
const MPOL_DEFAULT: c_int = 0;
/// `linux/keyctl.h`.
const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
/// `linux/prctl.h`, where the libc crate has no name for it.
const PR_SET_IO_FLUSHER: c_int = 57;
const PR_SET_MEMORY_MERGE: c_int = 67;
/// The kernel's own for ordinary processes (`init/init_task.c`).
const TIMER_SLACK_NS: c_long = 50_000;
/// One bit for each processor that a kernel can be built for (`CONFIG_NR_CPUS`).
const ALL_PROCESSORS: [u8; 1024] = [0xff; 1024];
/// The kernel's own choice of what a core file holds (`Documentation/filesystems/proc.rst`).
const COREDUMP_FILTER: &str = "0x33";

/// Where the kernel has to kill a process for lack of memory, it takes one of a sandbox before those of the host: there may be no
/// control group that bounds the memory of a sandbox. As root no program inside can lower it again.
const OOM_SCORE_ADJ: &str = "500";

/// Puts everything back, for this thread and what it starts. Call it in a process with one thread, before namespaces are
/// made: a user namespace remembers the limits of its creator.
pub fn reset() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    reset_scheduling();
    reset_memory();
    // Accounted for by the kernel beside the limits; both files are this process's own.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let _ = std::fs::write("/proc/self/coredump_filter", COREDUMP_FILTER);
    leave_keyring();
    // SAFETY: a plain number; 0 is an ordinary Linux process.
    unsafe { libc::syscall(libc::SYS_personality, 0 as c_long) };
    reset_limits();
}

/// A session keyring of its own, empty and without a name: file systems look up credentials in it.
fn leave_keyring() {
    // SAFETY: plain numbers and a null pointer, which stands for no name.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
}

/// Policy before nice: a real-time or idle policy hides the nice value.
fn reset_scheduling() {
    let ordinary = libc::sched_param { sched_priority: 0 };
    // SAFETY: every pointer is to a constant or a local that outlives its call; the kernel only reads. The rest are plain
    // numbers; 0 as a process is this one.
    unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0 as c_long, libc::SCHED_OTHER, &raw const ordinary);
        libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0 as c_long, 0 as c_long);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0 as c_long, 0 as c_long);
        // The kernel takes what the control group of this process allows of it.
        libc::syscall(libc::SYS_sched_setaffinity, 0 as c_long, ALL_PROCESSORS.len(), ALL_PROCESSORS.as_ptr());
        libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0);
        libc::prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0);
    }
}

/// Placement, huge pages, and merging with pages of other processes, which is a side channel between sandboxes.
fn reset_memory() {
    // SAFETY: plain numbers and a null pointer, which the default policy asks for.
    unsafe {
        libc::syscall(libc::SYS_set_mempolicy, MPOL_DEFAULT, ptr::null::<libc::c_ulong>(), 0 as c_long);
        libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0);
        libc::prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0);
    }
}

/// How far a program may raise a limit.
#[derive(Clone, Copy)]
enum Hard {
    To(u64),
    /// As far as this machine is configured to let its processes (those of its first one), at most to this.
    Machine(u64),
}

const UNLIMITED: u64 = libc::RLIM_INFINITY;
/// Of the type that the C library's constants have.
type Resource = libc::__rlimit_resource_t;

/// Open files of one program: more only where the sandbox was created with a limit of its own, because files of all
/// programs together draw on one table of the machine (`fs.file-max`).
pub const OPEN_FILES: u64 = 65_536;
const SOFT_OPEN_FILES: u64 = 1024;
/// Open files of this process, and of a monitor, which holds one for each file that its guest has in use.
const OWN_OPEN_FILES: u64 = 1 << 20;
/// Signals and timers that are queued or armed. This and the next are frozen as the ceiling of the whole user namespace when that
/// is made (`kernel/user_namespace.c`), so that all users inside together get no more.
const PENDING_SIGNALS: u64 = 16_384;
/// Bytes of POSIX message queues: half of what the kernel gives a user, so that the creator of a sandbox keeps the rest
/// where the two share a counter.
const QUEUE_BYTES: u64 = 409_600;
/// Bytes of memory that is locked, shared locked memory and huge pages included; of each user inside, because the kernel compares
/// the ceiling, in bytes, with pages.
const LOCKED_BYTES: u64 = 8 << 20;

/// Resource, soft limit, hard limit: the kernel's own for its first process (`include/asm-generic/resource.h`), except:
/// no core files; the bounds above; 1,024 open files unless a program asks for more, because many programs walk or allocate
/// by the soft limit and select(2) ends there; no real-time priority to be had.
const PROGRAM_LIMITS: [(Resource, u64, Hard); 16] = [
    (libc::RLIMIT_CPU, UNLIMITED, Hard::To(UNLIMITED)),
    (libc::RLIMIT_FSIZE, UNLIMITED, Hard::To(UNLIMITED)),
    (libc::RLIMIT_DATA, UNLIMITED, Hard::To(UNLIMITED)),
    (libc::RLIMIT_STACK, 8 << 20, Hard::To(UNLIMITED)),
    (libc::RLIMIT_CORE, 0, Hard::To(0)),
    (libc::RLIMIT_RSS, UNLIMITED, Hard::To(UNLIMITED)),
    (libc::RLIMIT_NPROC, UNLIMITED, Hard::Machine(UNLIMITED)),
    (libc::RLIMIT_NOFILE, SOFT_OPEN_FILES, Hard::Machine(OWN_OPEN_FILES)),
    (libc::RLIMIT_MEMLOCK, LOCKED_BYTES, Hard::To(UNLIMITED)),
    (libc::RLIMIT_AS, UNLIMITED, Hard::To(UNLIMITED)),
    (libc::RLIMIT_LOCKS, UNLIMITED, Hard::To(UNLIMITED)),
    (libc::RLIMIT_SIGPENDING, PENDING_SIGNALS, Hard::Machine(UNLIMITED)),
    (libc::RLIMIT_MSGQUEUE, QUEUE_BYTES, Hard::To(819_200)),
    (libc::RLIMIT_NICE, 0, Hard::To(0)),
    (libc::RLIMIT_RTPRIO, 0, Hard::To(0)),
    (libc::RLIMIT_RTTIME, UNLIMITED, Hard::To(UNLIMITED)),
];

/// Sets every resource limit to what programs start with; a hard limit that may not be raised bounds it.
pub fn reset_limits() {
    for (resource, soft, hard) in PROGRAM_LIMITS {
        let Ok(own) = limit(0, resource, None) else { continue };
        let hard = match hard {
            Hard::To(hard) => hard,
            Hard::Machine(most) => {
                let first = limit(1, resource, None).map_or(0, |first| first.rlim_max);
                own.rlim_max.max(first).min(most)
            }
        };
        if limit(0, resource, Some((soft.min(hard), hard))).is_err() {
            let hard = hard.min(own.rlim_max);
            let _ = limit(0, resource, Some((soft.min(hard), hard)));
        }
    }
}

/// Lowers what bounds a whole user namespace for good, to the bounds above or to what the sandbox was created with, and raises
/// open files to that. Call it after [`reset`] and before the namespace is made. What this process may not have, no program gets:
/// one that sets it gets the error.
pub fn settle_ceilings<'a>(asked: impl Iterator<Item = (&'a str, u64)> + Clone) {
    let most = |name: &str, least: u64| {
        let of_name = asked.clone().filter(|(resource, _)| *resource == name);
        of_name.map(|(_, hard)| hard).fold(least, u64::max)
    };
    let ceilings = [
        ("memlock", libc::RLIMIT_MEMLOCK),
        ("sigpending", libc::RLIMIT_SIGPENDING),
        ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ];
    for (name, resource) in ceilings {
        let Ok(own) = limit(0, resource, None) else { continue };
        // The kernel takes the soft limit as the ceiling.
        let wanted = most(name, own.rlim_cur);
        if limit(0, resource, Some((wanted, wanted))).is_err() {
            let possible = wanted.min(own.rlim_max);
            let _ = limit(0, resource, Some((possible, possible)));
        }
    }
    if let Ok(own) = limit(0, libc::RLIMIT_NOFILE, None) {
        let _ = limit(0, libc::RLIMIT_NOFILE, Some((own.rlim_cur, most("nofile", own.rlim_max))));
    }
}

/// Bounds the open files of each program, at [`OPEN_FILES`] or at what the sandbox was created with.
pub fn limit_open_files(asked: u64) -> Result<()> {
    let most = limit(0, libc::RLIMIT_NOFILE, None)?.rlim_max.min(asked);
    limit(0, libc::RLIMIT_NOFILE, Some((SOFT_OPEN_FILES.min(most), most))).map(drop)
}

/// The limit of process `pid` (0 is this one) as it was, and a new one.
fn limit(pid: c_long, resource: Resource, new: Option<(u64, u64)>) -> Result<libc::rlimit64> {
    let new = new.map(|(soft, hard)| libc::rlimit64 { rlim_cur: soft, rlim_max: hard });
    let new = new.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the new limit is null or a local, the old one a local; both outlive the call.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource as c_long, new, &raw mut old) })?;
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `linux/keyctl.h`.
    const KEYCTL_GET_KEYRING_ID: c_int = 0;
    const KEY_SPEC_SESSION_KEYRING: c_int = -3;

    fn keyring() -> Result<c_long> {
        // SAFETY: plain numbers.
        check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1) })
    }

    #[test]
    fn the_session_keyring_is_left() {
        // A thread has a keyring of its own; those of the other tests stay.
        let seen = std::thread::spawn(|| {
            let before = keyring();
            leave_keyring();
            (before, keyring())
        });
        match seen.join().unwrap() {
            (Ok(before), Ok(after)) => assert_ne!(before, after),
            // A kernel or a container without keyrings.
            (before, _) => assert!(before.is_err()),
        }
    }

    #[test]
    fn what_is_scheduled_is_ordinary_again() {
        let seen = std::thread::spawn(|| {
            // SAFETY: plain numbers; the nice value of this thread.
            unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0 as c_long, 5 as c_long) };
            reset_scheduling();
            // SAFETY: as above. The call itself, unlike the C library, returns 20 minus the nice value.
            unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0 as c_long) }
        });
        let nice = 20 - seen.join().unwrap();
        // Only root may lower it again.
        assert_eq!(nice, if rustix::process::geteuid().is_root() { 0 } else { 5 });
    }
}
