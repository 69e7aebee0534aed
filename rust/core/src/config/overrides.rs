//! What a builder may set over the stored configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{LocalConfig, RegistryEntry};
use crate::model::LogLevel;

/// One field a setter; `None` leaves the stored value alone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LocalConfigOverrides {
    /// Does not clear a stored `paths.*`.
    pub home: Option<PathBuf>,
    pub sandboxes_dir: Option<PathBuf>,
    pub volumes_dir: Option<PathBuf>,
    pub snapshots_dir: Option<PathBuf>,
    pub cache_dir: Option<PathBuf>,
    pub logs_dir: Option<PathBuf>,
    pub secrets_dir: Option<PathBuf>,
    pub max_connections: Option<u32>,
    pub connect_timeout_secs: Option<u64>,
    pub busy_timeout_secs: Option<u64>,
    pub default_cpus: Option<u8>,
    pub default_memory_mib: Option<u32>,
    pub shell: Option<String>,
    /// Cannot clear a stored one.
    pub workdir: Option<String>,
    /// `Some(0)` switches sampling off.
    pub metrics_sample_interval_ms: Option<u64>,
    pub disable_metrics_sample: Option<bool>,
    /// `Some(None)` clears a stored one.
    pub ca_certs: Option<Option<PathBuf>>,
    /// Replaces the whole map.
    pub registry_hosts: Option<BTreeMap<String, RegistryEntry>>,
    pub log_level: Option<LogLevel>,
}

impl LocalConfig {
    /// Field by field: the override if given, else what is here. Pure.
    #[must_use]
    pub fn merge(mut self, overrides: LocalConfigOverrides) -> LocalConfig {
        let over = overrides;
        set(&mut self.home, over.home);
        set_some(&mut self.paths.sandboxes, over.sandboxes_dir);
        set_some(&mut self.paths.volumes, over.volumes_dir);
        set_some(&mut self.paths.snapshots, over.snapshots_dir);
        set_some(&mut self.paths.cache, over.cache_dir);
        set_some(&mut self.paths.logs, over.logs_dir);
        set_some(&mut self.paths.secrets, over.secrets_dir);
        set(&mut self.database.max_connections, over.max_connections);
        set(&mut self.database.connect_timeout_secs, over.connect_timeout_secs);
        set(&mut self.database.busy_timeout_secs, over.busy_timeout_secs);
        set(&mut self.sandbox_defaults.cpus, over.default_cpus);
        set(&mut self.sandbox_defaults.memory_mib, over.default_memory_mib);
        set(&mut self.sandbox_defaults.shell, over.shell);
        set_some(&mut self.sandbox_defaults.workdir, over.workdir);
        let interval = over.metrics_sample_interval_ms.map(|interval| Some(interval).filter(|&ms| ms > 0));
        set(&mut self.sandbox_defaults.metrics_sample_interval_ms, interval);
        set(&mut self.sandbox_defaults.disable_metrics_sample, over.disable_metrics_sample);
        set(&mut self.registries.ca_certs, over.ca_certs);
        set(&mut self.registries.hosts, over.registry_hosts);
        set_some(&mut self.log_level, over.log_level);
        self
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn set_some<T>(field: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *field = value;
    }
}
