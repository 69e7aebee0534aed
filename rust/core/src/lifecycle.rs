//! Ending a sandbox, in terms of [`SandboxBackend`]: requests that are idempotent, waits, escalation, replacing.

use std::time::Duration;

use chrono::Utc;

use crate::api::{DEFAULT_KILL_TIMEOUT, DEFAULT_STOP_TIMEOUT, SandboxHandleInner, SandboxRecord};
use crate::backend::{RemoveRequest, SandboxBackend};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{SandboxSpec, SandboxStatus, SandboxStopResult};

/// A sandbox that is to end, by the record that the caller has of it.
#[derive(Clone, Copy)]
pub struct Ending<'a> {
    pub backend: &'a dyn SandboxBackend,
    pub record: &'a SandboxRecord,
}

impl Ending<'_> {
    fn name(&self) -> &str {
        &self.record.name
    }

    /// Orderly end, forced after `timeout`; zero kills without asking. Idempotent.
    pub async fn stop(&self, timeout: Duration) -> MicrosandboxResult<()> {
        if timeout.is_zero() {
            return self.kill(DEFAULT_KILL_TIMEOUT).await;
        }
        self.request_stop().await?;
        match tokio::time::timeout(timeout, self.wait()).await {
            Ok(result) => ended(result),
            Err(_elapsed) => {
                tracing::warn!(
                    sandbox = self.name(),
                    timeout_secs = timeout.as_secs(),
                    "graceful stop exceeded its timeout and is escalated"
                );
                self.request_kill().await?;
                self.observe_stop(DEFAULT_KILL_TIMEOUT).await
            }
        }
    }

    /// As [`Ending::stop`], never forced.
    pub async fn stop_unforced(&self, timeout: Duration) -> MicrosandboxResult<()> {
        self.request_stop().await?;
        match tokio::time::timeout(timeout, self.wait()).await {
            Ok(result) => ended(result),
            Err(_elapsed) => {
                Err(MicrosandboxError::StopTimeout { name: self.name().into(), secs: timeout.as_secs_f64() })
            }
        }
    }

    /// Ends it by force and waits.
    pub async fn kill(&self, timeout: Duration) -> MicrosandboxResult<()> {
        self.request_kill().await?;
        self.observe_stop(timeout).await
    }

    async fn observe_stop(&self, timeout: Duration) -> MicrosandboxResult<()> {
        match tokio::time::timeout(timeout, self.wait()).await {
            Ok(result) => ended(result),
            Err(_elapsed) => {
                Err(MicrosandboxError::KillTimeout { name: self.name().into(), secs: timeout.as_secs_f64() })
            }
        }
    }

    pub async fn request_stop(&self) -> MicrosandboxResult<()> {
        if self.has_ended().await? {
            return Ok(());
        }
        self.unless_ended(self.backend.stop(self.name()).await)
    }

    pub async fn request_kill(&self) -> MicrosandboxResult<()> {
        if self.has_ended().await? {
            return Ok(());
        }
        self.unless_ended(self.backend.kill(self.name()).await)
    }

    pub async fn request_drain(&self) -> MicrosandboxResult<()> {
        if self.has_ended().await? {
            return Ok(());
        }
        self.unless_ended(self.backend.drain(self.name()).await)
    }

    async fn has_ended(&self) -> MicrosandboxResult<bool> {
        match self.backend.get(self.name()).await {
            Ok(now) => Ok(now.status.is_terminal()),
            Err(MicrosandboxError::SandboxNotFound(_)) if self.removes_itself() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The status that was read before a request is old when the request arrives: an end in between is the end that was
    /// asked for.
    fn unless_ended(&self, requested: MicrosandboxResult<()>) -> MicrosandboxResult<()> {
        match requested {
            Err(MicrosandboxError::SandboxNotRunning { status, .. }) if status.is_terminal() => Ok(()),
            Err(MicrosandboxError::SandboxNotFound(_)) if self.removes_itself() => Ok(()),
            other => other,
        }
    }

    /// Waits for any end without asking for it. An ephemeral sandbox whose record is gone counts as stopped.
    pub async fn wait(&self) -> MicrosandboxResult<SandboxStopResult> {
        let result = |status, exit_code, signal, source: &str| SandboxStopResult {
            name: self.name().into(),
            status,
            exit_code,
            signal,
            observed_at: Utc::now(),
            source: Some(source.into()),
        };
        match self.backend.wait(self.name()).await {
            Ok(record) => {
                let run = record.last_run.unwrap_or_default();
                Ok(result(record.status, run.exit_code, run.signal, "refreshed backend state"))
            }
            Err(MicrosandboxError::SandboxNotFound(_)) if self.removes_itself() => {
                Ok(result(SandboxStatus::Stopped, None, None, "ephemeral record gone"))
            }
            Err(error) => Err(error),
        }
    }

    /// The record of an ephemeral sandbox goes with its end.
    fn removes_itself(&self) -> bool {
        match &self.record.inner {
            SandboxHandleInner::Cloud(state) => state.ephemeral,
            SandboxHandleInner::Local(_) | SandboxHandleInner::Other => {
                serde_json::from_str::<SandboxSpec>(&self.record.config_json).is_ok_and(|spec| spec.lifecycle.ephemeral)
            }
        }
    }

    /// Deletes it; refuses to act on a later sandbox of the same name.
    pub async fn remove(&self) -> MicrosandboxResult<()> {
        let expected_id = (!self.record.id.is_empty()).then_some(self.record.id.as_str());
        self.backend.remove(RemoveRequest { name: self.name(), expected_id }).await
    }
}

/// The result of a wait that follows a request to end: who removed the sandbox since then found it ended.
fn ended(waited: MicrosandboxResult<SandboxStopResult>) -> MicrosandboxResult<()> {
    match waited {
        Ok(_) | Err(MicrosandboxError::SandboxNotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a backend can force an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// The end is forced after the grace period.
    Available,
    /// There is no kill: a short grace is lengthened to the default, and the end is never forced.
    Missing,
}

/// Makes room for a creation that replaces: ends and removes a sandbox of this name, if there is one. `grace` is in seconds.
pub async fn replace(
    backend: &dyn SandboxBackend,
    name: &str,
    grace: Option<f64>,
    force: Force,
) -> MicrosandboxResult<()> {
    if let Some(secs) = grace.filter(|secs| !(secs.is_finite() && *secs >= 0.0)) {
        let text = format!("replace_timeout must be a number of seconds, 0 or more: got {secs}");
        return Err(MicrosandboxError::InvalidConfig(text));
    }
    let record = match backend.get(name).await {
        Ok(record) => record,
        Err(MicrosandboxError::SandboxNotFound(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let grace = grace.map_or(DEFAULT_STOP_TIMEOUT, crate::seconds::duration);
    let old = Ending { backend, record: &record };
    match force {
        Force::Available => old.stop(grace).await?,
        Force::Missing if record.status.is_terminal() => {}
        Force::Missing => old.stop_unforced(grace.max(DEFAULT_STOP_TIMEOUT)).await?,
    }
    match old.remove().await {
        Err(MicrosandboxError::SandboxNotFound(_)) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}
