//! Sandboxes on this machine: one `msb-runtime` process each, found again through the files and rows of one home.
//!
//! | module | holds |
//! |---|---|
//! | [`operations`], [`volumes`] | the backend traits, delegated |
//! | [`lifecycle`] | create, start, stop, kill, remove, detach |
//! | [`records`], [`reconcile`], [`strays`] | reading records; rows against reality; runtimes without a record |
//! | [`boot`], [`root`], [`mounts`], [`patches`] | from a stored specification to a running agent |
//! | [`isolation`], [`guest_kernel`], [`doctor`] | which driver a sandbox gets; the kernel of a microVM; what this machine can give |
//! | [`modify`], [`freeze`] | changing and pausing a sandbox that exists |
//! | [`logs`], [`metrics`], [`upper`], [`oom`] | what a sandbox left, what it uses, which of its programs the kernel killed |
//! | [`volume_dir`], [`volume_files`] | the directories of named volumes, and their files |
//! | [`disk_use`], [`storage`] | what sandboxes and volumes use of the disk; all of it, by category |
//! | [`host_image`], [`runtime_layer`] | this machine as an image; the layer beneath every sandbox |
//!
//! Everything below [`operations`] takes a [`Home`], not the backend.

mod boot;
pub mod disk_use;
pub mod doctor;
mod freeze;
pub mod guest_kernel;
pub mod host_image;
pub mod isolation;
mod lifecycle;
pub mod logs;
pub mod metrics;
mod modify;
mod mounts;
mod oom;
mod operations;
mod patches;
mod reconcile;
mod records;
mod root;
pub mod runtime_layer;
mod storage;
pub mod strays;
mod upper;
mod volume_dir;
mod volume_files;
mod volumes;

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use microsandbox_core::agent::connections::Connections;
use microsandbox_core::backend::{Backend, BackendKind, ImageBackend, SandboxBackend, SharedBackend, VolumeBackend};
use microsandbox_core::config::{LocalConfig, LocalConfigOverrides};
use microsandbox_core::error::{Lack, MicrosandboxResult};
use microsandbox_home::Home;
use tokio::net::UnixStream;

pub use boot::derived_hostname;
pub use microsandbox_home::ids::find_program;
/// The logins of registries.
pub use microsandbox_images::credentials;

/// Sandboxes on this machine, under one home. Instances share nothing: two homes live side by side in one process.
pub struct LocalBackend {
    home: Home,
    oom: oom::OomCounters,
    connections: Connections<UnixStream>,
    fallback: isolation::Fallback,
}

impl std::fmt::Debug for LocalBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalBackend").field("home", &self.home.path()).finish_non_exhaustive()
    }
}

impl LocalBackend {
    /// Reads the configuration now, opens nothing. A configuration that cannot be read fails every operation with what
    /// is wrong in it; it never turns into defaults.
    pub fn lazy() -> Self {
        match LocalConfig::load() {
            Ok(config) => LocalBackend::from_config(config),
            Err(error) => LocalBackend::of_home(Home::broken(error.to_string())),
        }
    }

    /// With this configuration and nothing else.
    pub fn from_config(config: LocalConfig) -> Self {
        LocalBackend::of_home(Home::new(config))
    }

    fn of_home(home: Home) -> Self {
        LocalBackend {
            home,
            oom: oom::OomCounters::default(),
            connections: Connections::default(),
            fallback: isolation::Fallback::default(),
        }
    }

    /// The stored configuration with overrides.
    pub fn builder() -> LocalBackendBuilder {
        LocalBackendBuilder { overrides: LocalConfigOverrides::default() }
    }

    /// The local backend behind a shared one, if it is local: for what needs paths or the database.
    pub fn of(backend: &SharedBackend) -> Option<&LocalBackend> {
        backend.as_local()?.downcast_ref()
    }

    /// Paths, database and ids.
    pub fn home(&self) -> &Home {
        &self.home
    }

    pub fn config(&self) -> &LocalConfig {
        self.home.config()
    }

    /// Drops what is kept open for a sandbox that is gone.
    fn forget(&self, name: &str) {
        self.oom.forget(name);
        self.connections.forget(name);
    }

    /// Why the last sandbox of this instance that could have been a microVM became a container, and what helps.
    pub fn fallback(&self) -> Option<Lack> {
        self.fallback.get()
    }
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
    fn as_local(&self) -> Option<&(dyn Any + Send + Sync)> {
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
    /// Replaces every override.
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
        backend.home.store().await?;
        Ok(backend)
    }
}
