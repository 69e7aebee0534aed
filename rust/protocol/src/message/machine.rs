//! Settings of a guest that has a kernel of its own.

use serde::{Deserialize, Serialize};

/// Settings of a machine whose agent is the first process of its own kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub hostname: String,
    /// Size of `/dev/shm`.
    pub shm_bytes: u64,
    /// Most processes of the programs inside, all sessions together.
    pub pids: u32,
    pub tmpfs: Vec<MachineTmpfs>,
}

/// A temporary file system of a microVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineTmpfs {
    /// Absolute, resolved beneath the root.
    pub target: String,
    pub size_bytes: u64,
    /// Permission bits of its root.
    pub mode: u32,
    #[serde(default)]
    pub readonly: bool,
    #[serde(default)]
    pub noexec: bool,
}
