//! Who a process is: pid, start time and boot id together. A bare pid is never signalled.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;

use microsandbox_contract::ProcessIdentity;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, waitid};

/// The process, held by a descriptor, if it still is the one that `identity` names and has not ended. A zombie has.
pub fn open(identity: &ProcessIdentity) -> Option<OwnedFd> {
    let pid = Pid::from_raw(identity.pid)?;
    if boot_id()? != identity.boot_id {
        return None;
    }
    // Opened before the check: what is checked is what is held.
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    let stat = stat(identity.pid)?;
    (stat.start_time == identity.start_time && stat.runs()).then_some(pidfd)
}

/// The process that has this pid now, with the descriptor that holds it.
pub fn of(pid: i32) -> Option<(ProcessIdentity, OwnedFd)> {
    let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
    let Stat { start_time, .. } = stat(pid).filter(Stat::runs)?;
    Some((ProcessIdentity { pid, start_time, boot_id: boot_id()?.to_owned() }, pidfd))
}

/// The children of a process.
pub fn children(parent: i32) -> Vec<i32> {
    all().filter(|&pid| stat(pid).is_some_and(|stat| stat.parent == parent)).collect()
}

/// Every process that `/proc` shows.
pub fn all() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Takes in the process if it has ended and this process became its parent, as process 1 of a container does.
pub fn reap(identity: &ProcessIdentity) {
    let Some(pid) = Pid::from_raw(identity.pid) else { return };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) else { return };
    let is_same = stat(identity.pid).is_some_and(|stat| stat.start_time == identity.start_time);
    if is_same && boot_id() == Some(identity.boot_id.as_str()) {
        // A process that is not ours, or lives, is none of our business.
        let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

pub fn is_alive(identity: &ProcessIdentity) -> bool {
    open(identity).is_some()
}

/// Changes with every boot of the machine, and so never while this process runs: read once.
pub fn boot_id() -> Option<&'static str> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT_ID.get() {
        return Some(known);
    }
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(BOOT_ID.get_or_init(|| read.trim().to_owned()))
}

/// Fields 3, 4 and 22 of `/proc/<pid>/stat` (proc_pid_stat(5)).
struct Stat {
    state: u8,
    parent: i32,
    start_time: u64,
}

impl Stat {
    /// A zombie has ended.
    fn runs(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may hold anything, so fields count from the last one.
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 2..)?).ok()?;
    let mut fields = rest.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Stat { state, parent, start_time: fields.nth(17)?.parse().ok()? })
}
