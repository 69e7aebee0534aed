//! A session's process tree: how it is marked, found and killed as a whole.
//!
//! Before it executes, a session's leader gets a file-lock limit (`RLIMIT_LOCKS`, ignored by Linux since 2.4.25) with a
//! number that no other session has. Limits are inherited over fork, `setsid` and exec and can only be lowered, so
//! descendants that left their parent still carry it. Processes are held by pidfd and checked again by their start time
//! before anything is sent, so a reused number is never hit.

use std::collections::{HashMap, HashSet};

use microsandbox_sys::spawn::Limit;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::sessions::procfs::{ProcStat, Procfs};

/// Marks tags apart from limits a user would set.
const TAG_BASE: u64 = 1 << 62;
/// Freeze rounds per attempt. A fork bomb is frozen when a round finds nothing new.
const FREEZE_ROUNDS: usize = 64;

/// The mark of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(u64);

impl Tag {
    /// `session` is counted by one agent; its pid keeps two agents that share a pid namespace apart.
    pub fn new(session: u64) -> Tag {
        let agent = rustix::process::getpid().as_raw_nonzero().get() as u64;
        Tag(TAG_BASE | (agent & 0x3fff_ffff) << 32 | (session & 0xffff_ffff))
    }

    pub fn limit(self) -> Limit {
        Limit { resource: libc::RLIMIT_LOCKS, soft: self.0, hard: self.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Member {
    pid: i32,
    start_time: u64,
}

/// How many processes with the tag live.
pub fn count(procfs: &Procfs, tag: Tag) -> usize {
    let tagged = procfs.pids().into_iter().filter(|pid| procfs.lock_limit(*pid) == Some(tag.0));
    tagged.filter(|pid| procfs.stat(*pid).is_some_and(|stat| is_alive(&stat))).count()
}

fn is_alive(stat: &ProcStat) -> bool {
    !matches!(stat.state, b'Z' | b'X')
}

/// One attempt: freezes the tree until it stops growing, then kills all of it. Returns how many processes were there;
/// the caller repeats until that is zero.
pub fn kill(procfs: &Procfs, tag: Tag, leader: Option<i32>) -> usize {
    let mut frozen: HashSet<Member> = HashSet::new();
    for _ in 0..FREEZE_ROUNDS {
        let fresh: Vec<Member> =
            members(procfs, tag, leader).into_iter().filter(|member| !frozen.contains(member)).collect();
        if fresh.is_empty() {
            break;
        }
        for member in fresh {
            send(procfs, member, Signal::STOP);
            frozen.insert(member);
        }
    }
    for member in &frozen {
        send(procfs, *member, Signal::KILL);
    }
    frozen.len()
}

/// Living processes with the tag, and those below `leader` by parentage.
fn members(procfs: &Procfs, tag: Tag, leader: Option<i32>) -> Vec<Member> {
    let mut stats: HashMap<i32, ProcStat> = HashMap::new();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for pid in procfs.pids() {
        if pid != own
            && let Some(stat) = procfs.stat(pid)
        {
            stats.insert(pid, stat);
        }
    }
    let below = leader.map(|leader| descendants(&stats, leader)).unwrap_or_default();
    stats
        .iter()
        .filter(|(_, stat)| is_alive(stat))
        .filter(|(pid, _)| below.contains(pid) || procfs.lock_limit(**pid) == Some(tag.0))
        .map(|(pid, stat)| Member { pid: *pid, start_time: stat.start_time })
        .collect()
}

fn descendants(stats: &HashMap<i32, ProcStat>, leader: i32) -> HashSet<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, stat) in stats {
        children.entry(stat.ppid).or_default().push(*pid);
    }
    let mut found = HashSet::from([leader]);
    let mut todo = vec![leader];
    while let Some(pid) = todo.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if found.insert(*child) {
                todo.push(*child);
            }
        }
    }
    found
}

/// Signals the member only if the number still belongs to the process that was seen.
fn send(procfs: &Procfs, member: Member, signal: Signal) {
    let Some(pid) = Pid::from_raw(member.pid) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if procfs.stat(member.pid).is_some_and(|stat| stat.start_time == member.start_time) {
        // It may have ended in between: that is what was wanted.
        let _ = pidfd_send_signal(&pidfd, signal);
    }
}
