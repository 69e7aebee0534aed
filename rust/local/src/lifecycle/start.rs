//! Booting a sandbox that exists, and attaching to one that runs.

use microsandbox_core::agent::AgentClient;
use microsandbox_core::api::{SandboxInner, SandboxLocalState};
use microsandbox_core::backend::{ConnectRequest, LiveRecord, StartRequest};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{BootTrace, Isolation, SandboxStatus, validate_sandbox_name};
use microsandbox_home::lock::NameLock;
use microsandbox_home::{Home, blocking};

use super::bring_up::{Reserve, Unfinished, adopt, bring_up};
use super::{LOCK_DEADLINE, parse_spec};
use crate::{isolation, mounts, reconcile};

/// Boots from the stored configuration and the pinned root file system.
pub async fn start(home: &Home, request: StartRequest<'_>) -> MicrosandboxResult<LiveRecord> {
    let StartRequest { name, detached } = request;
    validate_sandbox_name(name)?;
    let mut trace = BootTrace::begin();
    // Settle first: a row may still say running for a process that is gone.
    reconcile::current(home, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    let lock = NameLock::acquire(home.path(), name, LOCK_DEADLINE).await?;
    let store = home.store().await?;
    let (row, _run) = store.sandbox(name).await?.ok_or_else(|| reconcile::not_found(name))?;
    if !row.status.is_terminal() && row.status != SandboxStatus::Created {
        return Err(MicrosandboxError::SandboxStillRunning(name.into()));
    }
    let mut spec = parse_spec(&row)?;
    let dir = home.sandbox_dir(name);
    if !blocking(move || Ok(dir.is_dir())).await? {
        return Err(MicrosandboxError::Runtime(format!(
            "sandbox state missing: {} is gone; remove the sandbox and create it anew",
            home.sandbox_dir(name).display()
        )));
    }
    mounts::exist(home, &spec).await?;
    if spec.isolation_actual == Some(Isolation::Microvm) {
        // A start never weakens it: refused while the record is still as it was.
        isolation::require(home).await?;
    }
    if spec.detached != detached {
        spec.detached = detached;
        store.update_spec(row.id, &spec).await?;
    }
    let reserve = Reserve::take()?;
    store.set_status(row.id, &[row.status], SandboxStatus::Starting).await?;
    let mut guard = Unfinished::new(home.clone(), row, lock, reserve, true);
    match bring_up(home, &spec, guard.row_id(), &[], &mut trace).await {
        Ok(booted) => {
            guard.disarm();
            Ok(adopt(home, spec, guard.finished_row_id(), booted, trace))
        }
        Err(error) => {
            guard.undo().await;
            Err(error)
        }
    }
}

/// A running sandbox, without owning it.
pub async fn connect(home: &Home, request: ConnectRequest<'_>) -> MicrosandboxResult<LiveRecord> {
    let ConnectRequest { name, timeout } = request;
    validate_sandbox_name(name)?;
    let row = reconcile::current(home, name).await?.ok_or_else(|| reconcile::not_found(name))?.row;
    if !row.status.is_live() {
        return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status: row.status });
    }
    // The handshake proves that the agent answers.
    AgentClient::connect(&home.agent_address(name).await?, timeout).await?;
    let spec = parse_spec(&row)?;
    let inner = SandboxInner::Local(SandboxLocalState { db_id: row.id, owned: false });
    Ok(LiveRecord { inner, spec, boot: Vec::new() })
}
