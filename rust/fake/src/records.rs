//! Sandboxes in memory: their status and its changes. Every change of a status goes through here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};

use super::files::FileTree;
use super::journal::Journal;
use super::run::{Kill, Place};
use super::{Shared, lock};
use microsandbox_core::api::{
    LastRun, SandboxHandleInner, SandboxHandleLocalState, SandboxInner, SandboxLocalState, SandboxRecord,
};
use microsandbox_core::backend::{ListQuery, LiveRecord, RecordPage, available_when};
use microsandbox_core::config::LocalConfig;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{Isolation, Owners, SandboxSpec, SandboxStatus};
use microsandbox_core::validate;

const PAGE_DEFAULT: u32 = 20;
const PAGE_MAX: u32 = 100;
/// Longest wait for programs to take their TERM.
const STOP_WAIT: Duration = Duration::from_secs(2);

pub struct Record {
    db_id: i32,
    pub spec: SandboxSpec,
    owner: Option<String>,
    pub status: SandboxStatus,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    last_run: Option<LastRun>,
    pub files: Arc<Mutex<FileTree>>,
    pub journal: Arc<Mutex<Journal>>,
    running: HashMap<u64, Kill>,
    sessions: u64,
    pub activity: u64,
    /// Number of the current or last boot.
    boot: u64,
    pub booted: Instant,
    touched: Instant,
}

/// All of them, by name.
#[derive(Default)]
pub struct Records {
    by_name: BTreeMap<String, Record>,
    last_id: i32,
}

fn not_found(name: &str) -> MicrosandboxError {
    MicrosandboxError::SandboxNotFound(name.into())
}

impl Records {
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn get(&mut self, name: &str) -> MicrosandboxResult<&mut Record> {
        self.by_name.get_mut(name).ok_or_else(|| not_found(name))
    }

    /// One that an agent would answer for.
    pub fn live(&mut self, name: &str) -> MicrosandboxResult<&mut Record> {
        let record = self.get(name)?;
        if !record.status.is_live() {
            return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status: record.status });
        }
        Ok(record)
    }

    /// By identity, or not found.
    pub fn by_id(&self, id: &str, owners: &Owners) -> MicrosandboxResult<&Record> {
        let is_meant = |record: &&Record| record.spec.id == id && owners.include(record.owner.as_deref());
        self.by_name.values().find(is_meant).ok_or_else(|| not_found(id))
    }

    pub fn insert(&mut self, spec: SandboxSpec, owner: Option<String>) -> MicrosandboxResult<()> {
        if self.by_name.contains_key(&spec.name) {
            return Err(MicrosandboxError::SandboxAlreadyExists(spec.name));
        }
        self.last_id += 1;
        let now = Utc::now();
        let mut files = FileTree::new();
        if let Some(workdir) = &spec.runtime.workdir {
            files.mkdir(workdir)?;
        }
        let record = Record {
            db_id: self.last_id,
            owner,
            status: SandboxStatus::Created,
            created_at: now,
            updated_at: now,
            last_run: None,
            files: Arc::new(Mutex::new(files)),
            journal: Arc::new(Mutex::new(Journal::new())),
            running: HashMap::new(),
            sessions: 0,
            activity: 0,
            boot: 0,
            booted: Instant::now(),
            touched: Instant::now(),
            spec,
        };
        self.by_name.insert(record.spec.name.clone(), record);
        Ok(())
    }

    pub fn list(&self, query: &ListQuery) -> MicrosandboxResult<RecordPage> {
        let limit = query.limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(MicrosandboxError::InvalidConfig(format!("limit must be 1 to {PAGE_MAX}: got {limit}")));
        }
        let below = query.cursor.as_deref().map(decode_cursor).transpose()?.unwrap_or(i32::MAX);
        let labelled =
            |record: &&Record| query.labels.iter().all(|(key, value)| record.spec.labels.get(key) == Some(value));
        let owned = |record: &&Record| query.owners.include(record.owner.as_deref());
        let mut rows: Vec<&Record> =
            self.by_name.values().filter(|record| record.db_id < below).filter(labelled).filter(owned).collect();
        rows.sort_unstable_by_key(|record| std::cmp::Reverse(record.db_id));
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(|record| URL_SAFE_NO_PAD.encode(record.db_id.to_string()));
        Ok(RecordPage { records: rows.iter().map(|record| record.record()).collect(), next_cursor: next })
    }

    pub fn remove(&mut self, name: &str, expected_id: Option<&str>) -> MicrosandboxResult<()> {
        let record = self.get(name)?;
        if expected_id.is_some_and(|id| id != record.spec.id) {
            return Err(MicrosandboxError::SandboxReplaced(name.into()));
        }
        if record.status.blocks_remove() {
            return Err(MicrosandboxError::SandboxStillRunning(name.into()));
        }
        self.by_name.remove(name);
        Ok(())
    }
}

fn decode_cursor(text: &str) -> MicrosandboxResult<i32> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let id = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()).filter(|id| *id > 0);
    id.ok_or_else(|| MicrosandboxError::InvalidCursor(format!("{text:?} is not a cursor that list gave")))
}

impl Record {
    pub fn record(&self) -> SandboxRecord {
        SandboxRecord {
            name: self.spec.name.clone(),
            id: self.spec.id.clone(),
            status: self.status,
            // A specification is plain data and always serialises.
            config_json: serde_json::to_string(&self.spec).unwrap_or_default(),
            owner: self.owner.clone(),
            created_at: Some(self.created_at),
            updated_at: Some(self.updated_at),
            isolation: self.spec.isolation_actual,
            last_run: self.last_run.clone(),
            last_error: None,
            inner: SandboxHandleInner::Local(SandboxHandleLocalState { db_id: self.db_id, pid: None }),
        }
    }

    pub fn live(&self, owned: bool) -> LiveRecord {
        let inner = SandboxInner::Local(SandboxLocalState { db_id: self.db_id, owned });
        LiveRecord { inner, spec: self.spec.clone(), boot: Vec::new() }
    }

    fn set(&mut self, status: SandboxStatus) {
        self.status = status;
        self.updated_at = Utc::now();
    }

    pub fn touch(&mut self) {
        self.activity += 1;
        self.touched = Instant::now();
    }

    /// No program runs.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Registers a run and gives what it needs.
    pub fn place(&mut self, shared: &Arc<Shared>) -> Place {
        self.touch();
        self.sessions += 1;
        let kill = Kill::new(None);
        self.running.insert(self.sessions, kill.clone());
        Place {
            shared: shared.clone(),
            name: self.spec.name.clone(),
            spec: self.spec.clone(),
            files: self.files.clone(),
            journal: self.journal.clone(),
            session: self.sessions,
            kill,
        }
    }

    /// When idleness or age will end this boot.
    fn ends_at(&self) -> Option<(Instant, &'static str)> {
        let after = |from: Instant, secs: Option<f64>| from.checked_add(Duration::try_from_secs_f64(secs?).ok()?);
        let age = after(self.booted, self.spec.lifecycle.max_duration_secs).map(|at| (at, "MaxDurationExceeded"));
        let from = if self.is_idle() { self.touched } else { Instant::now() };
        let idle = after(from, self.spec.lifecycle.idle_timeout_secs).map(|at| (at, "IdleTimeout"));
        [age, idle].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

/// What `create` checks and settles; the same as for any local sandbox, but for what does not exist in memory.
pub fn prepare(spec: &mut SandboxSpec) -> MicrosandboxResult<()> {
    validate::spec(spec, &LocalConfig::default_for_home("/nonexistent"))?;
    if spec.init.is_some() {
        return Err(MicrosandboxError::unsupported("init", available_when::INIT));
    }
    if spec.isolation != Isolation::Auto {
        return Err(MicrosandboxError::IsolationUnavailable {
            demanded: spec.isolation.to_string(),
            reason: "sandboxes in memory run no programs of the machine and isolate nothing".into(),
            hint: "use isolation=\"auto\" with the in-memory backend".into(),
        });
    }
    let mut id = [0u8; 16];
    let random = std::hash::BuildHasher::build_hasher(&std::hash::RandomState::new());
    id[..8].copy_from_slice(&std::hash::Hasher::finish(&random).to_le_bytes());
    let random = std::hash::BuildHasher::build_hasher(&std::hash::RandomState::new());
    id[8..].copy_from_slice(&std::hash::Hasher::finish(&random).to_be_bytes());
    spec.id = hex::encode(id);
    Ok(())
}

fn changed(shared: &Shared) {
    shared.changes.send_modify(|count| *count += 1);
}

/// Boots: `Created`, `Stopped` or `Crashed` becomes `Running`.
pub fn boot(shared: &Arc<Shared>, name: &str, detached: bool) -> MicrosandboxResult<()> {
    let mut records = lock(&shared.records);
    let record = records.get(name)?;
    if !record.status.is_terminal() && record.status != SandboxStatus::Created {
        return Err(MicrosandboxError::SandboxStillRunning(name.into()));
    }
    record.spec.detached = detached;
    record.boot += 1;
    record.booted = Instant::now();
    record.touched = record.booted;
    record.set(SandboxStatus::Running);
    lock(&record.journal).marker("--- sandbox started ---");
    let policy = &record.spec.lifecycle;
    if policy.max_duration_secs.is_some() || policy.idle_timeout_secs.is_some() {
        tokio::spawn(watch_policy(shared.clone(), name.to_string(), record.boot));
    }
    drop(records);
    changed(shared);
    Ok(())
}

async fn watch_policy(shared: Arc<Shared>, name: String, boot: u64) {
    loop {
        let ends_at = match lock(&shared.records).get(&name) {
            Ok(record) if record.boot == boot && record.status.is_live() => record.ends_at(),
            _ => None,
        };
        let Some((at, reason)) = ends_at else { return };
        if at <= Instant::now() {
            return end(&shared, &name, boot, reason, None);
        }
        tokio::time::sleep_until(at.into()).await;
    }
}

/// Asks every program to end; the sandbox is stopped when they have, or soon by force.
pub fn stop(shared: &Arc<Shared>, name: &str) -> MicrosandboxResult<()> {
    let mut records = lock(&shared.records);
    let record = records.live(name)?;
    record.set(SandboxStatus::Draining);
    for kill in record.running.values() {
        kill.send_replace(Some(libc::SIGTERM));
    }
    let boot = record.boot;
    drop(records);
    changed(shared);
    let (shared, name) = (shared.clone(), name.to_string());
    tokio::spawn(async move {
        let mut changes = shared.changes.subscribe();
        let idle = |shared: &Shared| lock(&shared.records).get(&name).is_ok_and(|record| record.is_idle());
        let _ = tokio::time::timeout(STOP_WAIT, changes.wait_for(|_| idle(&shared))).await;
        end(&shared, &name, boot, "ShutdownRequested", None);
    });
    Ok(())
}

/// Kills the sandbox without waiting for its programs.
pub fn kill(shared: &Arc<Shared>, name: &str) -> MicrosandboxResult<()> {
    let boot = lock(&shared.records).live(name)?.boot;
    end(shared, name, boot, "Signal", Some(libc::SIGKILL));
    Ok(())
}

/// The end of one boot; a later boot of the name is left alone.
fn end(shared: &Shared, name: &str, boot: u64, reason: &str, signal: Option<i32>) {
    let mut records = lock(&shared.records);
    let Ok(record) = records.get(name) else { return };
    if record.boot != boot || record.status.is_terminal() {
        return;
    }
    for kill in record.running.values() {
        kill.send_replace(Some(libc::SIGKILL));
    }
    record.set(SandboxStatus::Stopped);
    let exit_code = signal.is_none().then_some(0);
    record.last_run = Some(LastRun { exit_code, signal, reason: Some(reason.into()), detail: None });
    lock(&record.journal).marker("--- sandbox stopped ---");
    if record.spec.lifecycle.ephemeral {
        records.by_name.remove(name);
    }
    drop(records);
    changed(shared);
}

/// A run has ended.
pub fn forget_run(shared: &Shared, name: &str, session: u64) {
    if let Ok(record) = lock(&shared.records).get(name) {
        record.running.remove(&session);
        record.touched = Instant::now();
    }
    changed(shared);
}
