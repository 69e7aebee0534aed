//! The host ids of one run. Files of the home keep the ids of the home; the processes of a run get a range of their own, so
//! that nothing that the kernel counts or permits by user is shared with another sandbox.

use microsandbox_contract::{HostIds, IdMap, LaunchSpec};
use microsandbox_jail::idmapped::HomeMounts;
use microsandbox_jail::ids;
use microsandbox_sys::file;
use microsandbox_sys::process::{self, Creator};
use rustix::fd::OwnedFd;
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::directory::SandboxDir;

/// Ids of one range: a user with more is not to be had in a sandbox.
const RANGE: u32 = 65_536;
/// Of the machine: byte `n` of the file stands for the ids from `n * RANGE` on, and is locked by the runtime that has them. The
/// lock ends with the process, so no crash leaves a range behind.
const LOCKS: &str = "/run/microsandbox";
const LOCK_FILE: &str = "ids";

/// A range that no other run on this machine has.
struct Lease {
    first: u32,
    /// The range is this run's while this is open.
    lock: OwnedFd,
}

/// As whom a run's processes run, and for whom the kernel counts what they hold.
pub struct OwnIds {
    lease: Option<Lease>,
    creator: Creator,
    mounts: Option<HomeMounts>,
    /// Why the processes have the ids of the home.
    shared: Option<String>,
}

impl OwnIds {
    /// Takes a range and makes `spec.ids` those that the processes run as. Where that cannot be had, they stay those of the
    /// home, and the report says why.
    pub fn take(spec: &mut LaunchSpec, dir: &SandboxDir) -> OwnIds {
        let stored = spec.ids.clone();
        let IdMap::Range { count, .. } = stored else {
            return OwnIds { lease: None, creator: None, mounts: None, shared: None };
        };
        if !process::may_choose_creator() {
            let lacks = "this process has not the capabilities SETPCAP, SETUID and SETGID, so its sandboxes count for its own user";
            return OwnIds { lease: None, creator: None, mounts: None, shared: Some(lacks.into()) };
        }
        let lease = match lease(&spec.private_ids, count) {
            Ok(lease) => lease,
            // Still not for host root.
            Err(reason) => {
                let creator = Some(ids::root_ids(&stored));
                return OwnIds { lease: None, creator, mounts: None, shared: Some(reason) };
            }
        };
        let creator = Some((lease.first, lease.first));
        spec.ids = IdMap::Range { base: lease.first, count };
        let (mounts, shared) = match HomeMounts::make(spec, &dir.root, &stored, creator) {
            Ok(mounts) => (Some(mounts), None),
            Err(error) => {
                spec.ids = stored;
                (None, Some(format!("its file system or this kernel has no id-mapped mounts ({error})")))
            }
        };
        OwnIds { lease: Some(lease), creator, mounts, shared }
    }

    /// For whom new user namespaces count.
    pub fn creator(&self) -> Creator {
        self.creator
    }

    /// Why other sandboxes have the same ids.
    pub fn shared(&self) -> Option<&str> {
        self.shared.as_deref()
    }

    /// The mounts, once.
    pub fn mounts(&mut self) -> Option<HomeMounts> {
        self.mounts.take()
    }

    /// What is to be kept open as long as the run lasts.
    pub fn into_lock(self) -> Option<OwnedFd> {
        self.lease.map(|lease| lease.lock)
    }
}

/// Takes a free range, beginning anywhere: one that has just become free is not the next that is taken.
fn lease(places: &[HostIds], count: u32) -> Result<Lease, String> {
    let slots: Vec<(u32, u32)> = places
        .iter()
        .map(|ids| (ids.first.div_ceil(RANGE), (ids.first.saturating_add(ids.count)) / RANGE))
        .filter(|(first, end)| first < end)
        .collect();
    let all: u32 = slots.iter().map(|(first, end)| end - first).sum();
    if all == 0 || count > RANGE {
        return Err("this process may not give a sandbox ids that no other has".into());
    }
    let lock = open_locks().map_err(|error| format!("{LOCKS}/{LOCK_FILE} cannot be opened: {error}"))?;
    let begin = random() % all;
    for number in (begin..all).chain(0..begin) {
        let Some(slot) = nth(&slots, number) else { continue };
        match file::lock_byte(&lock, slot) {
            Ok(true) => return Ok(Lease { first: slot * RANGE, lock }),
            Ok(false) => {}
            Err(error) => return Err(format!("{LOCKS}/{LOCK_FILE} cannot be locked: {error}")),
        }
    }
    Err(format!("all {all} ranges of host ids are in use"))
}

fn nth(slots: &[(u32, u32)], mut number: u32) -> Option<u32> {
    for &(first, end) in slots {
        if number < end - first {
            return Some(first + number);
        }
        number -= end - first;
    }
    None
}

/// Any number does where the kernel has no randomness yet: the locks decide.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
    u32::from_ne_bytes(bytes)
}

/// Below `/run`, where only root writes, and which does not outlive the machine's boot.
fn open_locks() -> Result<OwnedFd, Errno> {
    let file = |dir: &OwnedFd| {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(dir, LOCK_FILE, flags, Mode::from_raw_mode(0o600))
    };
    match fs::mkdirat(CWD, LOCKS, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    file(&fs::openat(CWD, LOCKS, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_whole_ranges_within_the_places() {
        let slots = [(10, 12), (40, 43)];
        let found: Vec<_> = (0..6).map(|number| nth(&slots, number)).collect();
        assert_eq!(found, [Some(10), Some(11), Some(40), Some(41), Some(42), None]);
        let unusable = [HostIds { first: 1, count: RANGE }];
        assert!(lease(&unusable, RANGE).is_err());
        assert!(lease(&[], RANGE).is_err());
    }

    #[test]
    fn a_range_is_taken_once() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // Two slots that no sandbox is given.
        let places = [HostIds { first: 3 * RANGE, count: 2 * RANGE }];
        let (one, two) = (lease(&places, RANGE).unwrap(), lease(&places, RANGE).unwrap());
        assert_ne!(one.first, two.first);
        let refused = lease(&places, RANGE).map(|_| ()).unwrap_err();
        assert!(refused.contains("all 2 ranges"), "{refused}");
        let first = one.first;
        drop(one);
        assert_eq!(lease(&places, RANGE).unwrap().first, first);
    }
}
