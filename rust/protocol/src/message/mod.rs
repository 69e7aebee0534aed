//! Message kinds and their payloads.
//!
//! Field and kind names are those of the hosted service (generation 7). Fields and kinds marked *ext* are our
//! extension; they are optional on the wire, so a peer without it is still understood.

use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $wire:literal),+ $(,)?) => {
        /// What a message means: the `t` of its envelope.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)+
            /// A kind this build does not know; the receiver answers `core.error` or ignores it, never fails.
            Unknown(String),
        }
        impl Kind {
            /// Every known kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),+];

            pub fn as_wire(&self) -> &str {
                match self { $(Kind::$name => $wire,)+ Kind::Unknown(text) => text }
            }
            pub fn from_wire(text: &str) -> Kind {
                match text { $($wire => Kind::$name,)+ other => Kind::Unknown(other.chars().take(64).collect()) }
            }
        }
    };
}

kinds! {
    /// *ext* First frame of a client on a token-guarded socket: [`Hello`].
    Hello = "core.hello",
    /// The agent is ready: [`Ready`].
    Ready = "core.ready",
    /// Orderly end: [`Shutdown`].
    Shutdown = "core.shutdown",
    /// [`CoreError`].
    Error = "core.error",
    Ping = "core.ping",
    Pong = "core.pong",
    /// Reset the idle timer.
    Touch = "core.touch",
    /// [`Touched`].
    Touched = "core.touched",
    /// *ext* [`Credit`].
    Credit = "core.credit",
    /// *ext* Ask for [`Stats`].
    StatsRequest = "core.stats.request",
    /// *ext* [`Stats`].
    StatsResponse = "core.stats.response",
    /// *ext* New programs are refused, and when the last running one has ended, so does the sandbox. Answered by
    /// `core.settings.done`.
    Drain = "core.drain",
    /// *ext* [`Settings`].
    Settings = "core.settings",
    /// *ext* They hold.
    Settled = "core.settings.done",
    /// [`ExecRequest`].
    ExecRequest = "core.exec.request",
    /// [`ExecStarted`].
    ExecStarted = "core.exec.started",
    /// [`Data`]; empty means end of input.
    ExecStdin = "core.exec.stdin",
    /// [`StdinError`].
    ExecStdinError = "core.exec.stdin.error",
    /// [`Data`].
    ExecStdout = "core.exec.stdout",
    /// [`Data`].
    ExecStderr = "core.exec.stderr",
    /// [`ExecExited`].
    ExecExited = "core.exec.exited",
    /// [`ExecFailed`].
    ExecFailed = "core.exec.failed",
    /// [`Resize`].
    ExecResize = "core.exec.resize",
    /// [`Signal`].
    ExecSignal = "core.exec.signal",
    /// *ext* [`JobAttach`]: answered as an exec request is.
    JobAttach = "core.job.attach",
    /// *ext* [`JobRequest`].
    JobRequest = "core.job.request",
    /// *ext* [`JobResponse`].
    JobResponse = "core.job.response",
    /// [`FsRequest`].
    FsRequest = "core.fs.request",
    /// [`FsResponse`].
    FsResponse = "core.fs.response",
    /// [`Data`]; empty ends a write.
    FsData = "core.fs.data",
    /// *ext* [`FsEvents`].
    FsEvent = "core.fs.event",
    /// Runtime to agent, once, on the private channel: [`Bootstrap`].
    Bootstrap = "core.bootstrap",
    /// *ext* Agent to runtime, private channel: [`LogRecord`].
    Log = "host.log",
    /// *ext* Agent to runtime, private channel: [`Activity`].
    Activity = "host.activity",
}

/// A chunk of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

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
    /// *ext* Bytes of output the agent may send before the first [`Credit`]; unlimited when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
    /// *ext* Kill the whole tree after this many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// *ext* Kill the tree when the client's connection ends before the exit (the default is to let it run on).
    #[serde(default)]
    pub kill_on_disconnect: bool,
    /// *ext* A job: known by an id after its client has left, and after its end; its input stays open meanwhile.
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
    /// *ext* Bytes of stdin the client may send before the first [`Credit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_window: Option<u64>,
    /// *ext* The id of a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

/// Binds this id to a job, as if its program had been started by this client: `exec.started`, the newest kept output,
/// then what follows. One client at a time; leaving does not end the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAttach {
    pub job: String,
    /// Bytes of kept output to begin with; all that is kept when absent.
    #[serde(default)]
    pub replay: Option<u64>,
    /// As in [`ExecRequest`].
    #[serde(default)]
    pub window: Option<u64>,
}

/// Something about jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    pub op: JobOp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobOp {
    /// Every job that is known, oldest first.
    List,
    Inspect {
        job: String,
    },
    /// Answered when it has ended.
    Wait {
        job: String,
    },
    /// To its process group; 9 kills the whole tree.
    Signal {
        job: String,
        signal: i32,
    },
    Input {
        job: String,
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// End of input; Ctrl-D for a terminal.
    CloseInput {
        job: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobResponse {
    /// `unknown_job`, `ended`, `bad_signal`, `input_closed`, `input_full`; absent when all went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    #[serde(default)]
    pub jobs: Vec<JobInfo>,
}

/// What is known about a job. Times are milliseconds since the epoch, by the guest's clock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobInfo {
    pub id: String,
    /// Of the agent's run: jobs of another one are gone.
    pub boot: String,
    /// Its number in the captured log.
    pub session: u64,
    pub command: Vec<String>,
    pub tty: bool,
    pub pid: u32,
    pub stdin_closed: bool,
    pub started_ms: u64,
    #[serde(default)]
    pub finished_ms: Option<u64>,
    #[serde(default)]
    pub exit: Option<ExecExited>,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsRequest {
    pub op: FsOp,
    /// *ext* Bytes of `fs.data` the agent may send before the first [`Credit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
}

/// A file operation. Paths are absolute, resolved beneath the guest root without following magic links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FsOp {
    RealPath {
        path: String,
    },
    Stat {
        path: String,
        follow_symlink: bool,
    },
    SetStat {
        path: String,
        follow_symlink: bool,
        attrs: FsAttrs,
    },
    List {
        path: String,
    },
    ReadLink {
        path: String,
    },
    Symlink {
        target: String,
        link_path: String,
    },
    /// Creates missing parents; an existing directory is fine.
    Mkdir {
        path: String,
        #[serde(default)]
        mode: Option<u32>,
    },
    Remove {
        path: String,
    },
    RemoveDir {
        path: String,
        recursive: bool,
    },
    /// Copies a file or a tree; the target of a file copy is replaced atomically.
    Copy {
        src: String,
        dst: String,
    },
    Rename {
        src: String,
        dst: String,
    },
    OpenFile {
        path: String,
        options: OpenOptions,
    },
    OpenDir {
        path: String,
    },
    CloseHandle {
        handle: u64,
    },
    Read {
        handle: u64,
        offset: u64,
        len: u64,
    },
    Write {
        handle: u64,
        offset: u64,
        len: u64,
    },
    ReadDir {
        handle: u64,
        limit: u32,
    },
    FStat {
        handle: u64,
    },
    FSetStat {
        handle: u64,
        attrs: FsAttrs,
    },
    /// *ext* Whole file in one trip: `fs.data` frames, then the response.
    ReadFile {
        path: String,
    },
    /// *ext* Whole file in one trip: `fs.data` frames ended by an empty one, then the response. With `atomic` the new
    /// content appears at once, by rename, or not at all.
    WriteFile {
        path: String,
        #[serde(default)]
        mode: Option<u32>,
        #[serde(default)]
        atomic: bool,
    },
    /// *ext* What is in a directory as a tar archive (POSIX.1-1988 with GNU long names): `fs.data` frames, then the
    /// response.
    ReadTar {
        path: String,
    },
    /// *ext* The other way: an archive in `fs.data` frames ended by an empty one is unpacked below a directory, which is
    /// made if it is missing; then the response.
    WriteTar {
        path: String,
    },
    /// *ext* Changes of a file or in a directory: one response when the watch stands, then `fs.event` frames until the
    /// client leaves or what is watched is gone, which a second response tells.
    Watch {
        path: String,
        recursive: bool,
    },
}

/// Changes that a watch saw, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FsEvents {
    pub events: Vec<FsEvent>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FsEvent {
    /// `created modified attributes deleted moved`, or `overflow`: more happened than the kernel kept.
    pub kind: String,
    /// Where; for a move the new path. Empty for an overflow.
    pub path: String,
    /// The old path of a move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default)]
    pub is_dir: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OpenOptions {
    #[serde(default)]
    pub read: bool,
    #[serde(default)]
    pub write: bool,
    #[serde(default)]
    pub append: bool,
    #[serde(default)]
    pub create: bool,
    #[serde(default)]
    pub create_new: bool,
    #[serde(default)]
    pub truncate: bool,
    #[serde(default)]
    pub mode: Option<u32>,
}

/// Attributes to set; absent ones stay. Times are seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FsAttrs {
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub uid: Option<u32>,
    #[serde(default)]
    pub gid: Option<u32>,
    #[serde(default)]
    pub mode: Option<u32>,
    #[serde(default)]
    pub atime: Option<i64>,
    #[serde(default)]
    pub mtime: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FsResponse {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// *ext* `InvalidPath MagicLink NotRegularFile PathEscapes NoSpace ReadOnly`, else the errno name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<FsData>,
    /// *ext* Content bytes that this call carried: sent by a read, stored by a write. The receiver holds its own count
    /// against it, so a transfer that lost or gained bytes is never taken for a whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FsData {
    Stat(FsEntry),
    List(Vec<FsEntry>),
    Handle(u64),
    Path(String),
}

/// `path` is the full guest path, as [`crate::names`] writes names that are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FsEntry {
    pub path: String,
    /// `file dir symlink other`.
    pub kind: String,
    pub size: u64,
    /// Permission and type bits (`st_mode`).
    pub mode: u32,
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    /// Seconds since the epoch.
    #[serde(default)]
    pub atime: Option<i64>,
    #[serde(default)]
    pub mtime: Option<i64>,
    /// Same as `mtime` on the hosted service.
    #[serde(default)]
    pub modified: Option<i64>,
    /// *ext* Birth time, seconds since the epoch.
    #[serde(default)]
    pub created: Option<i64>,
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
    /// Name, uid or `uid:gid`; root when absent.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    pub shutdown_grace_ms: u64,
    pub drain_ms: u64,
    pub max_clients: u32,
    /// What only the kernel of a microVM needs to be told; absent where the jail has done it.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// Becomes the first process; the agent goes on as another. Only for an agent that was started for that.
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

impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bootstrap").field("cwd", &self.cwd).field("user", &self.user).finish_non_exhaustive()
    }
}

/// A copy of output for the captured log, or a line of the agent's own. The head of the frame carries the session
/// number as its correlation id; `source` is 1 stdout, 2 stderr, 3 terminal output, 4 the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    pub source: u8,
    /// Nanoseconds since the epoch, by the guest's clock.
    pub time_ns: u64,
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// Something happened: the idle timer starts anew. `running` is the number of live exec sessions; while it is above
/// zero the sandbox is not idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    pub seq: u64,
    pub running: u32,
}
