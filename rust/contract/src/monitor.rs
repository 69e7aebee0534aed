//! What the driver hands to `msb-vmm`, the program that runs one virtual machine. Both are embedded in one extension
//! module; descriptors and paths are those of the jail that the driver has built around it.

use serde::{Deserialize, Serialize};

use crate::launch::KernelSpec;

/// Inherited descriptors. 0 and 1 are `/dev/null`; 2 takes what the monitor says of itself.
pub mod fd {
    /// [`super::MachineSpec`] as JSON; a sealed memory file.
    pub const SPEC: i32 = 3;
    /// The library that holds the guest kernel.
    pub const KERNEL: i32 = 4;
    /// The agent, a sealed memory file: the guest's first program.
    pub const AGENT: i32 = 5;
    /// Takes what the guest kernel says.
    pub const CONSOLE: i32 = 6;
    /// Takes [`crate::note::Note`]s; closed before the machine runs.
    pub const NOTES: i32 = 7;
    /// The first descriptor that must not be open.
    pub const FIRST_CLOSED: u32 = 8;
}

/// Paths inside the jail.
pub mod path {
    /// The guest's root directory.
    pub const ROOT: &str = "/root";
    /// A directory for sockets, shared with the runtime.
    pub const SOCKETS: &str = "/sockets";
    /// Where the monitor listens for clients of the agent.
    pub const AGENT_SOCKET: &str = "/sockets/agent.sock";
    /// Where the runtime listens for the agent's private channel.
    pub const CONTROL_SOCKET: &str = "/sockets/control.sock";
    pub const DEVICES: &str = "/dev";
    /// [`super::fd::CONSOLE`] as a path.
    pub const CONSOLE: &str = "/proc/self/fd/6";
}

/// One virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    pub cpus: u8,
    pub memory_mib: u64,
    pub kernel: KernelSpec,
    /// [`crate::LaunchSpec::hands_over`].
    pub hands_over: bool,
    /// Only this sandbox changes the files that its guest sees, so the guest may map the host's own pages of them.
    pub private_files: bool,
    /// When the boot began, on the monotonic clock: what the monitor notes is counted from there.
    pub origin_ns: u64,
}
