//! One leaf for a sandbox in every hierarchy that holds a controller with a limit. Hosts mix versions, so the version is
//! found per controller. A limit that is not available is reported, and does not fail the boot.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use microsandbox_contract::isolation::replace;
use microsandbox_contract::{Mechanism, MechanismName, MechanismState, ResourceLimits};
use rustix::fd::OwnedFd;

use crate::hierarchy::{self, Hierarchy};
use crate::limits::{Controller, set_limit};
use crate::{oom, supervisor};

/// How long the kernel may take to see an emptied group as empty.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);

const NO_GROUP_HINT: &str =
    "run as root, or let systemd delegate a control group (systemd-run --user --scope -p Delegate=yes …)";

/// The leaves of one sandbox.
#[derive(Debug, Default)]
pub struct Cgroups {
    leaves: Vec<Leaf>,
    /// How each limit turned out.
    pub mechanisms: Vec<Mechanism>,
    /// OOM kills before the sandbox had a process.
    oom_base: u64,
}

#[derive(Debug)]
pub(crate) struct Leaf {
    pub path: PathBuf,
    pub v2: bool,
    /// The group of this process in the same hierarchy.
    pub own: PathBuf,
    pub limits: Vec<Controller>,
    /// Of the directory: a later run of the sandbox makes another one of the same name.
    inode: Option<u64>,
    /// `cgroup.kill` of this very group, where the kernel has one.
    kill: Option<fs::File>,
}

impl Leaf {
    fn new(path: PathBuf, hierarchy: &Hierarchy, limits: Vec<Controller>) -> Leaf {
        let v2 = hierarchy.v2;
        let kill = if v2 { fs::OpenOptions::new().write(true).open(path.join("cgroup.kill")).ok() } else { None };
        Leaf { inode: inode(&path), kill, path, v2, own: hierarchy.own.clone(), limits }
    }

    /// Still the group that was made, not one that another run has made since.
    fn is_ours(&self) -> bool {
        self.inode.is_some() && inode(&self.path) == self.inode
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|meta| meta.ino())
}

impl Cgroups {
    /// Makes the leaves and sets the limits. `note` gets every path at which a leaf may be made, before the first one is:
    /// a process that is killed in between must not leave groups that no record names.
    pub fn create(sandbox: &str, dir: &Path, limits: &ResourceLimits, note: impl FnOnce(&[PathBuf])) -> Cgroups {
        let mut groups = Cgroups::default();
        let hierarchies = match hierarchy::read() {
            Ok(hierarchies) => hierarchies,
            Err(error) => {
                let reason = format!("cannot read the control groups of this process: {error}");
                groups.mechanisms = Controller::ALL
                    .map(|c| Mechanism::new(c.mechanism(), MechanismState::Off, reason.clone()))
                    .to_vec();
                return groups;
            }
        };
        let name = leaf_name(sandbox, dir);
        let possible: Vec<PathBuf> =
            hierarchies.iter().flat_map(|h| parents(h).map(|parent| parent.join(&name)).collect::<Vec<_>>()).collect();
        note(&supervisor::with_supervisors(possible));
        for controller in Controller::ALL {
            let outcome = groups.limit(&hierarchies, &name, controller, limits);
            let (state, reason) = match (outcome, controller) {
                (Ok(group), Controller::Pids) => {
                    (MechanismState::On, format!("{group}, {} processes and threads", limits.pids))
                }
                (Ok(group), _) => (MechanismState::On, group),
                (Err(reason), Controller::Pids) => {
                    (MechanismState::Degraded, format!("by RLIMIT_NPROC, for each user inside: {reason}"))
                }
                (Err(reason), _) => (MechanismState::Off, reason),
            };
            groups.mechanisms.push(Mechanism::new(controller.mechanism(), state, reason));
        }
        // A v2 leaf is made without any controller too: one write kills every process in it.
        if let Some(v2) = hierarchies.iter().find(|h| h.v2)
            && groups.v2_leaf().is_none()
            && let Ok(path) = make_leaf(v2, &name, None)
        {
            groups.leaves.push(Leaf::new(path, v2, Vec::new()));
        }
        groups.oom_base = groups.oom_count().unwrap_or(0);
        groups
    }

    fn limit(
        &mut self,
        hierarchies: &[Hierarchy],
        name: &str,
        controller: Controller,
        limits: &ResourceLimits,
    ) -> Result<String, String> {
        let holds = |h: &&Hierarchy| h.controllers.iter().any(|c| c == controller.name());
        let Some(hierarchy) = hierarchies.iter().find(holds) else {
            return Err(format!("this kernel has no {} controller in any mounted hierarchy", controller.name()));
        };
        let path = make_leaf(hierarchy, name, Some(controller))?;
        if let Err((file, error)) = set_limit(&path, hierarchy.v2, controller, limits) {
            if !self.leaves.iter().any(|leaf| leaf.path == path) {
                let _ = fs::remove_dir(&path);
            }
            return Err(format!("cannot write {}: {error}; {NO_GROUP_HINT}", path.join(file).display()));
        }
        match self.leaves.iter_mut().find(|leaf| leaf.path == path) {
            Some(leaf) => leaf.limits.push(controller),
            None => self.leaves.push(Leaf::new(path.clone(), hierarchy, vec![controller])),
        }
        Ok(format!("cgroup {}", if hierarchy.v2 { "v2" } else { "v1" }))
    }

    /// The v2 leaf, for the clone and for killing everything in it.
    pub fn v2_leaf(&self) -> Option<&Path> {
        self.leaves.iter().find(|leaf| leaf.v2).map(|leaf| leaf.path.as_path())
    }

    pub(crate) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The directories made.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.leaves.iter().map(|leaf| leaf.path.clone()).collect()
    }

    /// Opens what the init writes to join the leaves of v1 hierarchies. A process that moves only itself, by `tasks`,
    /// spares the whole machine the lock that moving another one takes (4 ms a group). The permission to do so is that
    /// of the opener.
    pub fn open_joins(&mut self) -> Vec<Join> {
        let mut joins = Vec::new();
        let mut lost = Vec::new();
        for leaf in self.leaves.iter().filter(|leaf| !leaf.v2) {
            let names: Vec<MechanismName> = leaf.limits.iter().map(|controller| controller.mechanism()).collect();
            match fs::OpenOptions::new().write(true).open(leaf.path.join("tasks")) {
                Ok(file) => joins.push(Join { tasks: file.into(), mechanisms: names }),
                Err(error) => lost.extend(names.into_iter().map(|name| not_joined(name, &error.to_string()))),
            }
        }
        for line in lost {
            replace(&mut self.mechanisms, line);
        }
        joins
    }

    /// Puts the waiting init into the v2 leaf, where the clone could not.
    pub fn join_v2(&mut self, pid: i32) {
        let Some(leaf) = self.leaves.iter().find(|leaf| leaf.v2) else { return };
        if let Err(error) = fs::write(leaf.path.join("cgroup.procs"), pid.to_string()) {
            let lost: Vec<Mechanism> =
                leaf.limits.iter().map(|controller| not_joined(controller.mechanism(), &error.to_string())).collect();
            self.leaves.retain(|leaf| !leaf.v2 || fs::remove_dir(&leaf.path).is_err());
            for line in lost {
                replace(&mut self.mechanisms, line);
            }
        }
    }

    /// Whether this limit is a control group's.
    pub fn limits(&self, controller: Controller) -> bool {
        self.mechanisms.iter().any(|m| m.name == controller.mechanism() && m.state == MechanismState::On)
    }

    /// Kills every process in the sandbox; false where the kernel cannot do that with one write.
    pub fn kill(&self) -> bool {
        // Through the descriptor: the path may belong to a later run of the sandbox by now.
        let kill = self.leaves.iter().find_map(|leaf| leaf.kill.as_ref());
        kill.is_some_and(|file| rustix::io::write(file, b"1").is_ok())
    }

    /// How all processes of the sandbox are killed.
    pub fn tree_kill(&self) -> Mechanism {
        let kill = self.v2_leaf().is_some_and(|path| path.join("cgroup.kill").exists());
        let how = if kill { "cgroup.kill and the process namespace" } else { "the process namespace" };
        Mechanism::new(MechanismName::TreeKill, MechanismState::On, how)
    }

    /// Processes that the kernel killed for lack of memory since the start; `None` where no group counts.
    pub fn oom_kills(&self) -> Option<u64> {
        self.oom_count().map(|count| count.saturating_sub(self.oom_base))
    }

    fn oom_count(&self) -> Option<u64> {
        let leaf = self.leaves.iter().find(|leaf| leaf.limits.contains(&Controller::Memory))?;
        let file = if leaf.v2 { "memory.events" } else { "memory.oom_control" };
        oom::parse(&fs::read_to_string(leaf.path.join(file)).ok()?)
    }

    /// Removes the leaves; whatever is left of them after the deadline is named in the result.
    pub fn remove(&mut self) -> Vec<PathBuf> {
        let deadline = Instant::now() + REMOVE_DEADLINE;
        let mut left = std::mem::take(&mut self.leaves);
        loop {
            left.retain(|leaf| {
                leaf.is_ours()
                    && matches!(fs::remove_dir(&leaf.path), Err(error) if error.kind() != io::ErrorKind::NotFound)
            });
            if left.is_empty() || Instant::now() > deadline {
                return left.into_iter().map(|leaf| leaf.path).collect();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A v1 group to join and the limits that depend on it.
pub struct Join {
    tasks: OwnedFd,
    mechanisms: Vec<MechanismName>,
}

impl Join {
    /// Moves this process into the group; else the limits that are off now.
    pub fn join(&self) -> Vec<Mechanism> {
        match rustix::io::write(&self.tasks, b"0") {
            Ok(_) => Vec::new(),
            Err(error) => self.mechanisms.iter().map(|&name| not_joined(name, &error.to_string())).collect(),
        }
    }
}

fn not_joined(name: MechanismName, error: &str) -> Mechanism {
    Mechanism::new(name, MechanismState::Off, format!("the control group cannot be joined: {error}; {NO_GROUP_HINT}"))
}

/// The groups of a process that were made for this sandbox, and those of its supervisor beside them.
pub fn leaves_of(pid: i32, sandbox: &str, dir: &Path) -> Vec<PathBuf> {
    let name = leaf_name(sandbox, dir);
    let groups = hierarchy::of(pid).unwrap_or_default().into_iter().map(|hierarchy| hierarchy.own);
    // The sandbox's own first: figures are read of the first group that has them.
    supervisor::with_supervisors(groups.filter(|group| group.ends_with(&name)))
}

/// The same for every run of a sandbox, so that what a killed run left is found by the next: a readable part and a
/// digest (FNV-1a) of the directory.
fn leaf_name(sandbox: &str, dir: &Path) -> String {
    let safe: String =
        sandbox.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(64).collect();
    let digest = dir
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("msb-{safe}-{digest:016x}")
}

/// The group itself where this process is, then its ancestors: on v2 a group with processes cannot give controllers
/// to children, and a user may be allowed only some of them.
fn parents(hierarchy: &Hierarchy) -> impl Iterator<Item = &Path> {
    hierarchy.own.ancestors().take_while(|path| path.starts_with(&hierarchy.mount))
}

/// The leaf in the first of the [`parents`] that takes it.
fn make_leaf(hierarchy: &Hierarchy, name: &str, controller: Option<Controller>) -> Result<PathBuf, String> {
    let mut first_refusal = None;
    for parent in parents(hierarchy) {
        let path = parent.join(name);
        let made = match fs::create_dir(&path) {
            Ok(()) => true,
            // Ours already, from another controller of the same hierarchy or from a killed run.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => {
                first_refusal
                    .get_or_insert(format!("cannot make a group in {}: {error}; {NO_GROUP_HINT}", parent.display()));
                continue;
            }
        };
        if controller.is_none_or(|wanted| !hierarchy.v2 || offers(parent, &path, wanted)) {
            return Ok(path);
        }
        if made {
            let _ = fs::remove_dir(&path);
        }
        first_refusal
            .get_or_insert(format!("{} gives no controllers to its children; {NO_GROUP_HINT}", parent.display()));
    }
    Err(first_refusal.unwrap_or_else(|| format!("no group of {} can be reached", hierarchy.mount.display())))
}

/// Whether the v2 group `leaf` has `controller`, asking its parent to hand it down if need be.
fn offers(parent: &Path, leaf: &Path, controller: Controller) -> bool {
    let has = || {
        fs::read_to_string(leaf.join("cgroup.controllers"))
            .is_ok_and(|text| text.split_whitespace().any(|name| name == controller.name()))
    };
    has() || (fs::write(parent.join("cgroup.subtree_control"), format!("+{}", controller.name())).is_ok() && has())
}
