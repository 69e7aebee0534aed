//! Create, start, stop, kill, remove, get, list, wait.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use microsandbox_contract::Identity;

use super::boot::{self, Booted};
use super::lock::NameLock;
use super::{LocalBackend, freeze, isolation, patches, process, reconcile, root, spawn, tree, validate};
use crate::agent::AgentClient;
use crate::backend::{ListQuery, SandboxList, SharedBackend};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{BootTrace, Isolation, Patch, SandboxConfig, SandboxSpec, SandboxStatus, validate_sandbox_name};
use crate::sandbox::{
    DEFAULT_STOP_TIMEOUT, LastRun, Sandbox, SandboxHandle, SandboxHandleInner, SandboxHandleLocalState, SandboxInner,
    SandboxLocalState, SandboxRecord,
};
use crate::store::{RunRow, SandboxRow};

/// Longest wait for another task or process that is busy with the same name.
pub const LOCK_DEADLINE: Duration = Duration::from_secs(90);
/// Connecting to an agent that is asked to shut down.
const SHUTDOWN_CONNECT: Duration = Duration::from_secs(5);
/// Between two looks at a sandbox that is neither ended nor has a process to wait for.
const STILL_LIVE: Duration = Duration::from_millis(5);
/// Whoever waits for an end records it; the task in the background comes after, so that the two are not in each other's way.
const AFTER_OTHERS: Duration = Duration::from_millis(3);
/// Page of `list` (cloud-wire section 4).
const PAGE_DEFAULT: u32 = 20;
const PAGE_MAX: u32 = 100;

/// Writing ends of the lifelines of attached sandboxes, by sandbox id. They close when this process ends, however it
/// ends, and with them the sandboxes.
static LIFELINES: Mutex<Option<HashMap<String, OwnedFd>>> = Mutex::new(None);

fn keep_lifeline(id: &str, lifeline: OwnedFd) {
    let mut map = LIFELINES.lock().unwrap_or_else(PoisonError::into_inner);
    map.get_or_insert_default().insert(id.to_owned(), lifeline);
}

fn take_lifeline(id: &str) -> Option<OwnedFd> {
    let mut map = LIFELINES.lock().unwrap_or_else(PoisonError::into_inner);
    map.as_mut()?.remove(id)
}

pub async fn create(
    backend: &LocalBackend,
    shared: &SharedBackend,
    mut config: SandboxConfig,
) -> MicrosandboxResult<Sandbox> {
    if let Some(option) = config.unsupported.first() {
        return Err(MicrosandboxError::unsupported(&option.feature, &option.available_when));
    }
    let mut trace = BootTrace::begin();
    config.patches.iter().try_for_each(Patch::check)?;
    prepare_spec(backend, &mut config.spec).await?;
    trace.finish("checks");
    if config.replace_existing {
        replace(backend, shared, &config).await?;
    }
    let spec = config.spec;
    let home = &backend.config().home;
    let lock = NameLock::acquire(home, &spec.name, LOCK_DEADLINE).await?;
    let row = insert(backend, &spec).await?;
    boot::failpoint("inserted");
    let mut guard = Unfinished { shared: shared.clone(), row: Some(row), lock: Some(lock), keep: false };
    let dir = backend.sandbox_dir(&spec.name);
    if dir.exists() {
        // A directory without a row: what an earlier, killed removal left.
        tree::remove(backend, &dir).await?;
    }
    match bring_up(backend, &spec, guard.row_id(), &config.patches, &mut trace).await {
        Ok(booted) => {
            guard.disarm();
            Ok(adopt(shared, spec, guard.finished_row_id(), booted, trace))
        }
        Err(error) => {
            guard.undo().await;
            Err(error)
        }
    }
}

/// Checks everything and settles everything that is decided once: isolation, image, identity.
async fn prepare_spec(backend: &LocalBackend, spec: &mut SandboxSpec) -> MicrosandboxResult<()> {
    validate::spec(spec, backend.config())?;
    // A home that cannot hold the database is refused before its lock directory exists.
    backend.store().await?;
    if spec.isolation == Isolation::Auto {
        spec.isolation = backend.default_isolation();
    }
    if spec.isolation == Isolation::Microvm {
        // A demand that no host could meet is told first.
        validate::microvm(spec)?;
    }
    spec.isolation_actual = Some(isolation::decide(backend, spec.isolation).await?);
    super::mounts::exist(backend, spec).await?;
    spec.image_defaults = root::image_defaults(backend, &spec.image).await?;
    if spec.isolation_actual == Some(Isolation::Microvm) {
        validate::microvm(spec)?;
        root::startable(backend, spec)?;
    }
    spec.id = crate::random::hex::<16>()?;
    Ok(())
}

async fn insert(backend: &LocalBackend, spec: &SandboxSpec) -> MicrosandboxResult<SandboxRow> {
    let store = backend.store().await?;
    match store.insert_sandbox(spec, SandboxStatus::Starting).await {
        Err(MicrosandboxError::SandboxAlreadyExists(name)) => {
            // We hold the lock: a record still `Starting`, or one whose creation was cut off, has no owner.
            let Some((row, run)) = store.sandbox(&name).await? else {
                return store.insert_sandbox(spec, SandboxStatus::Starting).await;
            };
            let interrupted =
                run.as_ref().is_none_or(|run| run.termination_detail.as_deref() == Some(reconcile::INTERRUPTED));
            let ownerless = row.status == SandboxStatus::Starting;
            if !(ownerless || row.status == SandboxStatus::Crashed && interrupted) {
                return Err(MicrosandboxError::SandboxAlreadyExists(name));
            }
            if ownerless {
                reconcile::finish(backend, &row, SandboxStatus::Crashed, Some(reconcile::INTERRUPTED)).await?;
            }
            reconcile::remove_all(backend, &row).await?;
            store.insert_sandbox(spec, SandboxStatus::Starting).await
        }
        other => other,
    }
}

/// Boots and records: `Starting` with a pid, then `Running`.
async fn bring_up(
    backend: &LocalBackend,
    spec: &SandboxSpec,
    row_id: i32,
    patches: &[Patch],
    trace: &mut BootTrace,
) -> MicrosandboxResult<Booted> {
    let store = backend.store().await?;
    let rootfs_mode = if spec.image_defaults.manifest_digest.is_some() { "erofs" } else { "bind" };
    store.set_rootfs(row_id, spec.image_defaults.manifest_digest.as_deref(), rootfs_mode).await?;
    let volumes = super::mounts::volumes(spec);
    if !volumes.is_empty() {
        // Before anything is mounted: from here on nobody can remove them.
        store.attach_volumes(row_id, rustix::process::getpid().as_raw_nonzero().get(), &volumes).await?;
    }
    trace.finish("row");
    let booting = boot::begin(backend, spec, trace).await?;
    boot::failpoint("spawned");
    let pid = booting.pid();
    let booted = booting.ready(trace).await?;
    boot::failpoint("ready");
    let recorded = async {
        if !patches.is_empty() {
            patches::apply(&backend.agent_address(&spec.name)?, patches).await?;
            trace.finish("patches");
        }
        store.begin_run(row_id, pid, SandboxStatus::Running).await
    };
    if let Err(error) = recorded.await {
        spawn::kill(booted.pidfd.as_fd());
        spawn::reap_in_background(booted.pidfd);
        return Err(error);
    }
    boot::failpoint("recorded");
    trace.finish("recorded");
    if spec.detached {
        let_go(&booted.lifeline, &spec.name)?;
    }
    Ok(booted)
}

/// A live sandbox from a booted one; its end is noticed in the background.
fn adopt(shared: &SharedBackend, spec: SandboxSpec, db_id: i32, booted: Booted, trace: BootTrace) -> Sandbox {
    let owned = !spec.detached;
    if owned {
        keep_lifeline(&spec.id, booted.lifeline);
    }
    let (backend, name, id) = (shared.clone(), spec.name.clone(), spec.id.clone());
    tokio::spawn(async move {
        if spawn::wait_gone(booted.pidfd).await.is_ok() {
            drop(take_lifeline(&id));
            tokio::time::sleep(AFTER_OTHERS).await;
            if let Some(local) = backend.as_local()
                && let Err(error) = reconcile::current(local, &name).await
            {
                tracing::warn!(sandbox = name, %error, "the end of the sandbox was not recorded; the next read will");
            }
        }
    });
    let inner = SandboxInner::Local(SandboxLocalState { db_id, owned });
    Sandbox::new(shared.clone(), inner, spec).with_boot(trace.into_steps())
}

/// A creation that has a row but no running sandbox yet. Dropped early (the caller's task was cancelled), it undoes
/// itself in the background.
struct Unfinished {
    shared: SharedBackend,
    row: Option<SandboxRow>,
    lock: Option<NameLock>,
    /// The row existed before (a start): it stays, as crashed.
    keep: bool,
}

impl Unfinished {
    fn row_id(&self) -> i32 {
        self.row.as_ref().map_or(0, |row| row.id)
    }
    fn finished_row_id(&mut self) -> i32 {
        self.row.take().map_or(0, |row| row.id)
    }
    fn disarm(&mut self) {
        self.lock = None;
    }
    async fn undo(&mut self) {
        if let (Some(row), Some(lock)) = (self.row.take(), self.lock.take()) {
            undo(self.shared.clone(), row, lock, self.keep).await;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let (Some(row), Some(lock)) = (self.row.take(), self.lock.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(undo(self.shared.clone(), row, lock, self.keep));
        }
    }
}

async fn undo(shared: SharedBackend, row: SandboxRow, lock: NameLock, keep: bool) {
    let Some(backend) = shared.as_local() else { return };
    let undone = async {
        reconcile::finish(backend, &row, SandboxStatus::Crashed, Some(reconcile::INTERRUPTED)).await?;
        if keep {
            return Ok(());
        }
        reconcile::remove_all(backend, &row).await
    };
    match undone.await {
        Ok(()) if !keep => lock.remove_file(),
        Ok(()) => {}
        Err(error) => {
            let error: MicrosandboxError = error;
            tracing::warn!(sandbox = row.name, %error, "a failed creation could not be undone; the next one will");
        }
    }
}

/// Ends and removes a sandbox of the same name.
async fn replace(backend: &LocalBackend, shared: &SharedBackend, config: &SandboxConfig) -> MicrosandboxResult<()> {
    let existing = match get(backend, shared, &config.spec.name).await {
        Ok(existing) => existing,
        Err(MicrosandboxError::SandboxNotFound(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let grace = config.replace_timeout.map_or(DEFAULT_STOP_TIMEOUT, Duration::from_secs_f64);
    existing.stop(Some(grace)).await?;
    match existing.remove().await {
        Err(MicrosandboxError::SandboxNotFound(_)) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

pub async fn start(
    backend: &LocalBackend,
    shared: &SharedBackend,
    name: &str,
    detached: bool,
) -> MicrosandboxResult<Sandbox> {
    validate_sandbox_name(name)?;
    let mut trace = BootTrace::begin();
    // Settle first: a row may still say running for a process that is gone.
    reconcile::current(backend, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    let lock = NameLock::acquire(&backend.config().home, name, LOCK_DEADLINE).await?;
    let store = backend.store().await?;
    let (row, _run) = store.sandbox(name).await?.ok_or_else(|| reconcile::not_found(name))?;
    if !row.status.is_terminal() && row.status != SandboxStatus::Created {
        return Err(MicrosandboxError::SandboxStillRunning(name.into()));
    }
    let mut spec = parse_spec(&row)?;
    if !backend.sandbox_dir(name).is_dir() {
        return Err(MicrosandboxError::Runtime(format!(
            "sandbox state missing: {} is gone; remove the sandbox and create it anew",
            backend.sandbox_dir(name).display()
        )));
    }
    super::mounts::exist(backend, &spec).await?;
    if spec.isolation_actual == Some(Isolation::Microvm) {
        // A start never weakens it: refused while the record is still as it was.
        isolation::require(backend).await?;
    }
    if spec.detached != detached {
        spec.detached = detached;
        store.update_spec(row.id, &spec).await?;
    }
    store.set_status(row.id, &[row.status], SandboxStatus::Starting).await?;
    let mut guard = Unfinished { shared: shared.clone(), row: Some(row), lock: Some(lock), keep: true };
    match bring_up(backend, &spec, guard.row_id(), &[], &mut trace).await {
        Ok(booted) => {
            guard.disarm();
            Ok(adopt(shared, spec, guard.finished_row_id(), booted, trace))
        }
        Err(error) => {
            guard.undo().await;
            Err(error)
        }
    }
}

fn parse_spec(row: &SandboxRow) -> MicrosandboxResult<SandboxSpec> {
    serde_json::from_str(&row.config_json)
        .map_err(|e| MicrosandboxError::json(format!("stored configuration of sandbox {}", row.name), e))
}

pub async fn get(backend: &LocalBackend, shared: &SharedBackend, name: &str) -> MicrosandboxResult<SandboxHandle> {
    validate_sandbox_name(name)?;
    let (row, run) = reconcile::current(backend, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    Ok(handle(shared, row, run))
}

fn handle(shared: &SharedBackend, row: SandboxRow, run: Option<RunRow>) -> SandboxHandle {
    // A broken configuration must not make the sandbox unreachable; `config()` will say what is wrong.
    let spec = parse_spec(&row).unwrap_or_default();
    let pid = run.as_ref().filter(|run| run.active).and_then(|run| run.pid);
    let last_run = run.map(|run| LastRun {
        exit_code: run.exit_code,
        signal: run.exit_signal,
        reason: run.termination_reason,
        detail: run.termination_detail,
    });
    let record = SandboxRecord {
        name: row.name,
        id: spec.id,
        status: row.status,
        config_json: row.config_json,
        created_at: row.created_at,
        updated_at: row.updated_at,
        isolation: spec.isolation_actual,
        last_run,
        last_error: None,
        inner: SandboxHandleInner::Local(SandboxHandleLocalState { db_id: row.id, pid }),
    };
    SandboxHandle::new(shared.clone(), record)
}

/// One page, newest first; the cursor is the id of the page's last row.
pub async fn list(backend: &LocalBackend, shared: &SharedBackend, query: ListQuery) -> MicrosandboxResult<SandboxList> {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(MicrosandboxError::InvalidConfig(format!("limit must be 1 to {PAGE_MAX}: got {limit}")));
    }
    let below = query.cursor.as_deref().map(decode_cursor).transpose()?;
    let page = backend.store().await?.sandboxes(below, limit, &query.labels).await?;
    let mut sandboxes = Vec::with_capacity(page.rows.len());
    for (row, run) in page.rows {
        // An ephemeral one may turn out to be gone.
        if let Some((row, run)) = reconcile::settle(backend, row, run).await? {
            sandboxes.push(handle(shared, row, run));
        }
    }
    Ok(SandboxList { sandboxes, next_cursor: page.next.map(encode_cursor) })
}

fn encode_cursor(id: i32) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id.to_string())
}

fn decode_cursor(text: &str) -> MicrosandboxResult<i32> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<i32>().ok())
        .filter(|id| *id > 0)
        .ok_or_else(|| MicrosandboxError::InvalidCursor(format!("{text:?} is not a cursor that list gave")))
}

pub async fn remove(backend: &LocalBackend, name: &str, expected_id: Option<&str>) -> MicrosandboxResult<()> {
    validate_sandbox_name(name)?;
    reconcile::current(backend, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    let lock = NameLock::acquire(&backend.config().home, name, LOCK_DEADLINE).await?;
    let (row, _run) = backend.store().await?.sandbox(name).await?.ok_or_else(|| reconcile::not_found(name))?;
    if let Some(expected) = expected_id
        && parse_spec(&row).is_ok_and(|spec| !spec.id.is_empty() && spec.id != expected)
    {
        return Err(MicrosandboxError::SandboxReplaced(name.into()));
    }
    if row.status.blocks_remove() {
        return Err(MicrosandboxError::SandboxStillRunning(name.into()));
    }
    reconcile::remove_all(backend, &row).await?;
    backend.forget(name);
    lock.remove_file();
    Ok(())
}

/// A live sandbox for a running one, without owning it.
pub async fn connect(
    backend: &LocalBackend,
    shared: &SharedBackend,
    name: &str,
    timeout: Duration,
) -> MicrosandboxResult<Sandbox> {
    validate_sandbox_name(name)?;
    let (row, _run) = reconcile::current(backend, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    if !row.status.is_live() {
        return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status: row.status });
    }
    // The handshake proves that the agent answers.
    AgentClient::connect(&backend.agent_address(name)?, timeout).await?;
    let spec = parse_spec(&row)?;
    Ok(Sandbox::new(shared.clone(), SandboxInner::Local(SandboxLocalState { db_id: row.id, owned: false }), spec))
}

/// The running sandbox's row and who runs it. Terminal and absent ones are told apart.
async fn running(backend: &LocalBackend, name: &str) -> MicrosandboxResult<(SandboxRow, Option<Identity>)> {
    validate_sandbox_name(name)?;
    let (row, _run) = reconcile::current(backend, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    if row.status.is_terminal() || row.status == SandboxStatus::Created {
        return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status: row.status });
    }
    let identity = reconcile::identity(&backend.sandbox_dir(name));
    Ok((row, identity))
}

/// Through the agent, which syncs; SIGTERM to the runtime only when the agent cannot be reached.
pub async fn stop(backend: &LocalBackend, name: &str) -> MicrosandboxResult<()> {
    let (row, identity) = running(backend, name).await?;
    if row.status == SandboxStatus::Paused {
        // A frozen agent cannot stop anything.
        freeze::resume(backend, name).await?;
    }
    backend.store().await?.set_status(row.id, &[SandboxStatus::Running], SandboxStatus::Draining).await?;
    boot::failpoint("draining");
    let asked = async {
        let client = AgentClient::connect(&backend.agent_address(name)?, SHUTDOWN_CONNECT).await?;
        client.shutdown(None).await
    };
    if let Err(error) = asked.await {
        tracing::info!(sandbox = name, %error, "the agent cannot be asked to stop; signalling its runtime");
        if let Some(pidfd) = identity.and_then(|identity| process::open(&identity.runtime)) {
            rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::TERM).map_err(|e| {
                MicrosandboxError::Io { context: format!("signal the runtime of {name}"), source: e.into() }
            })?;
        }
    }
    Ok(())
}

/// No new programs; the sandbox ends when the last one that runs has.
pub async fn drain(backend: &LocalBackend, name: &str) -> MicrosandboxResult<()> {
    let (row, _identity) = running(backend, name).await?;
    if row.status == SandboxStatus::Paused {
        freeze::resume(backend, name).await?;
    }
    AgentClient::connect(&backend.agent_address(name)?, SHUTDOWN_CONNECT).await?.drain().await?;
    backend.store().await?.set_status(row.id, &[SandboxStatus::Running], SandboxStatus::Draining).await.map(drop)
}

/// SIGKILL to the runtime; the guest dies with it.
pub async fn kill(backend: &LocalBackend, name: &str) -> MicrosandboxResult<()> {
    let (row, identity) = running(backend, name).await?;
    let store = backend.store().await?;
    store.set_status(row.id, &[SandboxStatus::Running, SandboxStatus::Paused], SandboxStatus::Draining).await?;
    if let Some(pidfd) = identity.and_then(|identity| process::open(&identity.runtime)) {
        spawn::kill(pidfd.as_fd());
    }
    Ok(())
}

/// Tells the runtime that its sandbox no longer ends with us. One that has ended meanwhile needs no telling.
fn let_go(lifeline: &OwnedFd, name: &str) -> MicrosandboxResult<()> {
    match rustix::io::write(lifeline, b"d") {
        Ok(_) | Err(rustix::io::Errno::PIPE) => Ok(()),
        Err(e) => Err(MicrosandboxError::Io { context: format!("detach sandbox {name}"), source: e.into() }),
    }
}

/// It keeps running when this process ends.
pub async fn detach(backend: &LocalBackend, name: &str) -> MicrosandboxResult<()> {
    let (row, _identity) = running(backend, name).await?;
    let mut spec = parse_spec(&row)?;
    if let Some(lifeline) = take_lifeline(&spec.id) {
        let_go(&lifeline, name)?;
    }
    spec.detached = true;
    backend.store().await?.update_spec(row.id, &spec).await
}

/// Waits on the runtime process itself, then reads the settled row.
pub async fn wait_terminal(
    backend: &LocalBackend,
    shared: &SharedBackend,
    name: &str,
) -> MicrosandboxResult<SandboxHandle> {
    loop {
        let now = get(backend, shared, name).await?;
        if now.status_snapshot().is_terminal() {
            return Ok(now);
        }
        let identity = reconcile::identity(&backend.sandbox_dir(name));
        match identity.and_then(|identity| process::open(&identity.runtime)) {
            Some(pidfd) => spawn::wait_gone(pidfd).await.map_err(|source| MicrosandboxError::Io {
                context: format!("wait for the runtime of {name}"),
                source,
            })?,
            // Booting, or being settled by somebody else: what comes of it is known when they are done.
            None => {
                let (row, _run) =
                    reconcile::current_in_turn(backend, name).await?.ok_or_else(|| reconcile::not_found(name))?;
                if !row.status.is_terminal() {
                    tokio::time::sleep(STILL_LIVE).await;
                }
            }
        }
    }
}
