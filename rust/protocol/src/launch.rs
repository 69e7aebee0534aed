//! What the SDK hands to `msb-runtime`, and what comes back. Host side only: nothing of this ever enters a sandbox
//! except the [`Bootstrap`] that the runtime forwards to the agent.
//!
//! The runtime is executed from a sealed memory file with an empty environment. Everything it needs arrives on
//! inherited descriptors (see [`fd`]); every other descriptor is closed. The job is one JSON document on [`fd::SPEC`],
//! reports are JSON lines on [`fd::REPORT`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::message::Bootstrap;

/// Version of this contract. Both sides are embedded in one extension module, so it only guards against a mix-up.
pub const LAUNCH_VERSION: u32 = 1;

/// Numbers of the inherited descriptors.
pub mod fd {
    /// The [`super::Job`] as JSON; a sealed memory file, read to its end.
    pub const SPEC: i32 = 3;
    /// [`super::Report`]s as JSON lines; a pipe. Closed after `Ready` or `BootError` of a launch.
    pub const REPORT: i32 = 4;
    /// The lifeline: end of file ends the sandbox; one byte `d` lets go of it for good. The creator of a detached sandbox
    /// sends it once it has recorded the run, so that nothing runs that nobody knows of.
    pub const LIFELINE: i32 = 5;
    /// A pidfd of the creator; readable when it is gone. Same meaning as end of file on the lifeline, but a forked
    /// child of the creator cannot keep it alive.
    pub const OWNER: i32 = 6;
    /// Launch: the agent, a sealed memory file. Unpack: the archive to read.
    pub const PAYLOAD: i32 = 7;
    /// Launch of a microVM: the virtual machine monitor, a sealed memory file.
    pub const VMM: i32 = 8;
    /// Launch of a microVM: the libkrunfw library that holds the guest kernel, opened for reading.
    pub const KERNEL: i32 = 9;
}

/// One run of `msb-runtime`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub enum Job {
    /// Boot a sandbox and supervise it to its end.
    Launch(Box<LaunchSpec>),
    /// Unpack image layers beneath a directory, inside the sandbox's id mapping.
    Unpack(UnpackSpec),
    /// Remove a tree that holds files of mapped ids which the caller may not remove itself.
    RemoveTree(RemoveTreeSpec),
    /// Find out by doing which mechanisms this machine gives; creates nothing that stays.
    Probe(ProbeSpec),
}

/// Which driver runs a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Container,
    Microvm,
}

/// How ids inside map to ids outside. Host uid 0 and gid 0 are never mapped in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum IdMap {
    /// Root on the host: inside `0..count` is outside `base..base + count`, for uids and gids alike.
    Range { base: u32, count: u32 },
    /// An ordinary user with ranges in `/etc/subuid` and `/etc/subgid`, written by `newuidmap`/`newgidmap`: inside 0 is
    /// the user, inside `1..` the ranges.
    Subordinate { uid: u32, gid: u32, sub_uid: u32, sub_gid: u32, count: u32 },
    /// An ordinary user without ranges: inside 0 is the user, nothing else exists.
    Single { uid: u32, gid: u32 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchSpec {
    pub version: u32,
    pub name: String,
    pub driver: Driver,
    /// `<home>/sandboxes/<name>`, exists. The runtime writes beneath it: `upper/` and `work/` (overlay), `logs/exec.log`,
    /// `logs/runtime.log`, `logs/kernel.log`, `logs/boot-error.json`, `runtime/agent.sock`, `runtime/identity.json`,
    /// `runtime/exit.json`.
    pub sandbox_dir: PathBuf,
    pub ids: IdMap,
    pub root: RootSpec,
    pub hostname: String,
    pub limits: ResourceLimits,
    /// Present exactly when `driver` is [`Driver::Microvm`].
    #[serde(default)]
    pub kernel: Option<KernelSpec>,
    pub lifecycle: Lifecycle,
    pub logs: LogLimits,
    pub bootstrap: Bootstrap,
    /// `error warn info debug trace` for `runtime.log`.
    #[serde(default)]
    pub log_level: Option<String>,
    /// Tests only: the named step at which the runtime kills itself with SIGKILL.
    #[serde(default)]
    pub fail_at: Option<String>,
}

impl LaunchSpec {
    /// The agent leaves its place as first process to an init of the image's.
    pub fn hands_over(&self) -> bool {
        self.bootstrap.init.is_some()
    }

    /// No program inside may set a set-id bit on any file: some files that it can change are those of the host, where such
    /// a bit would make its content a program of their owner's.
    pub fn guards_modes(&self) -> bool {
        self.root.binds.iter().any(|bind| bind.host_ids && !bind.readonly && !bind.set_ids)
    }
}

/// The root file system: an overlay of `lowers` under the sandbox's own upper directory, then binds and tmpfs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootSpec {
    /// Bottom first. Never written to. The first one is the runtime layer with `/.msb` and the mount points.
    pub lowers: Vec<Lower>,
    /// Applied in order, after the overlay.
    pub binds: Vec<BindSpec>,
    pub tmpfs: Vec<TmpfsSpec>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lower {
    pub path: PathBuf,
    /// The files carry real host ids, not mapped ones (a user's directory as root file system): as host root the
    /// layer is attached through an id-mapped mount so that its uid 0 is the sandbox's uid 0. Without that ability
    /// foreign ids appear as `nobody`.
    #[serde(default)]
    pub host_ids: bool,
}

/// A host file or directory made visible inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindSpec {
    pub source: PathBuf,
    /// Absolute path inside; resolved beneath the new root, missing parents are created in the upper directory.
    pub target: String,
    pub readonly: bool,
    #[serde(default)]
    pub noexec: bool,
    /// The files carry real host ids, as in [`Lower::host_ids`]; without that ability the boot fails.
    #[serde(default)]
    pub host_ids: bool,
    /// A missing source is skipped instead of failing the boot.
    #[serde(default)]
    pub optional: bool,
    /// Whom the files of the source's owner belong to inside; those of other owners are nobody's. Only for host root.
    #[serde(default)]
    pub shown_as: Option<(u32, u32)>,
    /// Set-id bits may reach the files of the host. See [`LaunchSpec::guards_modes`].
    #[serde(default)]
    pub set_ids: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsSpec {
    pub target: String,
    pub size_bytes: u64,
    /// Permission bits of its root, e.g. `0o1777`.
    pub mode: u32,
    #[serde(default)]
    pub readonly: bool,
    #[serde(default)]
    pub noexec: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    pub cpus: u32,
    pub memory_mib: u64,
    pub pids: u32,
}

/// A guest kernel inside the libkrunfw library on [`fd::KERNEL`]: its memory image, ready to be mapped into the guest.
/// Every number is a multiple of the page size except `entry_addr`, and `offset + size` lies within the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSpec {
    /// Where the image begins in the file.
    pub offset: u64,
    pub size: u64,
    /// Where it lies in the guest's physical memory.
    pub guest_addr: u64,
    /// Where the first virtual processor begins.
    pub entry_addr: u64,
}

/// Milliseconds throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    pub idle_timeout_ms: Option<u64>,
    pub max_duration_ms: Option<u64>,
    /// From spawn to the agent's ready.
    pub ready_timeout_ms: u64,
    /// From asking the guest to end to killing it.
    pub stop_grace_ms: u64,
}

/// Rotation of `exec.log`: a file of at most `max_bytes`, and `rotations` older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    pub max_bytes: u64,
    pub rotations: u32,
}

/// One layer of an archive that was passed on [`fd::PAYLOAD`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerSource {
    /// Where the blob lies in the archive.
    pub offset: u64,
    pub length: u64,
    pub compression: Compression,
    /// `sha256:<hex>` of the blob as stored; checked while reading.
    pub blob_digest: String,
    /// `sha256:<hex>` of the uncompressed tar; checked before the layer counts.
    pub diff_id: String,
    /// Where to unpack: an empty directory, owned by the inside root.
    pub target: PathBuf,
    /// Directories of the layers beneath this one in its image, bottom first (of this job: their targets). Asked where the
    /// layer names a parent or a link target that it does not hold itself: a directory that is a symlink further down
    /// (merged `/usr`), attributes of directories it does not describe.
    #[serde(default)]
    pub beneath: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnpackSpec {
    pub version: u32,
    pub ids: IdMap,
    pub layers: Vec<LayerSource>,
    pub limits: ImageLimits,
}

/// Bounds of unpacking; each is named in the error that it causes (`image.entries` …).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLimits {
    pub layer_bytes: u64,
    pub file_bytes: u64,
    pub total_bytes: u64,
    pub entries: u64,
    pub path_depth: u32,
    /// Unpacked : packed, beyond the first 64 MiB.
    pub ratio: u64,
    pub pax_bytes: u64,
    pub zstd_window_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        ImageLimits {
            layer_bytes: 10 << 30,
            file_bytes: 5 << 30,
            total_bytes: 40 << 30,
            entries: 1_000_000,
            path_depth: 128,
            ratio: 200,
            pax_bytes: 1 << 20,
            zstd_window_bytes: 128 << 20,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveTreeSpec {
    pub version: u32,
    pub ids: IdMap,
    /// Removed with everything beneath it; other file systems mounted inside are not entered.
    pub path: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProbeSpec {
    pub version: u32,
    pub ids: IdMap,
    /// A directory on the file system that will hold sandboxes; a temporary one is made and removed beneath it.
    pub scratch: PathBuf,
}

/// A line on [`fd::REPORT`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// Launch: the agent answers on `runtime/agent.sock`.
    Ready(Box<LaunchReady>),
    /// Launch: it never will. The same document is in `logs/boot-error.json`.
    BootError(BootError),
    /// Unpack: bytes of `layer` (index in the spec) read so far.
    Progress { layer: usize, read: u64, total: u64 },
    /// Unpack: one layer complete and synced.
    Unpacked { layer: usize, bytes: u64, entries: u64 },
    /// Probe.
    Probed(IsolationReport),
    /// Unpack, RemoveTree: all done.
    Done,
    /// Unpack, RemoveTree, Probe: failed; partial targets are the caller's to remove.
    Failed(JobError),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchReady {
    pub identity: Identity,
    pub timings: Vec<Timing>,
    pub agent_version: Option<String>,
}

/// A step of the boot and when it was finished, in microseconds since the runtime's first instruction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Timing {
    pub step: String,
    pub at_us: u64,
}

/// Who runs a sandbox: `runtime/identity.json`, written before `Ready`. A process is this one only if pid, start time
/// and boot id all agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub runtime: ProcessIdentity,
    /// PID 1 of the sandbox, as the host numbers it.
    pub init: ProcessIdentity,
    pub driver: Driver,
    /// Control groups made for this run, absolute paths; whoever cleans up after a kill removes them.
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

/// What really separates a sandbox from its host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IsolationReport {
    /// `container` or `microvm`.
    pub driver: String,
    /// `kvm`, or absent.
    #[serde(default)]
    pub accelerator: Option<String>,
    pub mechanisms: Vec<Mechanism>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mechanism {
    /// `user_namespace`, `id_range`, `pid_namespace`, `mount_namespace`, `ipc_namespace`, `uts_namespace`,
    /// `net_namespace`, `cgroup_namespace`, `capabilities`, `no_new_privs`, `seccomp`, `landlock`, `memory_limit`,
    /// `cpu_limit`, `pids_limit`, `tree_kill`.
    pub name: String,
    pub state: MechanismState,
    /// Why it is not `on`, or what exactly is on; always present unless plain `on`.
    #[serde(default)]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MechanismState {
    On,
    Off,
    Degraded,
}

/// `logs/boot-error.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootError {
    /// Milliseconds since the epoch.
    pub t: u64,
    /// `config image mount network build_vm agent other`.
    pub stage: String,
    /// The named step inside the stage, e.g. `mount overlay`.
    pub step: String,
    pub message: String,
    #[serde(default)]
    pub errno: Option<i32>,
    /// What the user can do.
    pub hint: String,
    /// Last lines of `kernel.log` and `runtime.log`.
    #[serde(default)]
    pub log_tail: String,
}

/// Why an unpack, removal or probe failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// `unsafe_entry limit_exceeded digest_mismatch corrupt_layer no_space denied io`.
    pub kind: String,
    pub message: String,
    #[serde(default)]
    pub errno: Option<i32>,
    pub hint: String,
}

/// `runtime/exit.json`: how a run ended. Written before the runtime ends, by rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// `Completed Failed MaxDurationExceeded IdleTimeout AgentUnresponsive ShutdownRequested DrainRequested Signal
    /// InternalError`.
    pub reason: String,
    #[serde(default)]
    pub detail: Option<String>,
    /// Exit status of PID 1, if it exited.
    #[serde(default)]
    pub exit_code: Option<i32>,
    #[serde(default)]
    pub signal: Option<i32>,
    #[serde(default)]
    pub oom_killed: bool,
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// The run this is about: [`Identity::runtime`].
    pub runtime: ProcessIdentity,
}
