//! Rows against reality. A row never says running for a process that is gone.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use microsandbox_contract::{ExitReason, ExitRecord, Identity, IsolationDriver, ProcessIdentity};

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{Isolation, SandboxSpec, SandboxStatus};
use microsandbox_core::undo::Cut;
use microsandbox_home::failpoint::failpoint;
use microsandbox_home::label::{self, Label};
use microsandbox_home::lock::NameLock;
use microsandbox_home::{Home, blocking, process, runtime_process, tree};
use microsandbox_store::{RunEnd, RunRow, SandboxRow};

use crate::lifecycle::LOCK_DEADLINE;
use crate::strays;

/// Reason stored when a creation was cut off; such a record may be replaced by the next creation of the name.
pub const INTERRUPTED: &str = "creation or start was interrupted";

/// What a runtime gets to exit once the first process of its sandbox was killed.
const RUNTIME_ENDS: Duration = Duration::from_secs(1);
/// Longest wait for the processes of a killed guest to vanish before its control groups are removed.
const GUEST_GONE: Duration = Duration::from_secs(2);
/// The same where nothing will look for them again, because the record goes: the kernel frees a guest's files in memory as a part of the
/// end of its processes, which takes seconds for a million of them.
const GUEST_GONE_AT_LAST: Duration = Duration::from_secs(60);

/// The run that `runtime/identity.json` describes, if there is one. Of a sandbox that may run, [`Current`] knows more.
pub async fn identity(dir: &Path) -> Option<Identity> {
    let dir = dir.to_owned();
    blocking(move || Ok(read_identity(&dir))).await.ok().flatten()
}

/// The same for code that is away from the event loop already.
pub fn read_identity(dir: &Path) -> Option<Identity> {
    serde_json::from_slice(&std::fs::read(dir.join("runtime/identity.json")).ok()?).ok()
}

/// A sandbox as it really is.
pub struct Current {
    pub row: SandboxRow,
    /// Its newest run.
    pub run: Option<RunRow>,
    /// The run whose process was just seen alive. `None`: nothing runs, or the holder of the lock is changing it.
    pub identity: Option<Identity>,
}

impl Current {
    fn without_process((row, run): (SandboxRow, Option<RunRow>)) -> Self {
        Self { row, run, identity: None }
    }

    /// The run that was seen alive, else what is written of the last one: of a sandbox that starts, or that has ended. The isolation report
    /// of a run whose files are gone is empty.
    pub async fn last_identity(&self, home: &Home) -> Option<Identity> {
        match &self.identity {
            Some(seen) => Some(seen.clone()),
            None => identity(&home.sandbox_dir(&self.row.name)).await,
        }
    }
}

/// The run behind the row whose runtime is alive. Where its files are missing or damaged, it is found by the pid of its record and
/// the label of that process.
async fn live(home: &Home, row: &SandboxRow, run: Option<&RunRow>) -> Option<Identity> {
    let trace = Trace::of(home, row, run);
    blocking(move || Ok(trace.live())).await.ok().flatten()
}

/// What a live run can be found by.
struct Trace {
    dir: PathBuf,
    home: PathBuf,
    config: String,
    pid: Option<i32>,
    started_at_ms: u64,
}

impl Trace {
    fn of(home: &Home, row: &SandboxRow, run: Option<&RunRow>) -> Trace {
        let run = run.filter(|run| run.active);
        let started = run.and_then(|run| u64::try_from(run.started_at?.timestamp_millis()).ok());
        Trace {
            dir: home.sandbox_dir(&row.name),
            home: home.path().to_owned(),
            config: row.config_json.clone(),
            pid: run.and_then(|run| run.pid),
            started_at_ms: started.unwrap_or_default(),
        }
    }

    fn live(&self) -> Option<Identity> {
        read_live(&self.dir).or_else(|| self.by_label())
    }

    fn by_label(&self) -> Option<Identity> {
        let found = label::read(self.pid?)?;
        let spec: SandboxSpec = serde_json::from_str(&self.config).ok()?;
        let is_ours = found.label == Label::new(&self.home, &spec.id);
        let groups = |init| microsandbox_cgroups::leaves_of(init, &spec.name, &self.dir);
        is_ours.then(|| strays::identity(found, driver(&spec), self.started_at_ms, groups))
    }
}

fn driver(spec: &SandboxSpec) -> IsolationDriver {
    match spec.isolation_actual {
        Some(Isolation::Microvm) => IsolationDriver::Microvm,
        Some(Isolation::Container | Isolation::Auto) | None => IsolationDriver::Container,
    }
}

/// The run that `runtime/identity.json` describes, if its runtime is alive.
pub fn read_live(dir: &Path) -> Option<Identity> {
    read_identity(dir).filter(|identity| process::is_alive(&identity.runtime))
}

/// The row as it really is: a live status whose process is gone is settled first. `None`: no such sandbox.
pub async fn current(home: &Home, name: &str) -> MicrosandboxResult<Option<Current>> {
    let store = home.store().await?;
    let Some((row, run)) = store.sandbox(name).await? else {
        return Ok(None);
    };
    settle(home, row, run).await
}

/// As [`current`], for a row already read.
pub async fn settle(home: &Home, row: SandboxRow, run: Option<RunRow>) -> MicrosandboxResult<Option<Current>> {
    match claim(&row) {
        Claim::Ended => return Ok(Some(Current::without_process((row, run)))),
        Claim::Runs => {
            if let Some(identity) = live(home, &row, run.as_ref()).await {
                return Ok(Some(Current { row, run, identity: Some(identity) }));
            }
        }
        Claim::Unsettled => {}
    }
    settle_unreal(home, row, run).await
}

/// As [`settle`], for a page of rows: their processes are looked at together.
pub async fn settle_all(
    home: &Home,
    rows: Vec<(SandboxRow, Option<RunRow>)>,
) -> MicrosandboxResult<Vec<(SandboxRow, Option<RunRow>)>> {
    let trace = |row: &SandboxRow, run: &Option<RunRow>| {
        (claim(row) == Claim::Runs).then(|| Trace::of(home, row, run.as_ref()))
    };
    let traces: Vec<Option<Trace>> = rows.iter().map(|(row, run)| trace(row, run)).collect();
    let look = |trace: Option<Trace>| trace.is_some_and(|trace| trace.live().is_some());
    let runs: Vec<bool> = blocking(move || Ok(traces.into_iter().map(look).collect())).await?;
    let mut settled = Vec::with_capacity(rows.len());
    for ((row, run), runs) in rows.into_iter().zip(runs) {
        if runs || claim(&row) == Claim::Ended {
            settled.push((row, run));
        } else {
            settled.extend(settle_unreal(home, row, run).await?.map(|now| (now.row, now.run)));
        }
    }
    Ok(settled)
}

/// What a row claims, before its process is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Nothing runs, and nothing is left to do.
    Ended,
    /// A process runs: true only if it does.
    Runs,
    /// It was being created, or it is ephemeral and has ended.
    Unsettled,
}

fn claim(row: &SandboxRow) -> Claim {
    match row.status {
        SandboxStatus::Created => Claim::Ended,
        SandboxStatus::Stopped | SandboxStatus::Crashed if !row.ephemeral => Claim::Ended,
        SandboxStatus::Stopped | SandboxStatus::Crashed | SandboxStatus::Starting => Claim::Unsettled,
        // No row has a status that is unknown here.
        SandboxStatus::Running | SandboxStatus::Draining | SandboxStatus::Paused | SandboxStatus::Unknown => {
            Claim::Runs
        }
    }
}

/// A row that does not hold: settled, unless the holder of the lock is changing the sandbox.
async fn settle_unreal(home: &Home, row: SandboxRow, run: Option<RunRow>) -> MicrosandboxResult<Option<Current>> {
    // The holder of the lock is changing this very sandbox: the row describes the change in progress.
    let Some(lock) = NameLock::try_acquire(home.path(), &row.name).await? else {
        // An ended ephemeral sandbox is being removed: for every other caller it is already absent.
        let going = row.ephemeral && row.status.is_terminal();
        return Ok((!going).then_some(Current::without_process((row, run))));
    };
    settle_locked(home, &row.name, lock).await
}

/// As [`current`], after waiting for the lock: a caller that polls instead would contend with the holder of the lock.
pub async fn current_in_turn(home: &Home, name: &str) -> MicrosandboxResult<Option<Current>> {
    let lock = NameLock::acquire(home.path(), name, LOCK_DEADLINE).await?;
    settle_locked(home, name, lock).await
}

/// The sandbox as it really is, and its lock, which keeps it so. With `cut` the wait for the lock ends with its caller.
pub async fn hold(home: &Home, name: &str, cut: Option<&Cut>) -> MicrosandboxResult<(NameLock, Current)> {
    let lock = match cut {
        Some(cut) => NameLock::acquire_unless(home.path(), name, LOCK_DEADLINE, cut).await?,
        None => NameLock::acquire(home.path(), name, LOCK_DEADLINE).await?,
    };
    match current_held(home, name).await? {
        Some(now) => Ok((lock, now)),
        None => {
            lock.remove_file().await;
            Err(not_found(name))
        }
    }
}

/// Settles under the lock, reading the row again first.
async fn settle_locked(home: &Home, name: &str, lock: NameLock) -> MicrosandboxResult<Option<Current>> {
    let settled = current_held(home, name).await?;
    if settled.is_none() {
        lock.remove_file().await;
    }
    Ok(settled)
}

/// As [`current`], for the holder of the lock.
pub async fn current_held(home: &Home, name: &str) -> MicrosandboxResult<Option<Current>> {
    let Some((row, run)) = home.store().await?.sandbox(name).await? else {
        return Ok(None);
    };
    if claim(&row) == Claim::Ended {
        return Ok(Some(Current::without_process((row, run))));
    }
    match row.status {
        SandboxStatus::Created | SandboxStatus::Stopped | SandboxStatus::Crashed => {}
        SandboxStatus::Starting => {
            // Its creator is gone, and with it the sandbox: until the run is recorded, even a detached one ends with it.
            if !end_ownerless(home, &row).await? {
                return Ok(Some(Current::without_process((row, run))));
            }
            finish(home, &row, SandboxStatus::Crashed, Some(INTERRUPTED)).await?;
        }
        SandboxStatus::Running | SandboxStatus::Draining | SandboxStatus::Paused | SandboxStatus::Unknown => {
            if let Some(identity) = live(home, &row, run.as_ref()).await {
                return Ok(Some(Current { row, run, identity: Some(identity) }));
            }
            finish(home, &row, SandboxStatus::Crashed, None).await?;
        }
    }
    if row.ephemeral {
        remove_all(home, &row).await?;
        return Ok(None);
    }
    Ok(home.store().await?.sandbox(name).await?.map(Current::without_process))
}

/// Records the end of a run and clears what a killed runtime left: the guest's processes and control groups.
/// `fallback` is the status when nothing says how it ended.
pub async fn finish(
    home: &Home,
    row: &SandboxRow,
    fallback: SandboxStatus,
    detail: Option<&str>,
) -> MicrosandboxResult<()> {
    let store = home.store().await?;
    let dir = home.sandbox_dir(&row.name);
    let written = dir.clone();
    let read = move || Ok((read_identity(&written), noted_cgroups(&written), exit_record(&written)));
    let (identity, cgroups, record) = blocking(read).await?;
    clear(cgroups, identity.as_ref(), GUEST_GONE).await;
    let record = record.filter(|record| identity.as_ref().is_none_or(|i| i.runtime == record.runtime));
    let (end, status) = verdict(record, row.status, fallback, detail);
    store.end_run(row.id, end, status).await?;
    blocking(move || {
        for gone in ["runtime/agent.sock", "runtime/token", "runtime/token.paused"] {
            // A stale one is refused by identity anyway.
            let _ = std::fs::remove_file(dir.join(gone));
        }
        Ok(())
    })
    .await
}

/// How it ended: by the runtime's own record, else by what was asked of it.
fn verdict(
    record: Option<ExitRecord>,
    was: SandboxStatus,
    fallback: SandboxStatus,
    detail: Option<&str>,
) -> (RunEnd, SandboxStatus) {
    match record {
        Some(record) => {
            let asked = was == SandboxStatus::Draining;
            let status =
                if asked || record.reason.is_orderly() { SandboxStatus::Stopped } else { SandboxStatus::Crashed };
            let mut detail = record.detail;
            // A kill that was asked for looks like one of the kernel's where memory ran out before.
            let oom_killed = record.oom_killed && !asked;
            if oom_killed {
                detail = Some(detail.map_or_else(|| "oom_killed".into(), |text| format!("oom_killed: {text}")));
            }
            let end = RunEnd {
                exit_code: record.exit_code,
                exit_signal: record.signal,
                reason: Some(if record.oom_killed && asked { ExitReason::Signal } else { record.reason }),
                detail,
                signals_sent: None,
            };
            (end, status)
        }
        // Gone without a record while being ended is what was asked for.
        None if was == SandboxStatus::Draining => (
            RunEnd { exit_signal: Some(9), reason: Some(ExitReason::Signal), ..RunEnd::default() },
            SandboxStatus::Stopped,
        ),
        None => {
            let detail = detail.unwrap_or("the runtime process is gone without a record of its end");
            (
                RunEnd { reason: Some(ExitReason::InternalError), detail: Some(detail.into()), ..RunEnd::default() },
                fallback,
            )
        }
    }
}

fn exit_record(dir: &Path) -> Option<ExitRecord> {
    serde_json::from_slice(&std::fs::read(dir.join("runtime/exit.json")).ok()?).ok()
}

/// Ends a run by force and waits until its runtime is gone. What is killed is the first process of the sandbox: the runtime, its
/// parent, then takes it in, removes its groups and exits. Killed first itself, it would leave an orphan, a zombie for ever
/// where process 1 reaps nothing. A runtime that hangs is killed as well.
pub async fn kill(identity: &Identity) {
    let Some(runtime) = process::open(&identity.runtime) else { return };
    if let Some(init) = process::open(&identity.init) {
        runtime_process::kill(init.as_fd());
    }
    runtime_process::end(runtime, RUNTIME_ENDS).await;
}

/// As [`kill`]; what it left is cleared as well. False: the runtime is still there.
pub async fn kill_and_clear(identity: &Identity) -> bool {
    kill(identity).await;
    if process::is_alive(&identity.runtime) {
        return false;
    }
    clear(Vec::new(), Some(identity), GUEST_GONE_AT_LAST).await;
    true
}

/// Ends the runtimes of a sandbox whose creator is gone, for the holder of the lock. They are found by their label: a creator that was
/// killed has recorded no run, and its runtime may not have written who it is. Each of them uses the control groups that the next run of
/// the name will use, and kills what is in them when it ends. False: one of them is still there.
pub async fn end_ownerless(home: &Home, row: &SandboxRow) -> MicrosandboxResult<bool> {
    let dir = home.sandbox_dir(&row.name);
    if let Some(identity) = blocking(move || Ok(read_live(&dir))).await?
        && !kill_and_clear(&identity).await
    {
        return Ok(false);
    }
    // Rows of earlier versions have no id, and their runtimes no label.
    let spec: Option<SandboxSpec> = serde_json::from_str(&row.config_json).ok();
    let Some(spec) = spec.filter(|spec| !spec.id.is_empty()) else { return Ok(true) };
    let (path, driver) = (home.path().to_owned(), driver(&spec));
    let find = move || {
        let wanted = Label::new(&path, &spec.id);
        let found = label::find(&path).into_iter().filter(|found| found.label == wanted);
        Ok(found.map(|found| strays::identity(found, driver, 0, |_| Vec::new())).collect::<Vec<_>>())
    };
    for identity in blocking(find).await? {
        kill(&identity).await;
        if process::is_alive(&identity.runtime) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// As [`kill`], of the run behind a row, if it runs.
pub async fn kill_run(home: &Home, row: &SandboxRow, run: Option<&RunRow>) {
    if let Some(identity) = live(home, row, run).await {
        kill(&identity).await;
    }
}

/// SIGKILL to a process of ours, and wait until it is gone.
async fn end_by_force(identity: &ProcessIdentity) {
    if let Some(pidfd) = process::open(identity) {
        runtime_process::kill(pidfd.as_fd());
        wait_bounded(pidfd).await;
    }
    process::reap(identity);
}

async fn wait_bounded(pidfd: OwnedFd) {
    let _ = tokio::time::timeout(GUEST_GONE, runtime_process::wait_gone(pidfd)).await;
}

/// The guest ends with its runtime (parent-death signal); this waits for it and removes the control groups, those of a
/// boot that was cut off before it had an identity too.
pub async fn clear_leftovers(dir: &Path) {
    let dir = dir.to_owned();
    let read = move || Ok((noted_cgroups(&dir), read_identity(&dir)));
    if let Ok((cgroups, identity)) = blocking(read).await {
        clear(cgroups, identity.as_ref(), GUEST_GONE_AT_LAST).await;
    }
}

fn noted_cgroups(dir: &Path) -> Vec<PathBuf> {
    let text = std::fs::read(dir.join("runtime/cgroups.json")).ok();
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

async fn clear(mut cgroups: Vec<PathBuf>, identity: Option<&Identity>, patience: Duration) {
    if let Some(identity) = identity {
        end_by_force(&identity.init).await;
        process::reap(&identity.runtime);
        cgroups.extend(identity.cgroups.iter().cloned());
    }
    cgroups.sort();
    cgroups.dedup();
    for cgroup in &cgroups {
        remove_cgroup(cgroup, patience).await;
    }
}

async fn remove_cgroup(path: &Path, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let error = match microsandbox_cgroups::remove::try_remove(path) {
            Ok(true) => return,
            Ok(false) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            Ok(false) => std::io::ErrorKind::ResourceBusy.into(),
            Err(error) => error,
        };
        tracing::warn!(cgroup = %path.display(), %error, "control group of an ended sandbox could not be removed");
        return;
    }
}

/// Directory first, then row: a failure leaves the row, so that removal can be tried again.
pub async fn remove_all(home: &Home, row: &SandboxRow) -> MicrosandboxResult<()> {
    failpoint("remove");
    let remains = tree::unlink(home, &home.sandbox_dir(&row.name)).await?;
    failpoint("remove_row");
    let store = home.store().await?;
    // Both wait for the disk, and nothing has a name any more.
    let (deleted, ()) = tokio::join!(store.delete_sandbox(row.id), remains.free());
    deleted.map(|_| ())
}

/// The error for a name that means nothing.
pub fn not_found(name: &str) -> MicrosandboxError {
    MicrosandboxError::SandboxNotFound(name.into())
}
