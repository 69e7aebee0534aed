//! What all requests share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use microsandbox_core::backend::{ListQuery, SharedBackend};
use microsandbox_core::model::SandboxStatus;
use microsandbox_core::{MicrosandboxError, Sandbox, SandboxHandle};
use microsandbox_wire::sandbox::CloudSandbox;
use tokio::sync::{Semaphore, watch};

use crate::access_log::AccessLog;
use crate::concurrency_limit::ConcurrencyLimit;
use crate::error::{Answer, ApiError};
use crate::idempotency::Idempotency;
use crate::keys::Keys;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Page of the walks through all records.
const WALK_PAGE: u32 = 100;
/// Names remembered by identity.
const NAMES_MAX: usize = 10_000;

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
    /// Turns true when the server is to end.
    pub ending: watch::Receiver<bool>,
    /// Identity to name; a hint that is checked on each use.
    names: Mutex<HashMap<String, String>>,
}

/// What [`App::new`] is given.
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
            names: Mutex::default(),
            limits,
        }
    }

    /// Resolves when the server is to end.
    pub async fn ended(&self) {
        let mut ending = self.ending.clone();
        // A sender that is gone means the same.
        let _ = ending.wait_for(|ending| *ending).await;
    }

    pub async fn get(&self, name: &str) -> Answer<SandboxHandle> {
        Ok(Sandbox::get(&self.backend, name).await?)
    }

    /// The record as an answer; its identity is remembered.
    pub fn show(&self, handle: &SandboxHandle) -> CloudSandbox {
        self.remember(handle);
        crate::convert::sandbox(handle, &self.org_id)
    }

    fn remember(&self, handle: &SandboxHandle) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        if names.get(handle.id()).is_none_or(|name| name != handle.name()) {
            names.insert(handle.id().to_owned(), handle.name().to_owned());
        }
    }

    /// The record with this identity, as UUID text or as the core writes it.
    pub async fn by_id(&self, id: &str) -> Answer<SandboxHandle> {
        let wanted = crate::convert::from_uuid(id);
        let hint = self.names.lock().unwrap_or_else(PoisonError::into_inner).get(&wanted).cloned();
        if let Some(name) = hint {
            match Sandbox::get(&self.backend, &name).await {
                Ok(handle) if handle.id() == wanted => return Ok(handle),
                Ok(_) | Err(MicrosandboxError::SandboxNotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
            self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(&wanted);
        }
        let mut found = None;
        self.walk(|handle| {
            if handle.id() == wanted {
                found = Some(handle.clone());
            }
            found.is_none()
        })
        .await?;
        let handle = found.ok_or_else(|| ApiError::sandbox_not_found(id))?;
        self.remember(&handle);
        Ok(handle)
    }

    /// All records, newest first, until `look` says it has seen enough.
    async fn walk(&self, mut look: impl FnMut(&SandboxHandle) -> bool + Send) -> Answer<()> {
        let mut cursor = None;
        loop {
            let query = ListQuery { cursor, limit: Some(WALK_PAGE), ..ListQuery::default() };
            let page = Sandbox::list(&self.backend, query).await?;
            if !page.sandboxes.iter().all(&mut look) || page.next_cursor.is_none() {
                return Ok(());
            }
            cursor = page.next_cursor;
        }
    }

    /// A place for one more sandbox, held while it is made.
    pub async fn room(self: &Arc<App>) -> Answer<Room> {
        let room = Room { app: self.clone() };
        let making = self.creating.fetch_add(1, Ordering::AcqRel) + 1;
        let mut count = 0;
        self.walk(|handle| {
            // One that is being made counts already.
            count += usize::from(handle.status_snapshot() != SandboxStatus::Starting);
            count + making <= self.limits.sandboxes
        })
        .await?;
        if count + making > self.limits.sandboxes {
            return Err(MicrosandboxError::ResourceExhausted {
                resource: "sandboxes".into(),
                message: format!("this server holds at most {}; remove one first", self.limits.sandboxes),
            }
            .into());
        }
        Ok(room)
    }
}

/// Counts a sandbox that is being made.
pub struct Room {
    app: Arc<App>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.app.creating.fetch_sub(1, Ordering::AcqRel);
    }
}
