//! The backend traits over memory: every operation that the local backend has.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use futures::stream;
use microsandbox_contract::{IsolationDriver, IsolationReport};

use super::files::{Files, normalise};
use super::journal::Want;
use super::records::{self, Record};
use super::sink::Sink;
use super::{MemoryBackend, lock, run};
use crate::agent::check_path;
use crate::backend::{
    Backend, BackendKind, ListQuery, Operation, SandboxBackend, SandboxList, SharedBackend, available_when,
};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{
    ExecHandle, ExecOptions, ExecOutput, FsAttributes, FsEntry, FsMetadata, FsReadStream, FsWriteSink, LogEntry,
    LogOptions, LogStream, LogStreamOptions, MetricsStream, SandboxConfig, SandboxMetrics, SandboxSpec,
    TransferProgress, validate_sandbox_name,
};
use crate::sandbox::{DEFAULT_STOP_TIMEOUT, Sandbox, SandboxHandle};

/// Chunks of a read stream.
const CHUNK: usize = 1 << 20;

impl Backend for MemoryBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Local
    }
    fn sandboxes(&self) -> &dyn SandboxBackend {
        self
    }
    fn volumes(&self) -> &dyn crate::backend::VolumeBackend {
        self
    }
}

impl MemoryBackend {
    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Record) -> MicrosandboxResult<T>) -> MicrosandboxResult<T> {
        validate_sandbox_name(name)?;
        act(lock(&self.shared.records).get(name)?)
    }

    fn with_live<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Record) -> MicrosandboxResult<T>,
    ) -> MicrosandboxResult<T> {
        validate_sandbox_name(name)?;
        act(lock(&self.shared.records).live(name)?)
    }

    /// A file operation of a running sandbox: fault, path, then the tree.
    fn on_files<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        name: &'a str,
        paths: [Option<&'a str>; 2],
        act: impl FnOnce(&mut Files) -> MicrosandboxResult<T> + Send + 'a,
    ) -> Operation<'a, T> {
        Box::pin(async move {
            self.fault(operation)?;
            let files = self.with_live(name, |record| {
                record.touch();
                Ok(record.files.clone())
            })?;
            let verb = operation.strip_prefix("fs_").unwrap_or(operation);
            paths.into_iter().flatten().try_for_each(|path| check_path(verb, path))?;
            act(&mut lock(&files))
        })
    }

    fn sample(&self, name: &str, previous: Option<&SandboxMetrics>) -> MicrosandboxResult<SandboxMetrics> {
        let unavailable = |_error| crate::backend::local::metrics::unavailable(name, "the sandbox is not running");
        self.with(name, |record| {
            if record.spec.metrics.effective_interval_ms().is_none() {
                return Err(MicrosandboxError::MetricsDisabled(name.into()));
            }
            Ok(())
        })?;
        self.with_live(name, |record| {
            let limit = u64::from(record.spec.resources.memory_mib) << 20;
            let held = lock(&record.files).size();
            Ok(SandboxMetrics {
                cpu_percent: 0.0,
                vcpu_time_ns: previous.map_or(0, |before| before.vcpu_time_ns),
                memory_bytes: held,
                memory_available_bytes: Some(limit.saturating_sub(held)),
                memory_host_resident_bytes: Some(held),
                memory_limit_bytes: limit,
                disk_read_bytes: 0,
                disk_write_bytes: 0,
                net_rx_bytes: 0,
                net_tx_bytes: 0,
                upper_used_bytes: Some(held),
                upper_free_bytes: None,
                upper_host_allocated_bytes: None,
                uptime_ms: u64::try_from(record.booted.elapsed().as_millis()).unwrap_or(u64::MAX),
                timestamp: Utc::now(),
            })
        })
        .map_err(unavailable)
    }

    async fn create_one(
        &self,
        backend: &SharedBackend,
        config: SandboxConfig,
        start: bool,
    ) -> MicrosandboxResult<Sandbox> {
        self.fault("create")?;
        if let Some(option) = config.unsupported.first() {
            return Err(MicrosandboxError::unsupported(&option.feature, &option.available_when));
        }
        if !config.patches.is_empty() {
            return Err(MicrosandboxError::unsupported("create(patches=)", available_when::PATCHES));
        }
        if !config.spec.mounts.is_empty() {
            return Err(MicrosandboxError::unsupported("create(volumes=)", "on the local backend"));
        }
        let mut spec = config.spec;
        records::prepare(&mut spec)?;
        if config.replace_existing {
            self.replace(backend, &spec.name, config.replace_timeout).await?;
        }
        let (name, detached) = (spec.name.clone(), spec.detached);
        lock(&self.shared.records).insert(spec)?;
        if start {
            records::boot(&self.shared, &name, detached)?;
        }
        self.with(&name, |record| Ok(record.live(backend, !detached)))
    }

    async fn replace(&self, backend: &SharedBackend, name: &str, grace: Option<f64>) -> MicrosandboxResult<()> {
        let Ok(existing) = self.with(name, |record| Ok(record.handle(backend))) else { return Ok(()) };
        let grace = grace.map_or(DEFAULT_STOP_TIMEOUT, Duration::from_secs_f64);
        existing.stop(Some(grace)).await?;
        match existing.remove().await {
            Err(MicrosandboxError::SandboxNotFound(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl SandboxBackend for MemoryBackend {
    fn create<'a>(&'a self, backend: &'a SharedBackend, config: SandboxConfig, start: bool) -> Operation<'a, Sandbox> {
        Box::pin(self.create_one(backend, config, start))
    }

    fn start<'a>(&'a self, backend: &'a SharedBackend, name: &'a str, detached: bool) -> Operation<'a, Sandbox> {
        Box::pin(async move {
            self.fault("start")?;
            validate_sandbox_name(name)?;
            records::boot(&self.shared, name, detached)?;
            self.with(name, |record| Ok(record.live(backend, !detached)))
        })
    }

    fn get<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, SandboxHandle> {
        Box::pin(async move {
            self.fault("get")?;
            self.with(name, |record| Ok(record.handle(backend)))
        })
    }

    fn list<'a>(&'a self, backend: &'a SharedBackend, query: ListQuery) -> Operation<'a, SandboxList> {
        Box::pin(async move {
            self.fault("list")?;
            lock(&self.shared.records).list(backend, &query)
        })
    }

    fn remove<'a>(
        &'a self,
        _backend: &'a SharedBackend,
        name: &'a str,
        expected_id: Option<&'a str>,
    ) -> Operation<'a, ()> {
        Box::pin(async move {
            self.fault("remove")?;
            validate_sandbox_name(name)?;
            lock(&self.shared.records).remove(name, expected_id)
        })
    }

    fn connect<'a>(&'a self, backend: &'a SharedBackend, name: &'a str, _timeout: Duration) -> Operation<'a, Sandbox> {
        Box::pin(async move {
            self.fault("connect")?;
            self.with_live(name, |record| Ok(record.live(backend, false)))
        })
    }

    fn stop<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move {
            self.fault("stop")?;
            validate_sandbox_name(name)?;
            records::stop(&self.shared, name)
        })
    }

    fn kill<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move {
            self.fault("kill")?;
            validate_sandbox_name(name)?;
            records::kill(&self.shared, name)
        })
    }

    fn detach<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move {
            self.fault("detach")?;
            self.with_live(name, |record| {
                record.spec.detached = true;
                Ok(())
            })
        })
    }

    fn wait_terminal<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, SandboxHandle> {
        Box::pin(async move {
            let mut changes = self.shared.changes.subscribe();
            loop {
                let handle = self.with(name, |record| Ok(record.handle(backend)))?;
                if handle.status_snapshot().is_terminal() {
                    return Ok(handle);
                }
                // The sender lives as long as this backend.
                let _ = changes.changed().await;
            }
        })
    }

    fn exec<'a>(
        &'a self,
        name: &'a str,
        _spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, ExecOutput> {
        Box::pin(async move {
            self.fault("exec")?;
            let place = self.with_live(name, |record| Ok(record.place(&self.shared)))?;
            run::collect(place, cmd, options).await
        })
    }

    fn exec_stream<'a>(
        &'a self,
        name: &'a str,
        _spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, ExecHandle> {
        Box::pin(async move {
            self.fault("exec_stream")?;
            let place = self.with_live(name, |record| Ok(record.place(&self.shared)))?;
            place.start(cmd, options)
        })
    }

    fn logs<'a>(&'a self, name: &'a str, options: LogOptions) -> Operation<'a, Vec<LogEntry>> {
        Box::pin(async move {
            self.fault("logs")?;
            let want = Want::new(&options.sources, options.since, options.until);
            let mut entries = self.with(name, |record| Ok(lock(&record.journal).all(&want)))?;
            if let Some(tail) = options.tail {
                entries.drain(..entries.len().saturating_sub(tail));
            }
            Ok(entries)
        })
    }

    fn log_stream<'a>(&'a self, name: &'a str, options: LogStreamOptions) -> Operation<'a, LogStream> {
        Box::pin(async move {
            self.fault("log_stream")?;
            let journal = self.with(name, |record| Ok(record.journal.clone()))?;
            let start = lock(&journal).seek(options.from_cursor.as_deref())?;
            let follower = Follower {
                backend: self.clone(),
                name: name.into(),
                journal,
                want: Want::new(&options.sources, options.since, None),
                until: options.until,
                follow: options.follow,
                number: start,
                changes: self.shared.changes.subscribe(),
            };
            Ok(Box::pin(stream::unfold(follower, |follower| follower.next())) as LogStream)
        })
    }

    fn metrics<'a>(&'a self, name: &'a str, _spec: &'a SandboxSpec) -> Operation<'a, SandboxMetrics> {
        Box::pin(async move {
            self.fault("metrics")?;
            self.sample(name, None)
        })
    }

    fn metrics_stream(&self, name: String, _spec: SandboxSpec, interval: Duration) -> MetricsStream {
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let state = Some((self.clone(), name, ticks, None::<SandboxMetrics>));
        Box::pin(stream::unfold(state, |state| async move {
            let (backend, name, mut ticks, previous) = state?;
            ticks.tick().await;
            match backend.sample(&name, previous.as_ref()) {
                Ok(sample) => Some((Ok(sample.clone()), Some((backend, name, ticks, Some(sample))))),
                // It ended between two samples: so does the stream.
                Err(_) if previous.is_some() => None,
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    fn ping<'a>(&'a self, name: &'a str) -> Operation<'a, Duration> {
        Box::pin(async move {
            self.fault("ping")?;
            let asked = Instant::now();
            self.with_live(name, |_| Ok(asked.elapsed()))
        })
    }

    fn touch<'a>(&'a self, name: &'a str) -> Operation<'a, u64> {
        Box::pin(async move {
            self.fault("touch")?;
            self.with_live(name, |record| {
                record.touch();
                Ok(record.activity)
            })
        })
    }

    fn isolation_report<'a>(&'a self, name: &'a str) -> Operation<'a, IsolationReport> {
        Box::pin(async move {
            self.fault("isolation_report")?;
            self.with_live(name, |_| {
                Ok(IsolationReport { driver: IsolationDriver::Memory, accelerator: None, mechanisms: Vec::new() })
            })
        })
    }

    fn fs_read<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Bytes> {
        self.on_files("fs_read", name, [Some(path), None], move |files| files.read(path))
    }
    fn fs_read_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsReadStream> {
        self.on_files("fs_read_stream", name, [Some(path), None], move |files| {
            // As from an agent: a missing file is the first item's error.
            let chunks: Vec<MicrosandboxResult<Bytes>> = match files.read(path) {
                Ok(mut data) => {
                    let mut chunks = Vec::new();
                    while !data.is_empty() {
                        chunks.push(Ok(data.split_to(data.len().min(CHUNK))));
                    }
                    chunks
                }
                Err(error) => vec![Err(error)],
            };
            Ok(Box::pin(stream::iter(chunks)) as FsReadStream)
        })
    }
    fn fs_write<'a>(&'a self, name: &'a str, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        self.on_files("fs_write", name, [Some(path), None], move |files| files.write(path, data, None))
    }
    fn fs_write_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsWriteSink> {
        let backend = self.clone();
        self.on_files("fs_write_stream", name, [Some(path), None], move |_| {
            let name = name.to_owned();
            Ok(Box::new(Sink::new(path, move |path, data| {
                let (backend, name) = (backend.clone(), name.clone());
                Box::pin(async move { backend.fs_write(&name, &path, data).await })
            })) as FsWriteSink)
        })
    }
    fn fs_list<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        self.on_files("fs_list", name, [Some(path), None], move |files| files.list(path))
    }
    /// There are no links to follow here.
    fn fs_stat<'a>(&'a self, name: &'a str, path: &'a str, _follow: bool) -> Operation<'a, FsMetadata> {
        self.on_files("fs_stat", name, [Some(path), None], move |files| files.stat("stat", path))
    }
    fn fs_set<'a>(&'a self, name: &'a str, path: &'a str, attributes: FsAttributes) -> Operation<'a, ()> {
        self.on_files("fs_set", name, [Some(path), None], move |files| files.set(path, &attributes))
    }
    fn fs_realpath<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, String> {
        self.on_files("fs_realpath", name, [Some(path), None], move |files| {
            files.stat("realpath", path).map(|_| normalise(path))
        })
    }
    fn fs_mkdir<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, ()> {
        self.on_files("fs_mkdir", name, [Some(path), None], move |files| files.mkdir(path))
    }
    fn fs_remove<'a>(&'a self, name: &'a str, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        self.on_files("fs_remove", name, [Some(path), None], move |files| files.remove(path, recursive))
    }
    fn fs_copy<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.on_files("fs_copy", name, [Some(from), Some(to)], move |files| files.copy(from, to))
    }
    fn fs_rename<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.on_files("fs_rename", name, [Some(from), Some(to)], move |files| files.rename(from, to))
    }
    fn fs_exists<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, bool> {
        self.on_files("fs_exists", name, [Some(path), None], move |files| Ok(files.stat("exists", path).is_ok()))
    }
    fn fs_copy_from_host<'a>(
        &'a self,
        name: &'a str,
        host: &'a Path,
        guest: &'a str,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        Box::pin(async move {
            self.fault("fs_copy_from_host")?;
            self.with_live(name, |_| Ok(()))?;
            check_path("write", guest)?;
            let data = tokio::fs::read(host).await.map_err(|error| MicrosandboxError::io("read", host, error))?;
            let count = data.len() as u64;
            self.fs_write(name, guest, data.into()).await?;
            told(progress, count);
            Ok(())
        })
    }
    fn fs_copy_to_host<'a>(
        &'a self,
        name: &'a str,
        guest: &'a str,
        host: &'a Path,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        Box::pin(async move {
            self.fault("fs_copy_to_host")?;
            let data = self.fs_read(name, guest).await?;
            let mode = self.fs_stat(name, guest, true).await?.mode & 0o777;
            let (host, count) = (host.to_path_buf(), data.len() as u64);
            let written = tokio::task::spawn_blocking(move || crate::backend::files::write_host(&host, mode, &data));
            written
                .await
                .map_err(|error| MicrosandboxError::Runtime(format!("a file task ended early: {error}")))??;
            told(progress, count);
            Ok(())
        })
    }
}

/// A transfer here is one step.
fn told(progress: Option<TransferProgress>, count: u64) {
    if let Some(progress) = progress.filter(|_| count > 0) {
        progress(count, Some(count));
    }
}

struct Follower {
    backend: MemoryBackend,
    name: String,
    journal: Arc<std::sync::Mutex<super::journal::Journal>>,
    want: Want,
    until: Option<chrono::DateTime<Utc>>,
    follow: bool,
    number: u64,
    changes: tokio::sync::watch::Receiver<u64>,
}

impl Follower {
    async fn next(mut self) -> Option<(MicrosandboxResult<LogEntry>, Follower)> {
        loop {
            self.changes.mark_unchanged();
            // Asked before reading: what was written until then is seen.
            let live = self.follow && self.backend.with_live(&self.name, |_| Ok(())).is_ok();
            loop {
                let Some((entry, after)) = lock(&self.journal).at(self.number) else { break };
                self.number = after;
                if self.until.is_some_and(|until| entry.timestamp >= until) {
                    return None;
                }
                if self.want.admits(&entry) {
                    return Some((Ok(entry), self));
                }
            }
            if !live {
                return None;
            }
            let _ = self.changes.changed().await;
        }
    }
}
