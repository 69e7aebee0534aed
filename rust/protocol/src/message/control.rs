//! The connection itself, the agent as a whole, and the private channel between agent and runtime.

use serde::{Deserialize, Serialize};

use super::exec::Rlimit;
use super::machine::Machine;

/// A payload without fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// First frame of a client. The agent closes the connection when the token is wrong.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    #[serde(with = "serde_bytes")]
    pub token: Vec<u8>,
    /// Oldest and newest extension the client understands.
    pub extension_min: u32,
    pub extension_max: u32,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("extension_min", &self.extension_min)
            .field("extension_max", &self.extension_max)
            .finish_non_exhaustive()
    }
}

/// Times are nanoseconds of the guest's monotonic clock, from its own boot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ready {
    pub boot_time_ns: u64,
    pub init_time_ns: u64,
    pub ready_time_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// *ext* The extension both sides will use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<u32>,
}

/// Ask for an orderly end: TERM, `grace_ms`, KILL, sync.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shutdown {
    /// *ext* Time between TERM and KILL in milliseconds; the agent's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreError {
    /// `unauthorized`, `version`, `unsupported`, `malformed`, `too_many`, `shutting_down`, `internal`.
    pub kind: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offending_type: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    pub activity_seq: u64,
}

/// New defaults of programs that start from now on.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// `K=V`, in place of what was there.
    pub set: Vec<String>,
    /// Names.
    pub unset: Vec<String>,
    #[serde(default)]
    pub cwd: Option<String>,
}

/// The environment may hold secrets.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("unset", &self.unset).field("cwd", &self.cwd).finish_non_exhaustive()
    }
}

/// Permission to send `bytes` more on the session's stream. A sender without credit waits; a session that never
/// announced a window is bounded by the connection alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    pub bytes: u64,
}

/// What the guest says about itself. Claims: the host prefers its own figures where it has any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    pub cpu_ns: u64,
    pub memory_bytes: u64,
    pub memory_available_bytes: Option<u64>,
    pub processes: u32,
    pub disk_read_bytes: u64,
    pub disk_write_bytes: u64,
    pub net_rx_bytes: u64,
    pub net_tx_bytes: u64,
    /// Used and free bytes of the root file system.
    pub root_used_bytes: Option<u64>,
    pub root_free_bytes: Option<u64>,
    pub uptime_ms: u64,
}

/// `PATH` of a sandbox whose image sets none.
pub const BASE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the agent needs to know before it serves: the first frame on the private channel.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Clients must show this in their [`Hello`].
    #[serde(with = "serde_bytes")]
    pub token: Vec<u8>,
    /// `K=V`: the environment of every session.
    pub env: Vec<String>,
    pub cwd: String,
    /// The directory is made if it is missing, as the directory that an image names.
    #[serde(default)]
    pub makes_cwd: bool,
    /// Name, uid or `uid:gid`; root when absent.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    pub shutdown_grace_ms: u64,
    pub drain_ms: u64,
    pub max_clients: u32,
    /// Settings for the kernel of a microVM, made by the agent; absent where the jail has made them.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// The program that becomes the first process; the agent continues as another process. Only for an agent that was
    /// started with [`crate::machine::HANDOVER_ARGUMENT`].
    #[serde(default)]
    pub init: Option<InitProgram>,
    /// No program gains privileges or administers mounts. In a container none ever does.
    #[serde(default)]
    pub restricted: bool,
}

/// An init system: the first of `candidates` that can be executed.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InitProgram {
    /// Absolute paths inside.
    pub candidates: Vec<String>,
    /// Without the program's own name.
    pub args: Vec<String>,
    /// `K=V`: its whole environment.
    pub env: Vec<String>,
}

impl std::fmt::Debug for InitProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InitProgram").field("candidates", &self.candidates).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bootstrap").field("cwd", &self.cwd).field("user", &self.user).finish_non_exhaustive()
    }
}

/// A copy of output for the captured log, or a line of the agent's own. The head of the frame carries the session
/// number as its correlation id; `source` is 1 stdout, 2 stderr, 3 terminal output, 4 the agent, 5 the agent in
/// place of output that it dropped ([`crate::log_budget`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    pub source: u8,
    /// Nanoseconds since the epoch, by the guest's clock.
    pub time_ns: u64,
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// On the private channel: a place in the log, counted by the agent; and the answer, for this place and all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSync {
    pub number: u64,
}

/// Something happened: the idle timer starts anew. `running` is the number of live exec sessions; while it is above
/// zero the sandbox is not idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    pub seq: u64,
    pub running: u32,
}
