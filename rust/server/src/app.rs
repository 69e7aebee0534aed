//! State that all requests share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use microsandbox_core::backend::{ListQuery, SharedBackend};
use microsandbox_core::model::SandboxStatus;
use microsandbox_core::{MicrosandboxError, Sandbox, SandboxHandle};
use microsandbox_wire::sandbox::CloudSandbox;
use tokio::sync::{Semaphore, watch};

use crate::access_log::AccessLog;
use crate::concurrency_limit::ConcurrencyLimit;
use crate::error::{ApiError, ApiResult};
use crate::idempotency::Idempotency;
use crate::keys::Keys;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Records read per call when all of them are read.
const PAGE: u32 = 100;

/// State of a server.
pub struct App {
    pub backend: SharedBackend,
    pub keys: Keys,
    pub org_id: String,
    pub limits: Limits,
    pub host_prefixes: Vec<PathBuf>,
    pub requests: Arc<Semaphore>,
    pub waits: Arc<Semaphore>,
    /// Requests by key.
    pub by_key: ConcurrencyLimit,
    /// Relays by key, and by sandbox.
    pub relays_by_key: ConcurrencyLimit,
    pub relays_by_sandbox: ConcurrencyLimit,
    pub creating: AtomicUsize,
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
    pub host_prefixes: Vec<PathBuf>,
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
            host_prefixes: parts.host_prefixes,
            requests: Arc::new(Semaphore::new(limits.requests)),
            waits: Arc::new(Semaphore::new(limits.readiness_waits)),
            by_key: ConcurrencyLimit::new(limits.requests_per_key),
            relays_by_key: ConcurrencyLimit::new(limits.relays_per_key),
            relays_by_sandbox: ConcurrencyLimit::new(limits.relays_per_sandbox),
            creating: AtomicUsize::new(0),
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

    pub async fn get(&self, name: &str) -> ApiResult<SandboxHandle> {
        Ok(Sandbox::get(&self.backend, name).await?)
    }

    /// The record with this id, as UUID text or in the form of the core.
    pub async fn by_id(&self, id: &str) -> ApiResult<SandboxHandle> {
        match self.backend.sandboxes().get_by_id(&crate::convert::from_uuid(id)).await {
            Ok(record) => Ok(SandboxHandle::new(self.backend.clone(), record)),
            // Named as the caller wrote it.
            Err(MicrosandboxError::SandboxNotFound(_)) => Err(ApiError::sandbox_not_found(id)),
            Err(error) => Err(error.into()),
        }
    }

    /// The record as a response.
    pub fn show(&self, handle: &SandboxHandle) -> CloudSandbox {
        crate::convert::sandbox(handle, &self.org_id)
    }

    /// Reserves one of the places for sandboxes while a sandbox is created.
    pub async fn reserve_slot(self: &Arc<App>) -> ApiResult<SandboxSlot> {
        let slot = SandboxSlot { app: self.clone() };
        let creating = self.creating.fetch_add(1, Ordering::AcqRel) + 1;
        let limit = self.limits.sandboxes as u64;
        // An upper bound: a creation in flight counts twice once its record is stored, and an ephemeral sandbox that has
        // ended counts until it is removed. Only when the bound exceeds the limit are the records read.
        let at_most = self.backend.sandboxes().count().await? + creating as u64;
        if at_most > limit && self.settled_count().await? + creating as u64 > limit {
            return Err(MicrosandboxError::ResourceExhausted {
                resource: "sandboxes".into(),
                message: format!("this server holds at most {limit} sandboxes: remove one first"),
            }
            .into());
        }
        Ok(slot)
    }

    /// The number of sandboxes without creations in flight. Listing settles each record first: ephemeral sandboxes that have
    /// ended are removed.
    async fn settled_count(&self) -> ApiResult<u64> {
        let (mut count, mut cursor) = (0, None);
        loop {
            let query = ListQuery { cursor, limit: Some(PAGE), ..ListQuery::default() };
            let page = self.backend.sandboxes().list(query).await?;
            count += page.records.iter().filter(|record| record.status != SandboxStatus::Starting).count() as u64;
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(count),
            }
        }
    }
}

/// Counts a creation in flight.
pub struct SandboxSlot {
    app: Arc<App>,
}

impl Drop for SandboxSlot {
    fn drop(&mut self) {
        self.app.creating.fetch_sub(1, Ordering::AcqRel);
    }
}
