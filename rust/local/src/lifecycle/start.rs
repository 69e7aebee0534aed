//! Booting a sandbox that exists, and attaching to one that runs.

use futures::FutureExt as _;
use microsandbox_core::agent::AgentClient;
use microsandbox_core::api::{SandboxInner, SandboxLocalState};
use microsandbox_core::backend::{ConnectRequest, LiveRecord, StartRequest};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{BootTrace, Isolation, SandboxStatus, validate_stored_name};
use microsandbox_core::undo::{self, Cut};
use microsandbox_home::{Home, blocking};

use super::bring_up::{Reserve, Unfinished, adopt, bring_up, take_back};
use super::{create, parse_spec};
use crate::reconcile::{self, Current};
use crate::{isolation, mounts, strays};

/// Boots from the stored configuration and the pinned root file system. If the caller stops waiting, the sandbox is as it
/// was.
pub async fn start(home: &Home, request: StartRequest<'_>) -> MicrosandboxResult<LiveRecord> {
    let StartRequest { name, detached } = request;
    validate_stored_name("sandbox", name)?;
    let (home, for_undo, name) = (home.clone(), home.clone(), name.to_owned());
    let take_back = move |(record, before)| take_back(for_undo.clone(), record, Some(before)).boxed();
    let started = undo::whole(|cut| async move { boot(&home, &name, detached, &cut).await }, take_back);
    started.await.map(|(record, _before)| record)
}

/// The sandbox, and the status that it had before.
async fn boot(home: &Home, name: &str, detached: bool, cut: &Cut) -> MicrosandboxResult<(LiveRecord, SandboxStatus)> {
    let mut trace = BootTrace::begin();
    let (lock, Current { row, .. }) = reconcile::hold(home, name, Some(cut)).await?;
    let store = home.store().await?;
    if !row.status.is_terminal() && row.status != SandboxStatus::Created {
        return Err(MicrosandboxError::SandboxStillRunning(name.into()));
    }
    let mut spec = parse_spec(&row)?;
    let (owned, wanted, dir) = (home.clone(), name.to_owned(), home.sandbox_dir(name));
    let look = move || {
        create::has_room(&owned, "start", &wanted)?;
        Ok((dir.is_dir(), reconcile::read_live(&dir).is_some()))
    };
    let (exists, runs) = blocking(look).await?;
    if runs {
        return Err(strays::in_the_way(name));
    }
    if !exists {
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
    cut.check()?;
    let before = row.status;
    store.set_status(row.id, &[before], SandboxStatus::Starting).await?;
    let unfinished = Unfinished::new(home.clone(), row, lock, reserve, true);
    let row_id = unfinished.row_id();
    match bring_up(home, &spec, row_id, &[], &mut trace, cut).await {
        Ok(booted) => Ok((adopt(home, spec, row_id, booted, trace), before)),
        Err(error) => {
            unfinished.undo(cut).await;
            Err(error)
        }
    }
}

/// A running sandbox, without owning it.
pub async fn connect(home: &Home, request: ConnectRequest<'_>) -> MicrosandboxResult<LiveRecord> {
    let ConnectRequest { name, timeout } = request;
    validate_stored_name("sandbox", name)?;
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
