//! Control groups: one leaf for the sandbox in every hierarchy that holds a controller we use. Hosts mix versions, so
//! the version is found per controller. What cannot be had is reported, and does not fail the boot.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use microsandbox_contract::isolation::replace;
use microsandbox_contract::{Mechanism, MechanismName, MechanismState, ResourceLimits};
use rustix::fd::OwnedFd;

use crate::directory;

/// Memory on top of the sandbox's limit, for its init (the agent) and page tables.
const MEMORY_OVERHEAD: u64 = 8 << 20;
/// Processes on top of the sandbox's limit: its init.
const PIDS_OVERHEAD: u64 = 1;
/// Length of the accounting period of the processor quota, microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// How long the kernel may take to see an emptied group as empty.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);

const NO_GROUP_HINT: &str =
    "run as root, or let systemd delegate a control group (systemd-run --user --scope -p Delegate=yes …)";

/// A controller whose limit we set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
    Pids,
}

impl Controller {
    const ALL: [Controller; 3] = [Controller::Memory, Controller::Cpu, Controller::Pids];

    fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
        }
    }

    fn mechanism(self) -> MechanismName {
        match self {
            Controller::Memory => MechanismName::MemoryLimit,
            Controller::Cpu => MechanismName::CpuLimit,
            Controller::Pids => MechanismName::PidsLimit,
        }
    }
}

/// A mounted hierarchy and where in it this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    v2: bool,
    controllers: Vec<String>,
    mount: PathBuf,
    own: PathBuf,
}

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
struct Leaf {
    path: PathBuf,
    v2: bool,
    limits: Vec<Controller>,
    /// Of the directory: a later run of the sandbox makes another one of the same name.
    inode: Option<u64>,
    /// `cgroup.kill` of this very group, where the kernel has one.
    kill: Option<fs::File>,
}

impl Leaf {
    fn new(path: PathBuf, v2: bool, limits: Vec<Controller>) -> Leaf {
        let kill = if v2 { fs::OpenOptions::new().write(true).open(path.join("cgroup.kill")).ok() } else { None };
        Leaf { inode: inode(&path), kill, path, v2, limits }
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
    /// Makes the leaves and sets the limits.
    pub fn create(sandbox: &str, dir: &Path, limits: &ResourceLimits) -> Cgroups {
        let mut groups = Cgroups::default();
        let hierarchies = match read_hierarchies() {
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
        for controller in Controller::ALL {
            let outcome = groups.limit(&hierarchies, &name, controller, limits);
            let (state, reason) = match (outcome, controller) {
                (Ok(reason), _) => (MechanismState::On, reason),
                (Err(reason), Controller::Pids) => {
                    (MechanismState::Degraded, format!("by RLIMIT_NPROC, for each user inside: {reason}"))
                }
                (Err(reason), _) => (MechanismState::Off, reason),
            };
            groups.mechanisms.push(Mechanism::new(controller.mechanism(), state, reason));
        }
        // A v2 leaf is of use without any controller: everything in it is killed at one stroke.
        if let Some(v2) = hierarchies.iter().find(|h| h.v2)
            && groups.v2_leaf().is_none()
            && let Ok(path) = make_leaf(v2, &name, None)
        {
            groups.leaves.push(Leaf::new(path, true, Vec::new()));
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
            None => self.leaves.push(Leaf::new(path.clone(), hierarchy.v2, vec![controller])),
        }
        Ok(format!("cgroup {}", if hierarchy.v2 { "v2" } else { "v1" }))
    }

    /// The v2 leaf, for the clone and for killing everything in it.
    pub fn v2_leaf(&self) -> Option<&Path> {
        self.leaves.iter().find(|leaf| leaf.v2).map(|leaf| leaf.path.as_path())
    }

    /// Notes the directories in `runtime/cgroups.json`: whoever cleans up after a kill removes them.
    pub fn record(&self, runtime: &OwnedFd) {
        // Without the note a killed boot leaves empty groups behind until the sandbox is started again.
        if let Ok(text) = serde_json::to_vec(&self.paths()) {
            let _ = directory::publish(runtime, "cgroups.json", &text);
        }
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

    /// Whether the pids limit is a cgroup's.
    pub fn limits_pids(&self) -> bool {
        self.mechanisms.iter().any(|m| m.name == Controller::Pids.mechanism() && m.state == MechanismState::On)
    }

    /// Kills every process in the sandbox; false where the kernel cannot do that at one stroke.
    pub fn kill(&self) -> bool {
        // Through the descriptor: the path may belong to a later run of the sandbox by now.
        let kill = self.leaves.iter().find_map(|leaf| leaf.kill.as_ref());
        kill.is_some_and(|file| rustix::io::write(file, b"1").is_ok())
    }

    /// How everything in the sandbox is ended.
    pub fn tree_kill(&self) -> Mechanism {
        let kill = self.v2_leaf().is_some_and(|path| path.join("cgroup.kill").exists());
        let how = if kill { "cgroup.kill and the process namespace" } else { "the process namespace" };
        Mechanism::new(MechanismName::TreeKill, MechanismState::On, how)
    }

    /// Processes that the kernel killed for lack of memory since the start; `None` where nobody counts.
    pub fn oom_kills(&self) -> Option<u64> {
        self.oom_count().map(|count| count.saturating_sub(self.oom_base))
    }

    fn oom_count(&self) -> Option<u64> {
        let leaf = self.leaves.iter().find(|leaf| leaf.limits.contains(&Controller::Memory))?;
        let file = if leaf.v2 { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(leaf.path.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
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
fn make_leaf(hierarchy: &Hierarchy, name: &str, controller: Option<Controller>) -> Result<PathBuf, String> {
    let mut first_refusal = None;
    let candidates = hierarchy.own.ancestors().take_while(|path| path.starts_with(&hierarchy.mount));
    for parent in candidates {
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

/// Writes the limit; an error names the file. Files that only some kernels have are tried without insisting.
fn set_limit(
    path: &Path,
    v2: bool,
    controller: Controller,
    limits: &ResourceLimits,
) -> Result<(), (&'static str, io::Error)> {
    let must = |file: &'static str, value: u64| fs::write(path.join(file), value.to_string()).map_err(|e| (file, e));
    let may = |file: &str, value: u64| drop(fs::write(path.join(file), value.to_string()));
    match controller {
        Controller::Memory => {
            let bytes = limits.memory_mib.saturating_mul(1 << 20).saturating_add(MEMORY_OVERHEAD);
            if v2 {
                must("memory.max", bytes)?;
                may("memory.swap.max", 0);
            } else {
                must("memory.limit_in_bytes", bytes)?;
                may("memory.memsw.limit_in_bytes", bytes);
                may("memory.swappiness", 0);
            }
        }
        Controller::Cpu => {
            let quota = u64::from(limits.cpus.max(1)) * CPU_PERIOD_US;
            if v2 {
                let text = format!("{quota} {CPU_PERIOD_US}");
                fs::write(path.join("cpu.max"), text).map_err(|e| ("cpu.max", e))?;
            } else {
                may("cpu.cfs_period_us", CPU_PERIOD_US);
                must("cpu.cfs_quota_us", quota)?;
            }
        }
        Controller::Pids => must("pids.max", u64::from(limits.pids) + PIDS_OVERHEAD)?,
    }
    Ok(())
}

fn read_hierarchies() -> io::Result<Vec<Hierarchy>> {
    Ok(parse_hierarchies(&fs::read_to_string("/proc/self/mountinfo")?, &fs::read_to_string("/proc/self/cgroup")?))
}

fn parse_hierarchies(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let (Some(kind), _, options) = (right.next(), right.next(), right.next().unwrap_or("")) else { continue };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(mount)) = (left.next(), left.next()) else { continue };
        let v2 = kind == "cgroup2";
        if !v2 && kind != "cgroup" {
            continue;
        }
        let Some(path) = own_path(own, v2, options) else { continue };
        // The mount may show a part of the hierarchy only; what lies outside of it is out of reach.
        let Ok(beneath) = Path::new(path).strip_prefix(root) else { continue };
        let mount = PathBuf::from(mount.replace("\\040", " "));
        let own = mount.join(beneath);
        let controllers = if v2 { v2_controllers(&mount) } else { options.split(',').map(str::to_owned).collect() };
        if !found.iter().any(|h| h.v2 == v2 && h.controllers == controllers) {
            found.push(Hierarchy { v2, controllers, mount, own });
        }
    }
    found
}

fn v2_controllers(mount: &Path) -> Vec<String> {
    let text = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// The path of this process in the hierarchy with these mount options, from `/proc/self/cgroup`.
fn own_path<'a>(own: &'a str, v2: bool, options: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let same = if v2 {
            number == "0" && controllers.is_empty()
        } else {
            !controllers.is_empty() && controllers.split(',').all(|name| options.split(',').any(|o| o == name))
        };
        same.then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
30 29 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 /docker/x /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 30 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const HYBRID_OWN: &str = "4:memory:/docker/x/inner\n1:cpu,cpuacct:/a\n0::/b\n";

    #[test]
    fn hybrid_hosts_are_read_per_controller() {
        let found = parse_hierarchies(HYBRID_MOUNTS, HYBRID_OWN);
        let own: Vec<_> = found.iter().map(|h| (h.v2, h.own.to_str().unwrap())).collect();
        assert_eq!(
            own,
            [
                (false, "/sys/fs/cgroup/cpu/a"),
                (false, "/sys/fs/cgroup/memory/inner"),
                (true, "/sys/fs/cgroup/unified/b")
            ]
        );
    }

    #[test]
    fn a_group_outside_the_visible_part_is_left_alone() {
        assert!(parse_hierarchies(HYBRID_MOUNTS, "4:memory:/elsewhere\n").is_empty());
    }
}
