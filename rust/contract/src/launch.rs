//! The job that boots and supervises a sandbox.

use std::path::PathBuf;

use microsandbox_protocol::message::Bootstrap;
use serde::{Deserialize, Serialize};

use crate::step::Step;

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

impl IdMap {
    /// Whether root inside is the user who runs the sandbox, on the host as well.
    pub fn root_is_caller(&self) -> bool {
        matches!(self, IdMap::Subordinate { .. } | IdMap::Single { .. })
    }

    /// Whether its ids lie where users and daemons of the machine (or of the user namespace around it) have theirs, so that a
    /// guest's root can read and write what those own and it is shown.
    pub fn is_shared(&self) -> bool {
        const SYSTEM_IDS: u32 = 65_536;
        matches!(self, IdMap::Range { base, .. } if *base < SYSTEM_IDS)
    }
}

/// Host ids, for users and groups alike: `first..first + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIds {
    pub first: u32,
    pub count: u32,
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
    /// What the ids inside are in the files of the home: layers, upper directories and volumes.
    pub ids: IdMap,
    /// Where the runtime may take a range for this run alone, as which the processes run. Empty: they run as `ids`.
    #[serde(default)]
    pub private_ids: Vec<HostIds>,
    pub root: RootSpec,
    pub hostname: String,
    pub limits: ResourceLimits,
    /// Present exactly when `driver` is [`Driver::Microvm`].
    #[serde(default)]
    pub kernel: Option<KernelSpec>,
    pub lifecycle: Lifecycle,
    pub logs: LogLimits,
    pub bootstrap: Bootstrap,
    #[serde(default)]
    pub log_level: Option<LogLevel>,
    /// No boot where a limit on memory, processors or processes is not that of a control group.
    #[serde(default)]
    pub strict_limits: bool,
    /// The step at which the runtime kills itself. Only a runtime with the feature `failpoints` looks at it; programs of
    /// a release are built without.
    #[serde(default)]
    pub fail_at: Option<Step>,
}

impl LaunchSpec {
    /// The agent leaves its place as first process to an init of the image's.
    pub fn hands_over(&self) -> bool {
        self.bootstrap.init.is_some()
    }

    /// No program inside may set a set-id bit on any file: some files that it can change belong to a user of the host, where
    /// such a bit would make its content a program of that user's. Where root inside is the caller, these are all its files; a bind
    /// for which the caller asks for set-id bits needs them to be possible.
    pub fn guards_modes(&self) -> bool {
        let writable = |bind: &&BindSpec| bind.host_ids && !bind.readonly;
        let mut binds = self.root.binds.iter().filter(writable);
        let is_asked_for = binds.clone().any(|bind| bind.set_ids);
        binds.any(|bind| !bind.set_ids) || (self.ids.root_is_caller() && !is_asked_for)
    }
}

/// What `runtime.log` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The root file system: an overlay of `lowers` under the sandbox's own upper directory, then binds and tmpfs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootSpec {
    /// Bottom first. Never written to. The first one is the runtime layer with `/.msb` and the mount points.
    pub lowers: Vec<Lower>,
    /// Applied in order, after the overlay.
    pub binds: Vec<BindSpec>,
    pub tmpfs: Vec<TmpfsSpec>,
    /// Layers and sources whose paths a user named.
    #[serde(default)]
    pub pinned: Vec<Pinned>,
}

/// A file or directory of the host whose path was resolved before the launch. It is opened through no link, and only if it is
/// still the one that was resolved: a guest that writes beside it must not put another one in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    pub path: PathBuf,
    pub device: u64,
    pub inode: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lower {
    pub path: PathBuf,
    /// The files carry real host ids, not mapped ones (a user's directory as root file system): as host root the
    /// layer is attached through an id-mapped mount so that its uid 0 is the sandbox's uid 0. Without that ability
    /// foreign ids appear as the user `nobody`.
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
    /// Of a read-only mount in a container: only the content of its files is shown. Sockets and FIFOs in it lead nowhere; locks and
    /// watches do not reach the host's files. Not for volumes, whose files sandboxes share.
    #[serde(default)]
    pub view: bool,
    #[serde(default)]
    pub noexec: bool,
    /// The files carry real host ids, as in [`Lower::host_ids`]; without that ability the boot fails.
    #[serde(default)]
    pub host_ids: bool,
    /// The files carry the ids of the home ([`LaunchSpec::ids`]): those of a named volume.
    #[serde(default)]
    pub home_ids: bool,
    /// A missing source is skipped instead of failing the boot.
    #[serde(default)]
    pub optional: bool,
    /// User and group, inside, of the files of the source's owner; files of other owners appear as the user `nobody`.
    /// Only for host root.
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

/// A guest kernel inside the libkrunfw library on [`crate::fd::KERNEL`]: its memory image, ready to be mapped into the guest.
/// Every number is a multiple of the page size except `entry_addr`, and `offset + size` lies within the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSpec {
    /// Where the image begins in the file.
    pub offset: u64,
    pub size: u64,
    /// Where the image begins in the guest's physical memory.
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
