//! Programs: start, streams, signals, end.

use serde::{Deserialize, Serialize};

/// A chunk of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Lower-case name without the prefix: `nofile`, `cpu`, …
    pub resource: String,
    pub soft: u64,
    pub hard: u64,
}

fn default_rows() -> u16 {
    24
}

fn default_cols() -> u16 {
    80
}

/// Start a program. Relative program names are looked up on the session's `PATH`.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecRequest {
    pub cmd: String,
    #[serde(default)]
    pub args: Vec<String>,
    /// `K=V`, merged over the sandbox's environment.
    #[serde(default)]
    pub env: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default)]
    pub tty: bool,
    #[serde(default = "default_rows")]
    pub rows: u16,
    #[serde(default = "default_cols")]
    pub cols: u16,
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// *ext* Standard input is `/dev/null`; no `stdin` frames will come.
    #[serde(default)]
    pub no_stdin: bool,
    /// *ext* Bytes of output the agent may send before the first [`Credit`](super::Credit); unlimited when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
    /// *ext* Kill the whole tree after this many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// *ext* Kill the tree when the client's connection ends before the exit (the default is to let it run on).
    #[serde(default)]
    pub kill_on_disconnect: bool,
    /// *ext* A job: known by an id after its client has left, and after its end; its input stays open
    /// while no client is attached.
    #[serde(default)]
    pub job: bool,
}

/// Arguments and environment may hold secrets: debug output shows the program only.
impl std::fmt::Debug for ExecRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecRequest").field("cmd", &self.cmd).field("tty", &self.tty).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStarted {
    /// Process id inside the sandbox.
    pub pid: u32,
    /// *ext* Number of this session in the captured log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// *ext* Bytes of stdin the client may send before the first [`Credit`](super::Credit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_window: Option<u64>,
    /// *ext* The id of a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StdinError {
    #[serde(default)]
    pub errno: Option<i32>,
    #[serde(default)]
    pub errno_name: Option<String>,
    pub message: String,
}

/// The end of a program. All its output was sent before this frame.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecExited {
    /// Exit status, or 128 + signal.
    pub code: i32,
    /// *ext* The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// *ext* The kernel killed it for lack of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// *ext* `timeout_ms` passed and the tree was killed.
    #[serde(default)]
    pub timed_out: bool,
    /// *ext* Output reached end of file; `false` when a descendant still held it open after the drain deadline.
    #[serde(default = "yes")]
    pub drained: bool,
    /// *ext* Processes of this session that outlived their leader.
    #[serde(default)]
    pub descendants: u32,
    /// *ext* Wall time from start to exit, nanoseconds.
    #[serde(default)]
    pub duration_ns: u64,
}

fn yes() -> bool {
    true
}

/// Why a program could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecFailed {
    /// `not_found permission_denied not_executable bad_cwd bad_args resource_limit user_setup_failed out_of_memory
    /// pty_setup_failed other`.
    pub kind: String,
    #[serde(default)]
    pub errno: Option<i32>,
    #[serde(default)]
    pub errno_name: Option<String>,
    pub message: String,
    #[serde(default)]
    pub stage: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    pub rows: u16,
    pub cols: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    pub signal: i32,
}
