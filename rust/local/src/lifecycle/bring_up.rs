//! The part of create and start that is the same: boot, record, adopt; and the undoing of what was cut off.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use microsandbox_core::agent::StreamAgent;
use microsandbox_core::api::{SandboxInner, SandboxLocalState};
use microsandbox_core::backend::LiveRecord;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{BootTrace, Patch, SandboxSpec, SandboxStatus};
use microsandbox_home::lock::NameLock;
use microsandbox_home::{Home, runtime_process};
use microsandbox_store::SandboxRow;

use super::lifeline::{self, release};
use crate::boot::{self, Booted};
use crate::{mounts, patches, reconcile};

/// Delay before the background task records the exit, so that a foreground waiter does it first and they do not contend for
/// the lock.
const AFTER_FOREGROUND: Duration = Duration::from_millis(3);

/// Boots and records: `Starting` with a pid, then `Running`.
pub async fn bring_up(
    home: &Home,
    spec: &SandboxSpec,
    row_id: i32,
    patches: &[Patch],
    trace: &mut BootTrace,
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
    let booting = boot::begin(home, spec, trace).await?;
    boot::failpoint("spawned");
    let pid = booting.pid();
    let booted = booting.ready(trace).await?;
    boot::failpoint("ready");
    let recorded = async {
        if !patches.is_empty() {
            patches::apply(&StreamAgent::new(home.agent_address(&spec.name).await?), patches).await?;
            trace.finish("patches");
        }
        store.begin_run(row_id, pid, SandboxStatus::Running).await
    };
    if let Err(error) = recorded.await {
        runtime_process::kill(booted.pidfd.as_fd());
        runtime_process::reap_in_background(booted.pidfd);
        return Err(error);
    }
    boot::failpoint("recorded");
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

/// A creation that has a row but no running sandbox yet. Dropped early (the caller's task was cancelled), it undoes
/// itself in the background.
pub struct Unfinished {
    home: Home,
    row: Option<SandboxRow>,
    lock: Option<NameLock>,
    reserve: Reserve,
    /// The row existed before (a start): it stays, as crashed.
    keep: bool,
}

impl Unfinished {
    pub fn new(home: Home, row: SandboxRow, lock: NameLock, reserve: Reserve, keep: bool) -> Self {
        Unfinished { home, row: Some(row), lock: Some(lock), reserve, keep }
    }
    pub fn row_id(&self) -> i32 {
        self.row.as_ref().map_or(0, |row| row.id)
    }
    pub fn finished_row_id(&mut self) -> i32 {
        self.row.take().map_or(0, |row| row.id)
    }
    pub fn disarm(&mut self) {
        self.lock = None;
    }
    pub async fn undo(&mut self) {
        self.reserve.release();
        if let (Some(row), Some(lock)) = (self.row.take(), self.lock.take()) {
            undo(self.home.clone(), row, lock, self.keep).await;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.reserve.release();
        if let (Some(row), Some(lock)) = (self.row.take(), self.lock.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(undo(self.home.clone(), row, lock, self.keep));
        }
    }
}

async fn undo(home: Home, row: SandboxRow, lock: NameLock, keep: bool) {
    let undone = async {
        reconcile::finish(&home, &row, SandboxStatus::Crashed, Some(reconcile::INTERRUPTED)).await?;
        if keep {
            return Ok(());
        }
        reconcile::remove_all(&home, &row).await
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
