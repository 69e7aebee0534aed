//! The backend that is meant when a call names none: the innermost scope of the task, else what was set for the process,
//! else what the ladder (`resolution`) finds, once.
//!
//! Whatever is found stays found: later changes of variables or of the file have no effect, and neither has a second
//! look after a failure. A failed resolution is a backend of kind cloud whose every operation fails with the reason
//! (`unresolved`); it never falls back to this machine, since then code meant to run elsewhere would run here.
//!
//! A scope follows its future from thread to thread, and everything polled inside it. A task that is spawned is a future of
//! its own: wrap it in [`inherit_scope`], or take [`default_backend`] before spawning and pass it.

mod resolution;
mod unresolved;

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use microsandbox_core::backend::{BackendKind, SharedBackend};
use microsandbox_core::config::{Environment, SdkConfig};
use microsandbox_core::error::MicrosandboxResult;

pub use resolution::{Resolution, resolve_from};

/// What the current default is and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    pub kind: BackendKind,
    /// Cloud only; never the key.
    pub api_url: Option<String>,
    /// `programmatic`, `MSB_BACKEND`, `MSB_API_KEY`, `MSB_PROFILE`, `active_profile` or `default`.
    pub source: &'static str,
    pub profile: Option<String>,
}

impl BackendInfo {
    /// Of a backend that a program chose.
    pub fn programmatic(backend: &SharedBackend) -> Self {
        let remote = backend.remote_address();
        BackendInfo {
            kind: backend.kind(),
            api_url: remote.as_ref().map(|remote| remote.url.clone()),
            source: "programmatic",
            profile: remote.and_then(|remote| remote.profile),
        }
    }
}

#[derive(Clone)]
struct Chosen {
    backend: SharedBackend,
    info: BackendInfo,
}

tokio::task_local! {
    static SCOPED: SharedBackend;
}

/// What the ladder found; filled at most once.
static RESOLVED: OnceLock<Chosen> = OnceLock::new();
/// What the program set.
static INSTALLED: RwLock<Option<Chosen>> = RwLock::new(None);

/// The backend for calls that name none. Never fails: see the module's text for what a failed resolution gives.
pub fn default_backend() -> SharedBackend {
    current().backend
}

/// As [`default_backend`], described.
pub fn default_backend_info() -> BackendInfo {
    current().info
}

/// Replaces the process's default. For the start of a program, before other calls.
pub fn set_default_backend(backend: impl Into<SharedBackend>) {
    let new = described(backend.into());
    *INSTALLED.write().unwrap_or_else(PoisonError::into_inner) = Some(new);
}

/// As [`set_default_backend`], giving the previous default, so that it can be restored.
pub fn swap_default_backend(backend: impl Into<SharedBackend>) -> SharedBackend {
    let new = described(backend.into());
    // Before the lock: resolving reads a file.
    let resolved = if is_installed() { None } else { Some(resolved().clone()) };
    let previous = INSTALLED.write().unwrap_or_else(PoisonError::into_inner).replace(new);
    match previous.or(resolved) {
        Some(previous) => previous.backend,
        // Set when we looked: nothing ever unsets it, so it was taken out just now.
        None => default_backend(),
    }
}

/// Runs `future` with this backend as the default. Scopes nest; the process's default is not touched.
pub async fn with_backend<F: Future>(backend: impl Into<SharedBackend>, future: F) -> F::Output {
    SCOPED.scope(backend.into(), future).await
}

/// The future with the scope that is in force now, for spawning it.
pub fn inherit_scope<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let scope = SCOPED.try_with(Arc::clone).ok();
    async move {
        match scope {
            Some(backend) => SCOPED.scope(backend, future).await,
            None => future.await,
        }
    }
}

/// Climbs the ladder now and says what fails; installs nothing.
pub fn resolve_default_backend() -> MicrosandboxResult<SharedBackend> {
    resolve_from(&Environment::Process).backend
}

/// The profile view of the configuration document.
pub fn load_sdk_config() -> MicrosandboxResult<SdkConfig> {
    SdkConfig::load()
}

fn current() -> Chosen {
    if let Ok(backend) = SCOPED.try_with(Arc::clone) {
        return described(backend);
    }
    let installed = INSTALLED.read().unwrap_or_else(PoisonError::into_inner).clone();
    installed.unwrap_or_else(|| resolved().clone())
}

fn is_installed() -> bool {
    INSTALLED.read().unwrap_or_else(PoisonError::into_inner).is_some()
}

fn resolved() -> &'static Chosen {
    RESOLVED.get_or_init(|| {
        let resolution = resolve_from(&Environment::Process);
        match resolution.backend {
            Ok(backend) => {
                let info = BackendInfo { kind: backend.kind(), ..resolution.info };
                Chosen { backend, info }
            }
            Err(error) => {
                tracing::error!(%error, "no default backend: every operation that names none will fail");
                let info = BackendInfo { kind: BackendKind::Cloud, ..resolution.info };
                Chosen { backend: unresolved::backend(&error), info }
            }
        }
    })
}

/// A resolved backend that is put back keeps what is known of it.
fn described(backend: SharedBackend) -> Chosen {
    if let Some(resolved) = RESOLVED.get()
        && Arc::ptr_eq(&resolved.backend, &backend)
    {
        return resolved.clone();
    }
    let info = BackendInfo::programmatic(&backend);
    Chosen { backend, info }
}
