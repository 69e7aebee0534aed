//! Pausing: every process of the sandbox's control group is frozen and keeps its memory.
//!
//! The freezer of cgroup v2 stops every process of a container, and the monitor of a virtual machine with its processors.
//! In-flight calls to the agent keep waiting: [`PAUSED_TOKEN`] shows them why the agent does not answer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::reconcile;
use microsandbox_cgroups::freeze::Freezer;
use microsandbox_core::agent::PAUSED_TOKEN;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{SandboxStatus, validate_stored_name};
use microsandbox_home::lock::NameLock;
use microsandbox_home::{Home, blocking};
use microsandbox_store::SandboxRow;

/// Longest wait for the kernel to stop every process: one in an uninterruptible call of a slow disk takes its time.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
/// Interval at which the kernel is polled until then.
const LOOK: Duration = Duration::from_millis(1);

/// Pauses a running sandbox. Idempotent: a paused sandbox stays paused.
pub async fn pause(home: &Home, name: &str) -> MicrosandboxResult<()> {
    let Held { row, groups, _lock } = held(home, name).await?;
    match row.status {
        SandboxStatus::Paused => return Ok(()),
        SandboxStatus::Running => {}
        status => return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status }),
    }
    let dir = home.sandbox_dir(name);
    let freezer = freezer(name, &groups)?;
    let frozen = async {
        let (group, place) = (freezer.clone(), dir.clone());
        blocking(move || {
            hide_token(&place, true)?;
            group.freeze().map_err(|error| failed("write", &group, error))
        })
        .await?;
        until_frozen(&freezer, name).await?;
        home.store().await?.set_status(row.id, &[SandboxStatus::Running], SandboxStatus::Paused).await
    };
    match frozen.await {
        Ok(_) => Ok(()),
        Err(error) => {
            // As if nothing had been asked; the error at hand is the one to report.
            let _ = thaw(freezer, dir).await;
            Err(error)
        }
    }
}

/// Fine on a running one.
pub async fn resume(home: &Home, name: &str) -> MicrosandboxResult<()> {
    let Held { row, groups, _lock } = held(home, name).await?;
    match row.status {
        SandboxStatus::Paused | SandboxStatus::Running | SandboxStatus::Draining => {}
        status => return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status }),
    }
    let dir = home.sandbox_dir(name);
    let freezer = freezer(name, &groups)?;
    thaw(freezer, dir).await?;
    home.store().await?.set_status(row.id, &[SandboxStatus::Paused], SandboxStatus::Running).await.map(drop)
}

/// A sandbox that no other caller changes.
struct Held {
    row: SandboxRow,
    /// The control groups of its run.
    groups: Vec<PathBuf>,
    _lock: NameLock,
}

async fn held(home: &Home, name: &str) -> MicrosandboxResult<Held> {
    validate_stored_name("sandbox", name)?;
    let (lock, now) = reconcile::hold(home, name, None).await?;
    let groups = now.last_identity(home).await.map(|identity| identity.cgroups).unwrap_or_default();
    Ok(Held { row: now.row, groups, _lock: lock })
}

async fn thaw(freezer: Freezer, dir: PathBuf) -> MicrosandboxResult<()> {
    blocking(move || {
        let thawed = freezer.thaw().map_err(|error| failed("write", &freezer, error));
        thawed.and(hide_token(&dir, false))
    })
    .await
}

fn freezer(name: &str, groups: &[PathBuf]) -> MicrosandboxResult<Freezer> {
    Freezer::find(groups).ok_or_else(|| {
        MicrosandboxError::unsupported(
            "Sandbox::pause",
            format!("where {name} has a control group of version 2 (Linux 5.2, as root or with delegation)"),
        )
    })
}

fn failed(action: &str, freezer: &Freezer, error: std::io::Error) -> MicrosandboxError {
    MicrosandboxError::io(action, &freezer.file(), error)
}

async fn until_frozen(freezer: &Freezer, name: &str) -> MicrosandboxResult<()> {
    let deadline = Instant::now() + FREEZE_DEADLINE;
    while !freezer.is_frozen().map_err(|error| failed("read the state of", freezer, error))? {
        if Instant::now() > deadline {
            let secs = FREEZE_DEADLINE.as_secs();
            return Err(MicrosandboxError::Runtime(format!(
                "sandbox {name} was not frozen within {secs} s and keeps running: a program in it waits for a slow disk"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// New calls find no token and say so; those under way find this name and wait.
fn hide_token(dir: &Path, hide: bool) -> MicrosandboxResult<()> {
    let (open, hidden) = (dir.join("runtime/token"), dir.join("runtime").join(PAUSED_TOKEN));
    let (from, to) = if hide { (open, hidden) } else { (hidden, open) };
    match std::fs::rename(&from, &to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(MicrosandboxError::io("rename", &from, error))
        }
        _ => Ok(()),
    }
}
