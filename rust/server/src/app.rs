//! State that all requests share.

use std::sync::Arc;

use microsandbox_core::backend::SharedBackend;
use microsandbox_core::model::{Owners, VolumeInfo, VolumeQuery, validate_sandbox_name, validate_stored_name};
use microsandbox_core::{MicrosandboxError, Sandbox, SandboxHandle};
use microsandbox_wire::sandbox::CloudSandbox;
use tokio::sync::{Semaphore, watch};

use crate::access_log::AccessLog;
use crate::budgets::Budgets;
use crate::concurrency_limit::ConcurrencyLimit;
use crate::error::{ApiError, ApiResult};
use crate::idempotency::Idempotency;
use crate::keys::Keys;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::serve::Policy;
use crate::slots::Slots;
use crate::tenancy::Caller;

/// State of a server.
pub struct App {
    pub backend: SharedBackend,
    pub keys: Keys,
    pub org_id: String,
    pub limits: Limits,
    pub policy: Policy,
    /// Paths of this machine that no response shows.
    pub private: Vec<String>,
    pub requests: Arc<Semaphore>,
    pub waits: Arc<Semaphore>,
    /// Requests by key.
    pub by_key: ConcurrencyLimit,
    /// Relays by key, and by sandbox.
    pub relays_by_key: ConcurrencyLimit,
    pub relays_by_sandbox: ConcurrencyLimit,
    pub budgets: Budgets,
    pub pulls_by_owner: ConcurrencyLimit,
    pub slots: Arc<Slots>,
    pub idempotency: Idempotency,
    pub metrics: Metrics,
    pub access: AccessLog,
    /// Becomes true when the shutdown begins.
    pub ending: watch::Receiver<bool>,
}

/// The arguments of [`App::new`].
pub struct Parts {
    pub backend: SharedBackend,
    pub keys: Keys,
    pub org_id: String,
    pub limits: Limits,
    pub policy: Policy,
    pub private: Vec<String>,
    pub access: AccessLog,
    pub ending: watch::Receiver<bool>,
}

impl App {
    pub fn new(parts: Parts) -> App {
        let limits = parts.limits;
        App {
            backend: parts.backend,
            keys: parts.keys,
            org_id: parts.org_id,
            policy: parts.policy,
            private: parts.private,
            requests: Arc::new(Semaphore::new(limits.requests)),
            waits: Arc::new(Semaphore::new(limits.readiness_waits)),
            by_key: ConcurrencyLimit::new(limits.requests_per_key),
            pulls_by_owner: ConcurrencyLimit::new(limits.pulls_per_owner),
            relays_by_key: ConcurrencyLimit::new(limits.relays_per_key),
            relays_by_sandbox: ConcurrencyLimit::new(limits.relays_per_sandbox),
            budgets: Budgets::new(limits.budget, limits.key_budget),
            slots: Arc::default(),
            idempotency: Idempotency::new(limits.idempotency, limits.idempotency_entries),
            metrics: Metrics::default(),
            access: parts.access,
            ending: parts.ending,
            limits,
        }
    }

    /// Resolves when the shutdown begins.
    pub async fn shutting_down(&self) {
        let mut ending = self.ending.clone();
        // A dropped sender means the same.
        let _ = ending.wait_for(|ending| *ending).await;
    }

    /// The sandbox that the caller calls by this name: its own, or else one that it sees by the name under which it is stored.
    pub async fn get(&self, caller: &Caller, name: &str) -> ApiResult<SandboxHandle> {
        validate_sandbox_name(name).or_else(|error| match self.sees(caller) {
            Owners::Only(_) => Err(error),
            _ => validate_stored_name("sandbox", name),
        })?;
        match self.visible(&caller.own(), &caller.stored(name)).await? {
            Some(handle) => return Ok(handle),
            None if self.sees(caller) == caller.own() => {}
            None => {
                if let Some(handle) = self.visible(&self.sees(caller), name).await? {
                    return Ok(handle);
                }
            }
        }
        Err(ApiError::sandbox_not_found(name))
    }

    async fn visible(&self, owners: &Owners, stored: &str) -> ApiResult<Option<SandboxHandle>> {
        match Sandbox::get(&self.backend, stored).await {
            Ok(handle) => Ok(Some(handle).filter(|handle| owners.include(handle.owner()))),
            Err(MicrosandboxError::SandboxNotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The record with this id, as UUID text or in the form of the core.
    pub async fn by_id(&self, caller: &Caller, id: &str) -> ApiResult<SandboxHandle> {
        let sees = self.sees(caller);
        match self.backend.sandboxes().get_by_id(&crate::convert::from_uuid(id), &sees).await {
            Ok(record) => Ok(SandboxHandle::new(self.backend.clone(), record)),
            // Named as the caller wrote it.
            Err(MicrosandboxError::SandboxNotFound(_)) => Err(ApiError::sandbox_not_found(id)),
            Err(error) => Err(error.into()),
        }
    }

    /// The name under which the volume is stored that the caller calls by this name. Reads its row and no file.
    pub async fn volume(&self, caller: &Caller, name: &str) -> ApiResult<VolumeInfo> {
        let own = Some((caller.own(), caller.stored(name)));
        let other = (self.sees(caller) != caller.own()).then(|| (self.sees(caller), name.to_owned()));
        for (owners, stored) in own.into_iter().chain(other) {
            if let Some(found) = self.visible_volume(owners, stored).await? {
                return Ok(found);
            }
        }
        Err(MicrosandboxError::VolumeNotFound(name.into()).into())
    }

    /// Refuses unless the caller sees what is stored under this name.
    pub async fn stored_volume(&self, caller: &Caller, stored: &str) -> ApiResult<()> {
        match self.visible_volume(self.sees(caller), stored.to_owned()).await? {
            Some(_) => Ok(()),
            None => Err(MicrosandboxError::VolumeNotFound(stored.into()).into()),
        }
    }

    async fn visible_volume(&self, owners: Owners, stored: String) -> ApiResult<Option<VolumeInfo>> {
        if validate_stored_name("volume", &stored).is_err() {
            return Ok(None);
        }
        let query = VolumeQuery { name: Some(stored), owners, unmeasured: true };
        Ok(self.backend.volumes().list(query).await?.pop())
    }

    pub fn sees(&self, caller: &Caller) -> Owners {
        caller.sees(self.policy.share_local)
    }

    /// The record as a response.
    pub fn show(&self, caller: &Caller, handle: &SandboxHandle) -> CloudSandbox {
        crate::convert::sandbox(handle, caller, &self.org_id, &self.private)
    }
}
