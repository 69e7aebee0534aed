//! Which processes run a sandbox.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::isolation::{IsolationDriver, IsolationReport};

/// Who runs a sandbox: `runtime/identity.json`, written before `Ready`. A process is this one only if pid, start time
/// and boot id all agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub runtime: ProcessIdentity,
    /// PID 1 of the sandbox, as the host numbers it.
    pub init: ProcessIdentity,
    pub driver: IsolationDriver,
    /// Control groups made for this run, absolute paths; the process that cleans up after a kill removes them.
    pub cgroups: Vec<PathBuf>,
    /// Milliseconds since the epoch.
    pub started_at_ms: u64,
    pub isolation: IsolationReport,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks after boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}
