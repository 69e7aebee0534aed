//! The sections of the local view, key by key. Every key may be absent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{DEFAULT_CPUS, DEFAULT_MEMORY_MIB, DEFAULT_METRICS_SAMPLE_INTERVAL_MS, DEFAULT_SHELL};

/// Null as absent.
pub(super) fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether the host serves one customer or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentProfile {
    #[serde(alias = "single_tenant")]
    SingleTenant,
    #[serde(alias = "multi_tenant")]
    MultiTenant,
}

/// `database.*`. `database.url` is accepted and ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseConfig {
    /// Read connections; the write side has exactly one.
    pub max_connections: u32,
    /// How long to wait for a connection, and for another process that creates or migrates the database.
    pub connect_timeout_secs: u64,
    /// How long a write waits for another process's.
    pub busy_timeout_secs: u64,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        DatabaseConfig { max_connections: 5, connect_timeout_secs: 30, busy_timeout_secs: 5 }
    }
}

/// `paths.*`; absent: under the home.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PathsConfig {
    /// The `msb` program.
    pub msb: Option<PathBuf>,
    pub libkrunfw: Option<PathBuf>,
    pub cache: Option<PathBuf>,
    pub sandboxes: Option<PathBuf>,
    pub volumes: Option<PathBuf>,
    pub snapshots: Option<PathBuf>,
    pub logs: Option<PathBuf>,
    pub secrets: Option<PathBuf>,
}

impl PathsConfig {
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let PathsConfig { msb, libkrunfw, cache, sandboxes, volumes, snapshots, logs, secrets } = self;
        [msb, libkrunfw, cache, sandboxes, volumes, snapshots, logs, secrets].into_iter().flatten()
    }
}

/// `sandbox_defaults.*`: equal to the compile-time defaults of a stored specification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxDefaults {
    pub cpus: u8,
    pub memory_mib: u32,
    #[serde(deserialize_with = "or_default")]
    pub cpu_placement: CpuPlacement,
    /// Names an entry of `runtime.placement_profiles`.
    pub placement_profile: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub thp: Thp,
    #[serde(deserialize_with = "or_default")]
    pub oci: OciSandboxDefaults,
    pub shell: String,
    pub workdir: Option<String>,
    /// Milliseconds between samples; null and 0 both mean off and read as `None`.
    #[serde(deserialize_with = "zero_as_off")]
    pub metrics_sample_interval_ms: Option<u64>,
    pub disable_metrics_sample: bool,
}

impl Default for SandboxDefaults {
    fn default() -> Self {
        SandboxDefaults {
            cpus: DEFAULT_CPUS,
            memory_mib: DEFAULT_MEMORY_MIB,
            cpu_placement: CpuPlacement::default(),
            placement_profile: None,
            thp: Thp::default(),
            oci: OciSandboxDefaults::default(),
            shell: DEFAULT_SHELL.to_owned(),
            workdir: None,
            metrics_sample_interval_ms: Some(DEFAULT_METRICS_SAMPLE_INTERVAL_MS),
            disable_metrics_sample: false,
        }
    }
}

impl SandboxDefaults {
    pub(super) fn check(&self, runtime: &RuntimeConfig) -> Result<(), String> {
        if self.cpus == 0 {
            return Err("sandbox_defaults.cpus is 0; use 1 or more".into());
        }
        if self.memory_mib == 0 {
            return Err("sandbox_defaults.memory_mib is 0; use 1 or more".into());
        }
        if let Some(name) = &self.placement_profile
            && !runtime.placement_profiles.contains_key(name)
        {
            return Err("sandbox_defaults.placement_profile names no entry of runtime.placement_profiles".into());
        }
        if self.oci.root_disk.is_some() && self.oci.upper_size_mib.is_some() {
            return Err("sandbox_defaults.oci has both root_disk and the older upper_size_mib; keep root_disk".into());
        }
        Ok(())
    }
}

fn zero_as_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<u64>::deserialize(deserializer)?.filter(|&interval| interval > 0))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuPlacement {
    #[default]
    Inherit,
    Auto,
    Spread,
    Compact,
}

/// Transparent huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thp {
    Always,
    #[default]
    Madvise,
    Never,
}

/// `sandbox_defaults.oci.*`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OciSandboxDefaults {
    pub root_disk: Option<RootDisk>,
    /// Deprecated; excludes `root_disk`.
    pub upper_size_mib: Option<u32>,
}

/// The writable layer. A disk image is no default: it belongs to one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum RootDisk {
    Managed {
        #[serde(default)]
        size_mib: Option<u32>,
    },
    Tmpfs {
        #[serde(default)]
        size_mib: Option<u32>,
    },
    Flat {
        #[serde(default)]
        size_mib: Option<u32>,
        #[serde(default)]
        fstype: Option<String>,
        #[serde(default)]
        clone: CloneMode,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloneMode {
    #[default]
    Auto,
    Copy,
    Reflink,
}

/// `runtime.*`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeConfig {
    #[serde(deserialize_with = "or_default")]
    pub block_writeback: BlockWriteback,
    #[serde(deserialize_with = "or_default")]
    pub placement_profiles: BTreeMap<String, PlacementProfile>,
}

/// How much dirty data disks may hold back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum BlockWriteback {
    Auto {
        #[serde(default)]
        pool_mib: Option<u32>,
    },
    Fixed {
        per_disk_mib: u32,
        #[serde(default)]
        pool_mib: Option<u32>,
    },
    Off,
}

impl Default for BlockWriteback {
    fn default() -> Self {
        BlockWriteback::Auto { pool_mib: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementProfile {
    #[serde(deserialize_with = "or_default")]
    pub numa: NumaPlacement,
    #[serde(deserialize_with = "or_default")]
    pub memory: MemoryPlacement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NumaPlacement {
    pub mode: NumaMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumaMode {
    PreferSingle,
    StrictSingle,
    #[default]
    Inherit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryPlacement {
    pub mode: MemoryMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryMode {
    FollowCpu,
    #[default]
    Inherit,
}

/// `boot.*`: how long things may take. Keys of this implementation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BootConfig {
    /// From spawn to the agent's ready. Absent: 60; 180 for a microVM that is not known to run on hardware.
    pub ready_timeout_secs: Option<f64>,
    /// What the test machine that `auto` believes in is given; `MSB_CANARY_DEADLINE` beats it.
    pub canary_deadline_secs: f64,
}

impl Default for BootConfig {
    fn default() -> Self {
        BootConfig { ready_timeout_secs: None, canary_deadline_secs: 5.0 }
    }
}

/// Whether a sandbox boots without control groups for its memory, processors and number of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limits {
    /// It does; the isolation report says what holds instead.
    #[default]
    Available,
    /// It does not.
    Strict,
}

/// `disk.*`: what is left to the host. Keys of this implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskConfig {
    /// Free space below which nothing is created, loaded, unpacked or written to a volume; 0: none is kept. Absent: the larger
    /// of 1 GiB and 2 % of the file system, at most an eighth of it, and 2 % of its inodes, at most 10,000.
    pub host_headroom_mib: Option<u64>,
}

/// `images.*`. Keys of this implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagesConfig {
    /// Compressed layers are kept beside the unpacked ones: an image can be saved with the digests that it came with. Without
    /// them an image uses about half of the space and cannot be saved.
    pub keep_blobs: bool,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        ImagesConfig { keep_blobs: true }
    }
}

/// Longest time that a boot may be given.
const BOOT_MAX_SECS: f64 = 3600.0;

impl BootConfig {
    pub fn ready_timeout(&self) -> Option<Duration> {
        self.ready_timeout_secs.map(crate::seconds::duration)
    }
    pub fn canary_deadline(&self) -> Duration {
        crate::seconds::duration(self.canary_deadline_secs)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let stated = [
            ("boot.ready_timeout_secs", self.ready_timeout_secs),
            ("boot.canary_deadline_secs", Some(self.canary_deadline_secs)),
        ];
        match stated.into_iter().find(|(_, secs)| secs.is_some_and(|secs| !is_boot_time(secs))) {
            Some((key, _)) => Err(format!("{key} must be above 0 and at most {BOOT_MAX_SECS} seconds")),
            None => Ok(()),
        }
    }
}

pub(super) fn is_boot_time(secs: f64) -> bool {
    secs > 0.0 && secs <= BOOT_MAX_SECS
}

/// `registries.*`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistriesConfig {
    /// A PEM file.
    pub ca_certs: Option<PathBuf>,
    #[serde(deserialize_with = "or_default")]
    pub hosts: BTreeMap<String, RegistryEntry>,
    /// Of a registry, those that are asked before it, in order. A key of this implementation.
    #[serde(deserialize_with = "or_default")]
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// What images have to be signed with; the first entry that fits an image counts. A key of this implementation.
    #[serde(deserialize_with = "or_default")]
    pub policy: Vec<SignaturePolicy>,
}

/// Most mirrors of a registry, and most entries of the policy.
const REGISTRY_LIST_MAX: usize = 64;

impl RegistriesConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        for (host, entry) in &self.hosts {
            let key = format!("registries.hosts.{host}");
            if entry.auth.as_ref().is_some_and(|auth| auth.sources() != 1) {
                return Err(format!("{key}.auth must have exactly one of store, password_env and secret_name"));
            }
            if entry.token_host.as_ref().is_some_and(|token_host| !is_registry_host(token_host)) {
                return Err(format!("{key}.token_host must be a host, like auth.example.com or auth.example.com:8443"));
            }
        }
        for (host, mirrors) in &self.mirrors {
            if mirrors.len() > REGISTRY_LIST_MAX {
                return Err(format!("registries.mirrors.{host} has more than {REGISTRY_LIST_MAX} entries"));
            }
            let is_mirror = |url: &String| {
                let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
                // A user name and password in an address would be shown wherever the address is.
                rest.is_some_and(|rest| !rest.contains(['@', '?', '#']) && is_registry_host(authority(rest)))
            };
            if let Some(place) = mirrors.iter().position(|url| !is_mirror(url)) {
                return Err(format!(
                    "registries.mirrors.{host}[{place}] must be an address like https://mirror.example.com, without a user name"
                ));
            }
        }
        if self.policy.len() > REGISTRY_LIST_MAX {
            return Err(format!("registries.policy has more than {REGISTRY_LIST_MAX} entries"));
        }
        let is_empty = |entry: &SignaturePolicy| entry.matches.trim().is_empty() || entry.keys.is_empty();
        match self.policy.iter().position(is_empty) {
            Some(place) => Err(format!(
                "registries.policy[{place}] must have match, a repository with its registry, and at least one file in keys"
            )),
            None => Ok(()),
        }
    }
}

/// An entry of `registries.policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignaturePolicy {
    /// A repository, like `registry.example.com/team/app`, or the beginning of such names with `*` at its end.
    #[serde(rename = "match")]
    pub matches: String,
    /// PEM files of public keys, ECDSA P-256 or Ed25519; a signature by one of them is enough.
    pub keys: Vec<PathBuf>,
}

fn authority(rest: &str) -> &str {
    rest.split('/').next().unwrap_or_default()
}

fn is_registry_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    !text.is_empty() && text.len() <= 255 && text.bytes().all(plain)
}

/// `registries.hosts.<host>`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryEntry {
    /// Plain HTTP.
    pub insecure: bool,
    pub auth: Option<RegistryAuth>,
    /// `msb serve`: clients may name images of this registry although its address is not public. A key of this implementation.
    pub for_clients: bool,
    /// A further PEM file, for this registry only. A key of this implementation.
    pub ca_certs: Option<PathBuf>,
    /// A host that may be given this registry's credentials when the registry names it as its token server. A key of this
    /// implementation.
    pub token_host: Option<String>,
}

/// Where a registry's password comes from; exactly one source. The password itself is never in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryAuth {
    pub username: String,
    #[serde(default)]
    pub store: Option<CredentialStore>,
    /// Name of an environment variable.
    #[serde(default)]
    pub password_env: Option<String>,
    /// Name of a file under `<secrets>/registries`.
    #[serde(default)]
    pub secret_name: Option<String>,
}

impl RegistryAuth {
    fn sources(&self) -> usize {
        usize::from(self.store.is_some())
            + usize::from(self.password_env.is_some())
            + usize::from(self.secret_name.is_some())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialStore {
    /// The operating system's.
    Keyring,
}

/// `ssh.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SshConfig {
    /// 0: off.
    pub inactivity_timeout_secs: u64,
}

impl Default for SshConfig {
    fn default() -> Self {
        SshConfig { inactivity_timeout_secs: 600 }
    }
}

/// `metrics.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricsConfig {
    /// Most sandboxes that can be measured at the same time; 0: the built-in number.
    pub capacity: u32,
}
