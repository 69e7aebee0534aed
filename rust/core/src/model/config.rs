//! The configuration of one sandbox: what `create` takes and what its row stores.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ImageSource, Isolation, Mount, Patch, Rlimit};

/// One virtual CPU.
pub const DEFAULT_CPUS: u8 = 1;
/// 512 MiB.
pub const DEFAULT_MEMORY_MIB: u32 = 512;
pub const DEFAULT_SHELL: &str = "/bin/sh";
/// Milliseconds between metrics samples.
pub const DEFAULT_METRICS_SAMPLE_INTERVAL_MS: u64 = 1000;
/// Processes and threads of one sandbox.
pub const DEFAULT_PIDS: u32 = 4096;

/// A create request: the spec that is stored, plus what matters only at creation.
#[derive(Debug, Clone, Default)]
pub struct SandboxConfig {
    pub spec: SandboxSpec,
    /// Stop and remove a sandbox of the same name first.
    pub replace_existing: bool,
    /// Seconds that the replaced sandbox has to stop; 0 kills it without waiting. Default 10.
    pub replace_timeout: Option<f64>,
    /// Explicitly requested: no network traffic. A local sandbox has none anyway; a sandbox of a service may.
    pub no_network: bool,
    /// Changes of the root file system before the first program, in order. They are part of the disk afterwards, not of
    /// the spec.
    pub patches: Vec<Patch>,
    /// How the registry of the image is reached; never stored.
    pub registry: super::RegistryAccess,
    /// Options of the surface that no local driver honours yet; each must lead to `Unsupported`, never be dropped.
    pub unsupported: Vec<UnsupportedOption>,
}

/// An option that was given but cannot be honoured, and when it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedOption {
    pub feature: String,
    pub available_when: String,
}

/// An init system that is handed the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InitConfig {
    /// An absolute path inside, or `auto`: the image's entrypoint if it is an init, else the first that there is of
    /// `/sbin/init`, `/lib/systemd/systemd` and `/usr/lib/systemd/systemd`.
    pub cmd: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Beside the sandbox's own environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// What a sandbox is. Serialises to `config_json`; every field has a compile-time default, so reading an old row does
/// no configuration I/O.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    pub name: String,
    pub image: ImageSource,
    pub resources: SandboxResources,
    pub runtime: RuntimeOptions,
    pub env: Vec<EnvVar>,
    pub labels: BTreeMap<String, String>,
    pub rlimits: Vec<Rlimit>,
    /// Parents before children.
    pub mounts: Vec<Mount>,
    /// Becomes the first process in place of the agent.
    pub init: Option<InitConfig>,
    pub pull_policy: PullPolicy,
    pub lifecycle: SandboxPolicy,
    pub security_profile: SecurityProfile,
    /// What was asked for; what the sandbox has is in `isolation_actual`.
    pub isolation: Isolation,
    /// Set once at create; a restart never weakens it.
    pub isolation_actual: Option<Isolation>,
    /// Random identity: distinguishes this sandbox from a later one of the same name.
    pub id: String,
    pub detached: bool,
    pub metrics: MetricsOptions,
    /// Resolved at create from the image, so that a start needs no look-up.
    pub image_defaults: ImageDefaults,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxResources {
    pub cpus: u8,
    pub max_cpus: u8,
    pub memory_mib: u32,
    pub max_memory_mib: u32,
    pub pids: u32,
    pub thp: Option<String>,
}

impl Default for SandboxResources {
    fn default() -> Self {
        SandboxResources {
            cpus: DEFAULT_CPUS,
            max_cpus: DEFAULT_CPUS,
            memory_mib: DEFAULT_MEMORY_MIB,
            max_memory_mib: DEFAULT_MEMORY_MIB,
            pids: DEFAULT_PIDS,
            thp: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeOptions {
    pub hostname: Option<String>,
    pub workdir: Option<String>,
    pub shell: Option<String>,
    pub user: Option<String>,
    pub scripts: BTreeMap<String, String>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub log_level: Option<LogLevel>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    pub key: String,
    pub value: String,
}

impl std::fmt::Debug for EnvVar {
    /// Without the value, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnvVar").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Whole seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxPolicy {
    pub max_duration_secs: Option<f64>,
    pub idle_timeout_secs: Option<f64>,
    pub ephemeral: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricsOptions {
    /// 0 or null: off.
    pub sample_interval_ms: Option<u64>,
    pub disabled: bool,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        MetricsOptions { sample_interval_ms: Some(DEFAULT_METRICS_SAMPLE_INTERVAL_MS), disabled: false }
    }
}

impl MetricsOptions {
    /// Absent when sampling is off.
    pub fn effective_interval_ms(self) -> Option<u64> {
        if self.disabled { None } else { self.sample_interval_ms.filter(|&ms| ms > 0) }
    }
}

/// What the image contributed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageDefaults {
    pub reference: Option<String>,
    pub manifest_digest: Option<String>,
    /// `sha256:…`, bottom first; pins the root file system.
    pub diff_ids: Vec<String>,
    pub env: Vec<EnvVar>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    /// `host` image: the prefixes of the interpreter that asked for it.
    pub host_prefixes: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    Always,
    #[default]
    IfMissing,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecurityProfile {
    #[default]
    Default,
    Restricted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub const ALL: [LogLevel; 5] = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

    /// The word of the wire and of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        }
    }
    pub fn parse(text: &str) -> Option<LogLevel> {
        LogLevel::ALL.into_iter().find(|level| level.as_str() == text)
    }
}
