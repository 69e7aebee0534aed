//! The part of create and start that is the same: boot, record, adopt; and the undoing of what failed or was cut off.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use microsandbox_core::agent::StreamAgent;
use microsandbox_core::api::{SandboxInner, SandboxLocalState};
use microsandbox_core::backend::LiveRecord;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{BootTrace, Patch, SandboxSpec, SandboxStatus};
use microsandbox_core::undo::Cut;
use microsandbox_home::lock::NameLock;
use microsandbox_home::{Home, runtime_process};
use microsandbox_store::SandboxRow;

use super::lifeline::{self, release};
use super::{LOCK_DEADLINE, parse_spec};
use crate::boot::{self, Booted};
use crate::patches::{self, PatchDialer};
use crate::{mounts, reconcile};

/// Delay before the background task records the exit, so that a foreground waiter does it first and they do not contend for
/// the lock.
const AFTER_FOREGROUND: Duration = Duration::from_millis(3);

/// Detail of a run that ended because the caller of its start was gone.
const UNWANTED: &str = "the start was cancelled";

/// Boots and records: `Starting` with a pid, then `Running`. On an error no process of it is left.
pub async fn bring_up(
    home: &Home,
    spec: &SandboxSpec,
    row_id: i32,
    patches: &[Patch],
    trace: &mut BootTrace,
    cut: &Cut,
) -> MicrosandboxResult<Booted> {
    let store = home.store().await?;
    let rootfs_mode = if spec.image_defaults.manifest_digest.is_some() { "erofs" } else { "bind" };
    store.set_rootfs(row_id, spec.image_defaults.manifest_digest.as_deref(), rootfs_mode).await?;
    let volumes = mounts::volumes(spec);
    if !volumes.is_empty() {
        // Before anything is mounted: from here on the volumes cannot be removed.
        store.attach_volumes(row_id, rustix::process::getpid().as_raw_nonzero().get(), &volumes).await?;
    }
    trace.finish("row");
    let mut booting = boot::begin(home, spec, trace, cut).await?;
    boot::step("spawned", cut).await;
    let pid = booting.pid();
    let booted = match cut.or(booting.ready(trace)).await {
        Ok(booted) => booted,
        Err(error) => {
            booting.end().await;
            return Err(error);
        }
    };
    boot::step("ready", cut).await;
    let recorded = async {
        if !patches.is_empty() {
            let agent = StreamAgent::new(PatchDialer { address: home.agent_address(&spec.name).await?, home });
            cut.or(patches::apply(&agent, patches)).await?;
            trace.finish("patches");
        }
        store.begin_run(row_id, pid, SandboxStatus::Running).await?;
        boot::step("recorded", cut).await;
        cut.check()
    };
    if let Err(error) = recorded.await {
        booted.end(&home.sandbox_dir(&spec.name)).await;
        return Err(error);
    }
    trace.finish("recorded");
    if spec.detached {
        release(&booted.lifeline, &spec.name)?;
    }
    Ok(booted)
}

/// The record of a booted sandbox; a background task records its end.
pub fn adopt(home: &Home, spec: SandboxSpec, db_id: i32, booted: Booted, trace: BootTrace) -> LiveRecord {
    let owned = !spec.detached;
    if owned {
        lifeline::keep(&spec.id, booted.lifeline);
    }
    let (home, name, id) = (home.clone(), spec.name.clone(), spec.id.clone());
    tokio::spawn(async move {
        if runtime_process::wait_gone(booted.pidfd).await.is_ok() {
            drop(lifeline::take(&id));
            tokio::time::sleep(AFTER_FOREGROUND).await;
            if let Err(error) = reconcile::current(&home, &name).await {
                tracing::warn!(sandbox = name, %error, "the end of the sandbox was not recorded; the next read records it");
            }
        }
    });
    LiveRecord { inner: SandboxInner::Local(SandboxLocalState { db_id, owned }), spec, boot: trace.into_steps() }
}

/// Descriptors that are taken before the row is written and given back before a creation is undone: a creation that failed
/// because the process has no free descriptor must still be able to remove what it made.
pub struct Reserve(Vec<OwnedFd>);

impl Reserve {
    /// Enough for the removal of a fresh directory; few, because every creation in flight holds them.
    const DESCRIPTORS: usize = 4;

    /// Fails with the kernel's error where that many are not to be had; nothing exists yet.
    pub fn take() -> MicrosandboxResult<Reserve> {
        let path = Path::new("/dev/null");
        let open = || File::open(path).map(OwnedFd::from).map_err(|e| MicrosandboxError::io("open", path, e));
        (0..Reserve::DESCRIPTORS).map(|_| open()).collect::<MicrosandboxResult<_>>().map(Reserve)
    }

    fn release(&mut self) {
        self.0.clear();
    }
}

/// A creation or a start that has a row but no running sandbox yet.
pub struct Unfinished {
    home: Home,
    row: SandboxRow,
    lock: NameLock,
    reserve: Reserve,
    /// The row existed before (a start): it stays.
    keep: bool,
}

impl Unfinished {
    pub fn new(home: Home, row: SandboxRow, lock: NameLock, reserve: Reserve, keep: bool) -> Self {
        Unfinished { home, row, lock, reserve, keep }
    }
    pub fn row_id(&self) -> i32 {
        self.row.id
    }
    /// After an error of [`bring_up`]. Of a creation nothing is left; a start that failed leaves its sandbox crashed, and one
    /// that was cut off leaves it as it was.
    pub async fn undo(mut self, cut: &Cut) {
        self.reserve.release();
        let (status, detail) = match cut.check() {
            Err(_) if self.keep => (self.row.status, UNWANTED),
            _ => (SandboxStatus::Crashed, reconcile::INTERRUPTED),
        };
        undo(&self.home, &self.row, self.lock, self.keep, (status, detail)).await;
    }
}

async fn undo(home: &Home, row: &SandboxRow, lock: NameLock, keep: bool, end: (SandboxStatus, &str)) {
    let undone = async {
        reconcile::finish(home, row, end.0, Some(end.1)).await?;
        if keep {
            return Ok(());
        }
        reconcile::remove_all(home, row).await
    };
    match undone.await {
        Ok(()) if !keep => lock.remove_file().await,
        Ok(()) => {}
        Err(error) => {
            let error: MicrosandboxError = error;
            tracing::warn!(sandbox = row.name, %error, "a failed creation could not be undone; the next one will");
        }
    }
}

/// Ends what was brought up for a caller who is gone: removes what was created, and leaves what was started as it was, in
/// `before`.
pub async fn take_back(home: Home, record: LiveRecord, before: Option<SandboxStatus>) {
    let (name, id) = (&record.spec.name, &record.spec.id);
    let taken = async {
        let lock = NameLock::acquire(home.path(), name, LOCK_DEADLINE).await?;
        let found = home.store().await?.sandbox(name).await?;
        let Some((row, run)) = found.filter(|(row, _)| parse_spec(row).is_ok_and(|spec| spec.id == *id)) else {
            return Ok(());
        };
        drop(lifeline::take(id));
        reconcile::kill_run(&home, &row, run.as_ref()).await;
        let end = before.map_or((SandboxStatus::Crashed, reconcile::INTERRUPTED), |status| (status, UNWANTED));
        undo(&home, &row, lock, before.is_some(), end).await;
        Ok::<_, MicrosandboxError>(())
    };
    if let Err(error) = taken.await {
        tracing::warn!(sandbox = name, %error, "a sandbox whose creator is gone could not be ended");
    }
}
