//! Pausing: everything in the sandbox's control group stands still, and goes on where it was.
//!
//! The freezer of cgroup v2 (`cgroup.freeze`, kernel documentation admin-guide/cgroup-v2) stops every process of a
//! container, and the monitor of a virtual machine with its processors. Calls that wait for the agent meanwhile go on
//! waiting: [`PAUSED_TOKEN`] tells them why it is silent.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::lifecycle::LOCK_DEADLINE;
use super::reconcile;
use microsandbox_core::agent::PAUSED_TOKEN;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{SandboxStatus, validate_sandbox_name};
use microsandbox_home::Home;
use microsandbox_home::lock::NameLock;
use microsandbox_store::SandboxRow;

/// Longest wait for the kernel to stop every process: one in an uninterruptible call of a slow disk takes its time.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
/// How often the kernel is asked meanwhile.
const LOOK: Duration = Duration::from_millis(1);

/// Fine on a paused one.
pub async fn pause(home: &Home, name: &str) -> MicrosandboxResult<()> {
    let (row, _lock) = held(home, name).await?;
    match row.status {
        SandboxStatus::Paused => return Ok(()),
        SandboxStatus::Running => {}
        status => return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status }),
    }
    let dir = home.sandbox_dir(name);
    let group = freezer(name, &dir)?;
    hide_token(&dir, true)?;
    let frozen = async {
        release_kernel_threads(&group);
        write(&group, "1")?;
        until_frozen(&group, name).await?;
        home.store().await?.set_status(row.id, &[SandboxStatus::Running], SandboxStatus::Paused).await
    };
    match frozen.await {
        Ok(_) => Ok(()),
        Err(error) => {
            // As if nothing had been asked; the error at hand is the one to tell.
            let _ = write(&group, "0");
            let _ = hide_token(&dir, false);
            Err(error)
        }
    }
}

/// Fine on a running one.
pub async fn resume(home: &Home, name: &str) -> MicrosandboxResult<()> {
    let (row, _lock) = held(home, name).await?;
    match row.status {
        SandboxStatus::Paused | SandboxStatus::Running | SandboxStatus::Draining => {}
        status => return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status }),
    }
    let dir = home.sandbox_dir(name);
    write(&freezer(name, &dir)?, "0")?;
    hide_token(&dir, false)?;
    home.store().await?.set_status(row.id, &[SandboxStatus::Paused], SandboxStatus::Running).await.map(drop)
}

async fn held(home: &Home, name: &str) -> MicrosandboxResult<(SandboxRow, NameLock)> {
    validate_sandbox_name(name)?;
    reconcile::current(home, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    let lock = NameLock::acquire(home.path(), name, LOCK_DEADLINE).await?;
    let (row, _run) = home.store().await?.sandbox(name).await?.ok_or_else(|| reconcile::not_found(name))?;
    Ok((row, lock))
}

fn freezer(name: &str, dir: &Path) -> MicrosandboxResult<PathBuf> {
    let groups = reconcile::identity(dir).map(|identity| identity.cgroups).unwrap_or_default();
    groups.into_iter().find(|group| group.join("cgroup.freeze").exists()).ok_or_else(|| {
        MicrosandboxError::unsupported(
            "Sandbox::pause",
            format!("where {name} has a control group of version 2 (Linux 5.2, as root or with delegation)"),
        )
    })
}

fn write(group: &Path, value: &str) -> MicrosandboxResult<()> {
    let file = group.join("cgroup.freeze");
    std::fs::write(&file, value).map_err(|error| MicrosandboxError::io("write", &file, error))
}

/// KVM puts a kernel thread of its own into the group of a monitor (`kvm-nx-lpage-recovery`), and such a thread never
/// stands still: the kernel would call the group running for ever. It holds nothing of the sandbox's and goes to a group
/// further up.
fn release_kernel_threads(group: &Path) {
    let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter(|pid| is_kernel_thread(pid)) {
        // The groups above may have controllers and take no threads; the topmost one always does.
        let _ = group.ancestors().skip(1).find(|above| std::fs::write(above.join("cgroup.procs"), pid).is_ok());
    }
}

/// By the flags in `/proc/<pid>/stat`, see proc(5).
fn is_kernel_thread(pid: &str) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    fields.split_whitespace().nth(6).and_then(|flags| flags.parse::<u32>().ok()).is_some_and(|f| f & PF_KTHREAD != 0)
}

async fn until_frozen(group: &Path, name: &str) -> MicrosandboxResult<()> {
    let file = group.join("cgroup.events");
    let deadline = Instant::now() + FREEZE_DEADLINE;
    loop {
        let said = std::fs::read_to_string(&file).map_err(|error| MicrosandboxError::io("read", &file, error))?;
        if said.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        if Instant::now() > deadline {
            let secs = FREEZE_DEADLINE.as_secs();
            return Err(MicrosandboxError::Runtime(format!(
                "sandbox {name} did not stand still within {secs} s and goes on; a program in it waits for a slow disk"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
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
