//! Sandboxes on this machine: one `msb-runtime` process each, found again through the files and rows of one home.
//!
//! | module | holds |
//! |---|---|
//! | [`lifecycle`] | create, start, stop, kill, remove, get, list, wait |
//! | [`boot`] | from a stored specification to a running agent |
//! | [`reconcile`] | rows against reality |
//! | [`isolation`] | which driver a sandbox gets; the canary |
//! | [`validate`], [`root`], [`idmap`] | what a specification must satisfy and turns into |
//! | [`spawn`], [`embedded`] | starting the embedded runtime |
//! | [`exec`], [`logs`], [`metrics`] | talking to the agent, reading what it left |
//! | [`oom`] | the kernel's verdict on killed programs |
//! | [`volumes`], [`volume_files`], [`mounts`] | named volumes, their files, and what sandboxes mount |
//! | [`host_image`], [`runtime_layer`], [`doctor`] | this machine as an image; what it can give |

mod boot;
pub mod doctor;
mod embedded;
pub mod exec;
mod freeze;
pub mod host_image;
mod idmap;
pub mod isolation;
mod lifecycle;
mod lock;
pub mod logs;
pub mod metrics;
mod modify;
mod mounts;
mod oom;
mod operations;
mod patches;
mod process;
mod reconcile;
mod root;
pub mod runtime_layer;
mod spawn;
pub(crate) mod tree;
pub(crate) mod validate;
mod volume_dir;
mod volume_files;
mod volumes;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use microsandbox_contract::{IdMap, Job, Report};
use tokio::net::UnixStream;
use tokio::sync::OnceCell;

use super::connections::Connections;
use super::{Backend, BackendKind, ImageBackend, SandboxBackend, SharedBackend, VolumeBackend};
use crate::agent::AgentAddress;
use crate::config::{LocalConfig, LocalConfigOverrides};
use crate::error::{Lack, MicrosandboxError, MicrosandboxResult};
use crate::model::Isolation;
use crate::store::Store;

pub use idmap::find_program;

/// Sandboxes on this machine, under one home. Instances share nothing: two homes live side by side in one process.
pub struct LocalBackend {
    config: LocalConfig,
    store: OnceCell<Store>,
    ids: OnceLock<IdMap>,
    oom: oom::OomCounters,
    connections: Connections<UnixStream>,
    /// Why the last sandbox that could have been a microVM became a container.
    fallback: Mutex<Option<Lack>>,
    /// Why the configuration file could not be read; every operation then fails with it.
    broken: Option<String>,
}

impl std::fmt::Debug for LocalBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalBackend").field("home", &self.config.home).finish_non_exhaustive()
    }
}

impl LocalBackend {
    /// Reads the configuration now, opens nothing. A configuration that cannot be read fails every operation with what
    /// is wrong in it; it never turns into defaults.
    pub fn lazy() -> Self {
        match LocalConfig::load() {
            Ok(config) => LocalBackend::from_config(config),
            Err(error) => {
                LocalBackend { broken: Some(error.to_string()), ..LocalBackend::from_config(LocalConfig::default()) }
            }
        }
    }

    /// With this configuration and nothing else.
    pub fn from_config(config: LocalConfig) -> Self {
        LocalBackend {
            config,
            store: OnceCell::new(),
            ids: OnceLock::new(),
            oom: oom::OomCounters::default(),
            connections: Connections::default(),
            fallback: Mutex::new(None),
            broken: None,
        }
    }

    /// The stored configuration with overrides.
    pub fn builder() -> LocalBackendBuilder {
        LocalBackendBuilder { overrides: LocalConfigOverrides::default() }
    }

    pub fn config(&self) -> &LocalConfig {
        &self.config
    }

    /// The state database, opened and migrated on first use; a failure is not remembered.
    pub async fn store(&self) -> MicrosandboxResult<&Store> {
        if let Some(why) = &self.broken {
            return Err(MicrosandboxError::InvalidConfig(why.clone()));
        }
        self.store
            .get_or_try_init(|| async {
                let path = self.config.home.join("db").join("msb.db");
                Store::check_path(&path)?;
                make_private_directory(&self.config.home)?;
                Store::open(&path, &self.config.database).await
            })
            .await
    }

    pub fn sandboxes_dir(&self) -> PathBuf {
        self.config.sandboxes_dir()
    }
    pub fn volumes_dir(&self) -> PathBuf {
        self.config.volumes_dir()
    }
    pub fn cache_dir(&self) -> PathBuf {
        self.config.cache_dir()
    }
    /// `<sandboxes>/<name>`.
    pub fn sandbox_dir(&self, name: &str) -> PathBuf {
        self.sandboxes_dir().join(name)
    }

    /// Where the agent of this sandbox listens while it runs.
    pub fn agent_socket(&self, name: &str) -> PathBuf {
        self.sandbox_dir(name).join("runtime/agent.sock")
    }

    /// Where the agent of a running sandbox listens, and what it wants to see.
    pub fn agent_address(&self, name: &str) -> MicrosandboxResult<AgentAddress> {
        crate::model::validate_sandbox_name(name)?;
        AgentAddress::read(name, self.agent_socket(name))
    }

    /// How ids inside sandboxes of this home map to host ids.
    pub fn id_map(&self) -> MicrosandboxResult<IdMap> {
        if let Some(ids) = self.ids.get() {
            return Ok(ids.clone());
        }
        let ids = idmap::resolve(&self.config.home)?;
        Ok(self.ids.get_or_init(|| ids).clone())
    }

    /// Runs `msb-runtime` for a job that ends by itself. A [`Report::Failed`] reaches `on_report`; this errs only when
    /// the process could not run or died.
    pub async fn run_job(
        &self,
        job: &Job,
        payload: Option<BorrowedFd<'_>>,
        on_report: &mut (dyn FnMut(Report) + Send),
    ) -> MicrosandboxResult<()> {
        spawn::run_job(job, payload, on_report).await
    }

    /// Drops what is kept open for a sandbox that is gone.
    fn forget(&self, name: &str) {
        self.oom.forget(name);
        self.connections.forget(name);
    }

    /// Why the last sandbox of this instance that asked for nothing became a container, and what helps.
    pub fn fallback(&self) -> Option<Lack> {
        self.fallback.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_fallback(&self, lack: Lack) {
        *self.fallback.lock().unwrap_or_else(PoisonError::into_inner) = Some(lack);
    }

    /// What is demanded when a call says nothing.
    pub fn default_isolation(&self) -> Isolation {
        self.config.isolation.unwrap_or_default()
    }
}

/// State is nobody else's business: mode 0700 for what we create.
pub fn make_private_directory(path: &Path) -> MicrosandboxResult<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| MicrosandboxError::io("create", path, e))
}

impl Backend for LocalBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Local
    }
    fn sandboxes(&self) -> &dyn SandboxBackend {
        self
    }
    fn volumes(&self) -> &dyn VolumeBackend {
        self
    }
    fn images(&self) -> &dyn ImageBackend {
        self
    }
    fn as_local(&self) -> Option<&LocalBackend> {
        Some(self)
    }
}

impl From<LocalBackend> for SharedBackend {
    fn from(backend: LocalBackend) -> Self {
        Arc::new(backend)
    }
}

/// Overrides over the stored configuration; an unset field leaves the stored value alone.
#[derive(Debug, Clone, Default)]
pub struct LocalBackendBuilder {
    overrides: LocalConfigOverrides,
}

impl LocalBackendBuilder {
    /// Every override at once.
    pub fn overrides(mut self, overrides: LocalConfigOverrides) -> Self {
        self.overrides = overrides;
        self
    }
    /// Base directory of all state.
    pub fn home(mut self, home: impl Into<PathBuf>) -> Self {
        self.overrides.home = Some(home.into());
        self
    }
    /// Reads the stored configuration and merges; opens nothing.
    pub fn build_lazy(self) -> MicrosandboxResult<LocalBackend> {
        Ok(LocalBackend::from_config(LocalConfig::load()?.merge(self.overrides)))
    }
    /// As [`LocalBackendBuilder::build_lazy`], then opens and migrates the database.
    pub async fn build(self) -> MicrosandboxResult<LocalBackend> {
        let backend = self.build_lazy()?;
        backend.store().await?;
        Ok(backend)
    }
}
