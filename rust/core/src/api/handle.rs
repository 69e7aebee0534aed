//! The record of a sandbox, and its lifecycle by name.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_KILL_TIMEOUT, DEFAULT_STOP_TIMEOUT, LastRun, Sandbox, SandboxHandleCloudState,
    SandboxHandleInner, SandboxHandleLocalState, SandboxRecord,
};
use crate::backend::{Agent, BackendKind, ConnectRequest, SharedBackend};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::lifecycle::Ending;
use crate::model::{
    Isolation, IsolationReport, LogEntry, LogOptions, LogStream, LogStreamOptions, Modification, ModificationPlan,
    SandboxMetrics, SandboxSpec, SandboxStatus, SandboxStopResult,
};

/// Metadata as it was when this handle was made, plus lifecycle by name. Needs no live agent.
///
/// Methods ending in `_snapshot` read that state; everything that acts refreshes first.
#[derive(Clone)]
pub struct SandboxHandle {
    backend: SharedBackend,
    record: SandboxRecord,
}

impl std::fmt::Debug for SandboxHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxHandle")
            .field("name", &self.record.name)
            .field("backend_kind", &self.backend.kind())
            .field("status", &self.record.status)
            .finish()
    }
}

impl SandboxHandle {
    /// For backends.
    pub fn new(backend: SharedBackend, record: SandboxRecord) -> Self {
        SandboxHandle { backend, record }
    }

    pub fn name(&self) -> &str {
        &self.record.name
    }
    /// Identity that survives no replacement.
    pub fn id(&self) -> &str {
        &self.record.id
    }
    /// The client of a server for whom it was made; none for what was made on this machine.
    pub fn owner(&self) -> Option<&str> {
        self.record.owner.as_deref()
    }
    pub fn backend(&self) -> &SharedBackend {
        &self.backend
    }
    pub fn backend_kind(&self) -> BackendKind {
        self.backend.kind()
    }
    /// As of the read, not live.
    pub fn status_snapshot(&self) -> SandboxStatus {
        self.record.status
    }
    pub fn last_error_snapshot(&self) -> Option<&str> {
        self.record.last_error.as_deref()
    }
    pub fn last_run(&self) -> Option<&LastRun> {
        self.record.last_run.as_ref()
    }
    pub fn isolation(&self) -> Option<Isolation> {
        self.record.isolation
    }
    pub fn created_at(&self) -> Option<DateTime<Utc>> {
        self.record.created_at
    }
    pub fn updated_at(&self) -> Option<DateTime<Utc>> {
        self.record.updated_at
    }
    /// The stored configuration as text.
    pub fn config_json(&self) -> &str {
        &self.record.config_json
    }
    /// The stored configuration, parsed. Local only: a cloud answer is not the creator's configuration.
    pub fn config(&self) -> MicrosandboxResult<SandboxSpec> {
        if self.cloud().is_some() {
            return Err(MicrosandboxError::unsupported(
                "SandboxHandle::config on cloud",
                "when SandboxConfig is the cloud wire shape",
            ));
        }
        serde_json::from_str(&self.record.config_json)
            .map_err(|e| MicrosandboxError::json(format!("stored configuration of sandbox {}", self.record.name), e))
    }
    pub fn local(&self) -> Option<&SandboxHandleLocalState> {
        match &self.record.inner {
            SandboxHandleInner::Local(state) => Some(state),
            _ => None,
        }
    }
    pub fn cloud(&self) -> Option<&SandboxHandleCloudState> {
        match &self.record.inner {
            SandboxHandleInner::Cloud(state) => Some(state),
            _ => None,
        }
    }

    fn bound(&self, record: SandboxRecord) -> SandboxHandle {
        SandboxHandle { backend: self.backend.clone(), record }
    }

    fn ending(&self) -> Ending<'_> {
        Ending { backend: self.backend.sandboxes(), record: &self.record }
    }

    fn agent(&self) -> Box<dyn Agent + '_> {
        self.backend.sandboxes().agent(self.name())
    }

    /// Reads the record again; this handle stays as it is.
    pub async fn refresh(&self) -> MicrosandboxResult<SandboxHandle> {
        Ok(self.bound(self.backend.sandboxes().get(self.name()).await?))
    }

    /// Boots it with its stored configuration.
    pub async fn start(&self, detached: bool) -> MicrosandboxResult<Sandbox> {
        Sandbox::start(&self.backend, self.name(), detached).await
    }

    /// Attaches without owning; refused unless the snapshot says running or draining.
    pub async fn connect(&self, timeout: Option<Duration>) -> MicrosandboxResult<Sandbox> {
        if !self.status_snapshot().is_live() {
            return Err(MicrosandboxError::SandboxNotRunning {
                name: self.name().into(),
                status: self.status_snapshot(),
            });
        }
        let timeout = timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        let request = ConnectRequest { name: self.name(), timeout };
        Ok(Sandbox::new(self.backend.clone(), self.backend.sandboxes().connect(request).await?))
    }

    /// Running: connect; otherwise start. A status that changes in between is read again.
    pub async fn connect_or_start(&self, detached: bool) -> MicrosandboxResult<Sandbox> {
        let mut turn = 1;
        loop {
            let now = self.refresh().await?;
            // A paused sandbox is not started: connect fails with its status.
            let exists = now.status_snapshot().is_live() || now.status_snapshot() == SandboxStatus::Paused;
            let done = if exists { now.connect(None).await } else { now.start(detached).await };
            match done {
                // It ended, or another caller started it.
                Err(MicrosandboxError::SandboxNotRunning { .. } | MicrosandboxError::SandboxStillRunning(_))
                    if turn < super::CHANGED_TURNS =>
                {
                    turn += 1;
                    tokio::time::sleep(super::STATUS_POLL_INTERVAL).await;
                }
                done => return done,
            }
        }
    }

    /// Orderly end, forced after `timeout` (10 s by default; zero kills; `Duration::MAX` waits without limit). No error on
    /// a stopped sandbox.
    pub async fn stop(&self, timeout: Option<Duration>) -> MicrosandboxResult<()> {
        self.ending().stop(timeout.unwrap_or(DEFAULT_STOP_TIMEOUT)).await
    }

    /// Like [`SandboxHandle::stop`] but never forces.
    pub async fn stop_with_timeout(&self, timeout: Duration) -> MicrosandboxResult<()> {
        self.ending().stop_unforced(timeout).await
    }

    /// Ends it by force and waits (5 s by default).
    pub async fn kill(&self, timeout: Option<Duration>) -> MicrosandboxResult<()> {
        self.ending().kill(timeout.unwrap_or(DEFAULT_KILL_TIMEOUT)).await
    }

    pub async fn request_stop(&self) -> MicrosandboxResult<()> {
        self.ending().request_stop().await
    }

    pub async fn request_kill(&self) -> MicrosandboxResult<()> {
        self.ending().request_kill().await
    }

    pub async fn request_drain(&self) -> MicrosandboxResult<()> {
        self.ending().request_drain().await
    }

    /// Changes it: all of it or nothing, now or at its next start.
    pub async fn modify(&self, change: Modification) -> MicrosandboxResult<ModificationPlan> {
        self.backend.sandboxes().modify(self.name(), change).await
    }
    /// Freezes all processes until [`SandboxHandle::resume`]; idempotent. In-flight calls wait.
    pub async fn pause(&self) -> MicrosandboxResult<()> {
        self.backend.sandboxes().pause(self.name()).await
    }
    /// Thaws all processes; idempotent.
    pub async fn resume(&self) -> MicrosandboxResult<()> {
        self.backend.sandboxes().resume(self.name()).await
    }

    /// Waits for any end without asking for it. An ephemeral sandbox whose record is gone counts as stopped.
    pub async fn wait_until_stopped(&self) -> MicrosandboxResult<SandboxStopResult> {
        self.ending().wait().await
    }

    /// Waits until `status` is seen.
    pub async fn wait_for_status(&self, status: SandboxStatus) -> MicrosandboxResult<SandboxHandle> {
        loop {
            let asked = Instant::now();
            let now = self.refresh().await?;
            if now.status_snapshot() == status {
                return Ok(now);
            }
            tokio::time::sleep(super::STATUS_POLL_INTERVAL.saturating_sub(asked.elapsed())).await;
        }
    }

    /// Deletes a sandbox that is not live; refuses to act on a later one of the same name.
    pub async fn remove(&self) -> MicrosandboxResult<()> {
        self.ending().remove().await
    }

    pub async fn logs(&self, options: LogOptions) -> MicrosandboxResult<Vec<LogEntry>> {
        self.backend.sandboxes().logs(self.name(), options).await
    }
    pub async fn log_stream(&self, options: LogStreamOptions) -> MicrosandboxResult<LogStream> {
        self.backend.sandboxes().log_stream(self.name(), options).await
    }
    pub async fn metrics(&self) -> MicrosandboxResult<SandboxMetrics> {
        if self.cloud().is_some() {
            return Err(MicrosandboxError::unsupported("SandboxHandle::metrics on cloud", "when cloud metrics land"));
        }
        self.backend.sandboxes().metrics(self.name(), &self.config()?).await
    }
    pub async fn ping(&self) -> MicrosandboxResult<Duration> {
        self.agent().ping().await
    }
    pub async fn touch(&self) -> MicrosandboxResult<u64> {
        self.agent().touch().await
    }
    pub async fn isolation_report(&self) -> MicrosandboxResult<IsolationReport> {
        self.backend.sandboxes().isolation(self.name()).await
    }
}
