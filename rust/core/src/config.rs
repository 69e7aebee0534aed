//! The configuration document: one JSON file, two views.
//!
//! | file | holds |
//! |---|---|
//! | this one | [`LocalConfig`], the local view: where things live, what a sandbox gets when nothing is said |
//! | `sections` | its sections, key by key |
//! | `budget` | what clients of a server may use |
//! | `overrides` | what a builder may set over it |
//! | `profile` | [`SdkConfig`], the view of profiles |
//! | `document` | reading the file, changing one key of it |
//! | `environment` | the variables that matter |
//! | [`keyring`] | secrets of the Secret Service |
//!
//! A missing file is all defaults. Unknown keys are ignored on read and kept on rewrite. A section or optional key that is
//! null counts as absent, except `sandbox_defaults.metrics_sample_interval_ms`, where null and 0 both mean off.
//! Variables that are set but empty (`MSB_HOME`, `MSB_CONFIG_PATH`) count as unset; `~` is not expanded; relative paths
//! are taken from the working directory at the time of reading.

mod budget;
mod document;
mod environment;
pub mod keyring;
mod overrides;
mod profile;
mod sections;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use budget::{Budget, BudgetName, ServeConfig};
pub use document::{clear_active_profile, set_active_profile};
pub use environment::Environment;
pub use overrides::LocalConfigOverrides;
pub use profile::normalise_url;
pub use profile::unknown as unknown_profile;
pub use profile::{ApiKeyRef, DEFAULT_CLOUD_API_URL, Profile, ProfileBackend, SdkConfig, Wire};
pub use sections::*;

use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{Isolation, LogLevel};

/// The directory under the user's home when nothing else is said.
const DEFAULT_HOME: &str = ".microsandbox";
const CONFIG_FILE: &str = "config.json";

/// The local view: where things live and what a sandbox gets when nothing is said. `Default` is all defaults without a
/// home; [`LocalConfig::load`] and [`LocalConfig::default_for_home`] give one that can be used.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalConfig {
    /// Base directory of all state. Absent in the file: `MSB_HOME`, else `~/.microsandbox`.
    #[serde(deserialize_with = "or_default")]
    pub home: PathBuf,
    /// Absent: silent.
    pub log_level: Option<LogLevel>,
    pub deployment_profile: Option<DeploymentProfile>,
    #[serde(deserialize_with = "or_default")]
    pub database: DatabaseConfig,
    #[serde(deserialize_with = "or_default")]
    pub paths: PathsConfig,
    #[serde(deserialize_with = "or_default")]
    pub sandbox_defaults: SandboxDefaults,
    #[serde(deserialize_with = "or_default")]
    pub runtime: RuntimeConfig,
    #[serde(deserialize_with = "or_default")]
    pub registries: RegistriesConfig,
    #[serde(deserialize_with = "or_default")]
    pub ssh: SshConfig,
    #[serde(deserialize_with = "or_default")]
    pub metrics: MetricsConfig,
    #[serde(deserialize_with = "or_default")]
    pub boot: BootConfig,
    #[serde(deserialize_with = "or_default")]
    pub disk: DiskConfig,
    #[serde(deserialize_with = "or_default")]
    pub images: ImagesConfig,
    #[serde(deserialize_with = "or_default")]
    pub serve: ServeConfig,
    /// What isolation is demanded when a call says nothing; `MSB_ISOLATION` beats it. A key of this implementation.
    pub isolation: Option<Isolation>,
    /// What becomes of a sandbox whose limits no control group enforces. A key of this implementation.
    #[serde(deserialize_with = "or_default")]
    pub limits: Limits,
}

impl LocalConfig {
    /// The file that this process's environment points at.
    pub fn load() -> MicrosandboxResult<LocalConfig> {
        LocalConfig::load_from(&Environment::Process)
    }

    /// As [`LocalConfig::load`], with an environment of the caller's.
    pub fn load_from(environment: &Environment) -> MicrosandboxResult<LocalConfig> {
        let path = config_path(environment)?;
        let mut config: LocalConfig = document::read(&path)?.unwrap_or_default();
        config.check().map_err(|what| document::invalid_value(&path, &what))?;
        if config.home.as_os_str().is_empty() {
            config.home = default_home(environment)?;
        }
        if let Some(text) = environment.text("MSB_ISOLATION") {
            config.isolation = Some(parse_isolation(&text)?);
        }
        if let Some(text) = environment.text("MSB_CANARY_DEADLINE") {
            config.boot.canary_deadline_secs = parse_canary_deadline(&text)?;
        }
        config.make_absolute()?;
        Ok(config)
    }

    /// All defaults under this home, without looking at any file or variable.
    pub fn default_for_home(home: impl AsRef<Path>) -> LocalConfig {
        LocalConfig { home: home.as_ref().to_owned(), ..LocalConfig::default() }
    }

    pub fn sandboxes_dir(&self) -> PathBuf {
        self.dir(&self.paths.sandboxes, "sandboxes")
    }
    pub fn volumes_dir(&self) -> PathBuf {
        self.dir(&self.paths.volumes, "volumes")
    }
    pub fn snapshots_dir(&self) -> PathBuf {
        self.dir(&self.paths.snapshots, "snapshots")
    }
    pub fn cache_dir(&self) -> PathBuf {
        self.dir(&self.paths.cache, "cache")
    }
    pub fn logs_dir(&self) -> PathBuf {
        self.dir(&self.paths.logs, "logs")
    }
    pub fn secrets_dir(&self) -> PathBuf {
        self.dir(&self.paths.secrets, "secrets")
    }
    /// Everything in which this product keeps state: nothing of it may be shown to a sandbox as such.
    pub fn state_dirs(&self) -> impl Iterator<Item = PathBuf> {
        let home = self.home.clone();
        let (sandboxes, volumes, snapshots) = (self.sandboxes_dir(), self.volumes_dir(), self.snapshots_dir());
        [home, sandboxes, volumes, snapshots, self.cache_dir(), self.logs_dir(), self.secrets_dir()].into_iter()
    }
    pub fn volume_path(&self, name: &str) -> PathBuf {
        self.volumes_dir().join(name)
    }
    /// `database.url` is ignored: the database belongs to the home.
    pub fn database_path(&self) -> PathBuf {
        self.home.join("db").join("msb.db")
    }

    fn dir(&self, stated: &Option<PathBuf>, name: &str) -> PathBuf {
        stated.clone().unwrap_or_else(|| self.home.join(name))
    }

    /// What the types cannot say. The error names the key.
    fn check(&self) -> Result<(), String> {
        self.sandbox_defaults.check(&self.runtime)?;
        self.boot.check()?;
        self.registries.check()
    }

    fn make_absolute(&mut self) -> MicrosandboxResult<()> {
        let RegistriesConfig { ca_certs, hosts, .. } = &mut self.registries;
        let of_hosts = hosts.values_mut().filter_map(|host| host.ca_certs.as_mut());
        let registries = ca_certs.iter_mut().chain(of_hosts);
        let all = std::iter::once(&mut self.home).chain(self.paths.all_mut()).chain(registries);
        for path in all {
            let absolute = std::path::absolute(&*path).map_err(|error| MicrosandboxError::io("locate", path, error))?;
            *path = absolute;
        }
        Ok(())
    }
}

/// `MSB_CONFIG_PATH`, else `<MSB_HOME or ~/.microsandbox>/config.json`. The `home` key does not move it.
pub fn config_path(environment: &Environment) -> MicrosandboxResult<PathBuf> {
    match environment.path("MSB_CONFIG_PATH") {
        Some(path) => Ok(path),
        None => Ok(default_home(environment)?.join(CONFIG_FILE)),
    }
}

fn default_home(environment: &Environment) -> MicrosandboxResult<PathBuf> {
    if let Some(home) = environment.path("MSB_HOME") {
        return Ok(home);
    }
    match environment.path("HOME") {
        Some(home) => Ok(home.join(DEFAULT_HOME)),
        None => Err(MicrosandboxError::InvalidConfig(
            "there is no place for state: neither MSB_HOME nor HOME is set; set MSB_HOME to a directory".into(),
        )),
    }
}

fn parse_isolation(text: &str) -> MicrosandboxResult<Isolation> {
    Isolation::parse(&text.trim().to_ascii_lowercase()).ok_or_else(|| {
        MicrosandboxError::InvalidConfig(
            "MSB_ISOLATION is none of auto, microvm, container; correct or unset it".into(),
        )
    })
}

fn parse_canary_deadline(text: &str) -> MicrosandboxResult<f64> {
    text.parse().ok().filter(|secs| sections::is_boot_time(*secs)).ok_or_else(|| {
        MicrosandboxError::InvalidConfig(
            "MSB_CANARY_DEADLINE is no number of seconds, like 5 or 0.5; correct or unset it".into(),
        )
    })
}
