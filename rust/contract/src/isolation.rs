//! What separates a sandbox from its host.

use serde::{Deserialize, Serialize};

use crate::launch::Driver;
use crate::text::{keep_unknown, text_enum};

text_enum! {
    /// What runs a sandbox, as recorded.
    pub enum IsolationDriver {
        Container = "container",
        Microvm = "microvm",
        /// The scripted backend of tests, which runs nothing.
        Memory = "memory";
        /// A driver of another version, or none.
        Unknown = "unknown",
    }
}

impl From<Driver> for IsolationDriver {
    fn from(driver: Driver) -> IsolationDriver {
        match driver {
            Driver::Container => IsolationDriver::Container,
            Driver::Microvm => IsolationDriver::Microvm,
        }
    }
}

text_enum! {
    /// What the processors of a machine run on.
    pub enum Accelerator {
        Kvm = "kvm";
        Unknown = "unknown",
    }
}

text_enum! {
    /// A mechanism of isolation.
    pub enum MechanismName {
        /// Of a probe: whether a container starts at all.
        Container = "container",
        UserNamespace = "user_namespace",
        IdRange = "id_range",
        IdMappedRoot = "id_mapped_root",
        /// How read-only files of the host are mounted.
        ReadonlyViews = "readonly_views",
        PidNamespace = "pid_namespace",
        MountNamespace = "mount_namespace",
        IpcNamespace = "ipc_namespace",
        UtsNamespace = "uts_namespace",
        NetNamespace = "net_namespace",
        CgroupNamespace = "cgroup_namespace",
        Capabilities = "capabilities",
        NoNewPrivs = "no_new_privs",
        Seccomp = "seccomp",
        Landlock = "landlock",
        MemoryLimit = "memory_limit",
        CpuLimit = "cpu_limit",
        PidsLimit = "pids_limit",
        DiskLimit = "disk_limit",
        /// Whether programs see the limits as the size of their machine.
        MachineSize = "machine_size",
        TreeKill = "tree_kill";
        /// A mechanism of another version; the reason of its entry begins with its name.
        Unknown = "unknown",
    }
}

/// What really separates a sandbox from its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationReport {
    pub driver: IsolationDriver,
    /// Absent for a container.
    #[serde(default)]
    pub accelerator: Option<Accelerator>,
    pub mechanisms: Vec<Mechanism>,
}

impl Default for IsolationReport {
    fn default() -> IsolationReport {
        IsolationReport { driver: IsolationDriver::Unknown, accelerator: None, mechanisms: Vec::new() }
    }
}

impl IsolationReport {
    /// Adds an entry, in place of an earlier one of the same mechanism.
    pub fn replace(&mut self, entry: Mechanism) {
        replace(&mut self.mechanisms, entry);
    }
}

/// Adds an entry, in place of an earlier one of the same mechanism.
pub fn replace(entries: &mut Vec<Mechanism>, entry: Mechanism) {
    match entries.iter_mut().find(|earlier| earlier.name == entry.name) {
        Some(earlier) => *earlier = entry,
        None => entries.push(entry),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Mechanism {
    pub name: MechanismName,
    pub state: MechanismState,
    /// Why it is not `on`, or what exactly is on; always present unless plain `on`.
    pub reason: Option<String>,
}

impl Mechanism {
    /// On, with nothing to add.
    pub fn on(name: MechanismName) -> Mechanism {
        Mechanism { name, state: MechanismState::On, reason: None }
    }

    pub fn new(name: MechanismName, state: MechanismState, reason: impl Into<String>) -> Mechanism {
        Mechanism { name, state, reason: Some(reason.into()) }
    }
}

/// As any version, or a server, may have written it.
#[derive(Deserialize)]
struct Stored {
    name: String,
    state: MechanismState,
    #[serde(default)]
    reason: Option<String>,
}

impl From<Stored> for Mechanism {
    fn from(stored: Stored) -> Mechanism {
        let Stored { name: text, state, reason } = stored;
        let name = MechanismName::parse(&text);
        let is_unknown = name == MechanismName::Unknown && text != name.as_str();
        Mechanism { name, state, reason: if is_unknown { keep_unknown(&text, reason) } else { reason } }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MechanismState {
    On,
    Off,
    /// Also a state that only another version knows: neither taken for on nor for off.
    #[serde(other)]
    Degraded,
}
