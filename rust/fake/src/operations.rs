//! The backend traits over memory: every operation that the local backend has.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use futures::stream;
use microsandbox_contract::{IsolationDriver, IsolationReport};
use microsandbox_core::agent::check_path;
use microsandbox_core::api::{Awaited, SandboxRecord};
use microsandbox_core::backend::{
    Agent, Backend, BackendKind, ConnectRequest, CreateRequest, ExecRequest, ListQuery, LiveRecord, Operation,
    RecordPage, RemoveRequest, SandboxBackend, StartRequest, VolumeBackend, available_when,
};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::files::write_host;
use microsandbox_core::lifecycle::{Force, replace};
use microsandbox_core::model::{
    ExecHandle, ExecOutput, FsAttributes, FsEntry, FsListStream, FsMetadata, FsReadStream, FsWriteSink, LogEntry,
    LogOptions, LogStream, LogStreamOptions, MetricsStream, Owners, SandboxMetrics, SandboxSpec, TransferProgress,
    validate_stored_name,
};

use super::files::{FileTree, normalise, one_page};
use super::journal::Want;
use super::records::{self, Record};
use super::sink::Sink;
use super::{MemoryBackend, lock, run};

/// Chunks of a read stream.
const CHUNK: usize = 1 << 20;

impl Backend for MemoryBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Local
    }
    fn sandboxes(&self) -> &dyn SandboxBackend {
        self
    }
    fn volumes(&self) -> &dyn VolumeBackend {
        self
    }
}

/// The text programs look for when a sandbox does not run.
fn unavailable(name: &str) -> MicrosandboxError {
    let reason = "no live metrics slot (the sandbox is not running)".into();
    MicrosandboxError::MetricsUnavailable { name: name.into(), reason }
}

impl MemoryBackend {
    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Record) -> MicrosandboxResult<T>) -> MicrosandboxResult<T> {
        validate_stored_name("sandbox", name)?;
        act(lock(&self.shared.records).get(name)?)
    }

    fn with_live<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Record) -> MicrosandboxResult<T>,
    ) -> MicrosandboxResult<T> {
        validate_stored_name("sandbox", name)?;
        act(lock(&self.shared.records).live(name)?)
    }

    fn sample(&self, name: &str, previous: Option<&SandboxMetrics>) -> MicrosandboxResult<SandboxMetrics> {
        let unavailable = |_error| unavailable(name);
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

    async fn create_one(&self, request: CreateRequest) -> MicrosandboxResult<LiveRecord> {
        let CreateRequest { config, start, owner, progress: _ } = request;
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
            replace(self, &spec.name, config.replace_timeout, Force::Available).await?;
        }
        let (name, detached) = (spec.name.clone(), spec.detached);
        lock(&self.shared.records).insert(spec, owner)?;
        if start {
            records::boot(&self.shared, &name, detached)?;
        }
        self.with(&name, |record| Ok(record.live(!detached)))
    }
}

impl SandboxBackend for MemoryBackend {
    fn create(&self, request: CreateRequest) -> Operation<'_, LiveRecord> {
        Box::pin(self.create_one(request))
    }
    fn start<'a>(&'a self, request: StartRequest<'a>) -> Operation<'a, LiveRecord> {
        Box::pin(async move {
            let StartRequest { name, detached } = request;
            self.fault("start")?;
            validate_stored_name("sandbox", name)?;
            records::boot(&self.shared, name, detached)?;
            self.with(name, |record| Ok(record.live(!detached)))
        })
    }
    fn connect<'a>(&'a self, request: ConnectRequest<'a>) -> Operation<'a, LiveRecord> {
        Box::pin(async move {
            self.fault("connect")?;
            self.with_live(request.name, |record| Ok(record.live(false)))
        })
    }
    fn get<'a>(&'a self, name: &'a str) -> Operation<'a, SandboxRecord> {
        Box::pin(async move {
            self.fault("get")?;
            self.with(name, |record| Ok(record.record()))
        })
    }
    fn get_by_id<'a>(&'a self, id: &'a str, owners: &'a Owners) -> Operation<'a, SandboxRecord> {
        Box::pin(async move {
            self.fault("get")?;
            lock(&self.shared.records).by_id(id, owners).map(Record::record)
        })
    }
    fn list(&self, query: ListQuery) -> Operation<'_, RecordPage> {
        Box::pin(async move {
            self.fault("list")?;
            lock(&self.shared.records).list(&query)
        })
    }
    fn count(&self) -> Operation<'_, u64> {
        Box::pin(async move { Ok(lock(&self.shared.records).len() as u64) })
    }
    fn remove<'a>(&'a self, request: RemoveRequest<'a>) -> Operation<'a, ()> {
        Box::pin(async move {
            self.fault("remove")?;
            validate_stored_name("sandbox", request.name)?;
            lock(&self.shared.records).remove(request.name, request.expected_id)
        })
    }
    fn stop<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move {
            self.fault("stop")?;
            validate_stored_name("sandbox", name)?;
            records::stop(&self.shared, name)
        })
    }
    fn kill<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move {
            self.fault("kill")?;
            validate_stored_name("sandbox", name)?;
            records::kill(&self.shared, name)
        })
    }
    fn detach<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move {
            self.fault("detach")?;
            self.with_live(name, |record| {
                record.spec.detached = true;
                Ok(())
            })
        })
    }
    fn wait<'a>(&'a self, name: &'a str) -> Operation<'a, SandboxRecord> {
        Box::pin(async move {
            let mut changes = self.shared.changes.subscribe();
            let mut awaited = Awaited::default();
            loop {
                if let ControlFlow::Break(end) = awaited.look(self.with(name, |record| Ok(record.record()))) {
                    return end;
                }
                // The sender lives as long as this backend.
                let _ = changes.changed().await;
            }
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

    fn isolation<'a>(&'a self, name: &'a str) -> Operation<'a, IsolationReport> {
        Box::pin(async move {
            self.fault("isolation_report")?;
            self.with_live(name, |_| {
                Ok(IsolationReport { driver: IsolationDriver::Memory, accelerator: None, mechanisms: Vec::new() })
            })
        })
    }
    fn agent<'a>(&'a self, name: &'a str) -> Box<dyn Agent + 'a> {
        Box::new(MemoryAgent { backend: self, name })
    }
}

/// Programs and files of one sandbox in memory.
struct MemoryAgent<'a> {
    backend: &'a MemoryBackend,
    name: &'a str,
}

impl MemoryAgent<'_> {
    fn live<T>(&self, act: impl FnOnce(&mut Record) -> MicrosandboxResult<T>) -> MicrosandboxResult<T> {
        self.backend.with_live(self.name, act)
    }

    /// A file operation of a running sandbox: fault, path, then the tree.
    fn on_files<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        paths: [Option<&'a str>; 2],
        act: impl FnOnce(&mut FileTree) -> MicrosandboxResult<T> + Send + 'a,
    ) -> Operation<'a, T> {
        Box::pin(async move {
            self.backend.fault(operation)?;
            let files = self.live(|record| {
                record.touch();
                Ok(record.files.clone())
            })?;
            let verb = operation.strip_prefix("fs_").unwrap_or(operation);
            paths.into_iter().flatten().try_for_each(|path| check_path(verb, path))?;
            act(&mut lock(&files))
        })
    }
}

impl Agent for MemoryAgent<'_> {
    fn exec<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, ExecOutput> {
        Box::pin(async move {
            self.backend.fault("exec")?;
            let place = self.live(|record| Ok(record.place(&self.backend.shared)))?;
            run::collect(place, request.cmd, request.options).await
        })
    }
    fn exec_stream<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, ExecHandle> {
        Box::pin(async move {
            self.backend.fault("exec_stream")?;
            let place = self.live(|record| Ok(record.place(&self.backend.shared)))?;
            place.start(request.cmd, request.options)
        })
    }
    fn files<'a>(self: Box<Self>) -> Box<dyn microsandbox_core::backend::Files + 'a>
    where
        Self: 'a,
    {
        self
    }
    fn ping(&self) -> Operation<'_, Duration> {
        Box::pin(async move {
            self.backend.fault("ping")?;
            let asked = Instant::now();
            self.live(|_| Ok(asked.elapsed()))
        })
    }
    fn touch(&self) -> Operation<'_, u64> {
        Box::pin(async move {
            self.backend.fault("touch")?;
            self.live(|record| {
                record.touch();
                Ok(record.activity)
            })
        })
    }
}

/// As from an agent: a missing file is the first item's error.
fn pieces(files: &FileTree, path: &str) -> FsReadStream {
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
    Box::pin(stream::iter(chunks))
}

impl microsandbox_core::backend::Files for MemoryAgent<'_> {
    fn lacks(&self, call: &'static str) -> MicrosandboxError {
        MicrosandboxError::unsupported(format!("SandboxFs::{call}"), available_when::FS)
    }
    fn read_pieces<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.on_files("fs_read", [Some(path), None], move |files| Ok(pieces(files, path)))
    }
    fn read_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.on_files("fs_read_stream", [Some(path), None], move |files| Ok(pieces(files, path)))
    }
    fn write<'a>(&'a self, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        self.on_files("fs_write", [Some(path), None], move |files| files.write(path, data, None))
    }
    fn write_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsWriteSink> {
        self.on_files("fs_write_stream", [Some(path), None], move |_| {
            let (backend, name) = (self.backend.clone(), self.name.to_owned());
            Ok(Box::new(Sink::new(path, move |path, data| {
                let (backend, name) = (backend.clone(), name.clone());
                Box::pin(async move {
                    let agent = MemoryAgent { backend: &backend, name: &name };
                    microsandbox_core::backend::Files::write(&agent, &path, data).await
                })
            })) as FsWriteSink)
        })
    }
    fn list<'a>(&'a self, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        self.on_files("fs_list", [Some(path), None], move |files| files.list(path))
    }
    fn list_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsListStream> {
        self.on_files("fs_list_stream", [Some(path), None], move |files| files.list(path).map(one_page))
    }
    /// There are no links to follow here.
    fn stat<'a>(&'a self, path: &'a str, _follow: bool) -> Operation<'a, FsMetadata> {
        self.on_files("fs_stat", [Some(path), None], move |files| files.stat("stat", path))
    }
    fn set<'a>(&'a self, path: &'a str, attributes: FsAttributes) -> Operation<'a, ()> {
        self.on_files("fs_set", [Some(path), None], move |files| files.set(path, &attributes))
    }
    fn realpath<'a>(&'a self, path: &'a str) -> Operation<'a, String> {
        self.on_files("fs_realpath", [Some(path), None], move |files| {
            files.stat("realpath", path).map(|_| normalise(path))
        })
    }
    fn mkdir<'a>(&'a self, path: &'a str) -> Operation<'a, ()> {
        self.on_files("fs_mkdir", [Some(path), None], move |files| files.mkdir(path))
    }
    fn remove<'a>(&'a self, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        self.on_files("fs_remove", [Some(path), None], move |files| files.remove(path, recursive))
    }
    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.on_files("fs_copy", [Some(from), Some(to)], move |files| files.copy(from, to))
    }
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.on_files("fs_rename", [Some(from), Some(to)], move |files| files.rename(from, to))
    }
    fn exists<'a>(&'a self, path: &'a str) -> Operation<'a, bool> {
        self.on_files("fs_exists", [Some(path), None], move |files| Ok(files.stat("exists", path).is_ok()))
    }
    fn copy_from_host<'a>(
        &'a self,
        host: &'a Path,
        path: &'a str,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        Box::pin(async move {
            self.backend.fault("fs_copy_from_host")?;
            self.live(|_| Ok(()))?;
            check_path("write", path)?;
            let data = tokio::fs::read(host).await.map_err(|error| MicrosandboxError::io("read", host, error))?;
            let count = data.len() as u64;
            self.write(path, data.into()).await?;
            report(progress, count);
            Ok(())
        })
    }
    fn copy_to_host<'a>(
        &'a self,
        path: &'a str,
        host: &'a Path,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        Box::pin(async move {
            self.backend.fault("fs_copy_to_host")?;
            let data = self.read(path, u64::MAX).await?;
            let mode = self.stat(path, true).await?.mode & 0o777;
            let (host, count) = (host.to_path_buf(), data.len() as u64);
            let written = tokio::task::spawn_blocking(move || write_host(&host, mode, &data));
            written
                .await
                .map_err(|error| MicrosandboxError::Runtime(format!("a file task ended early: {error}")))??;
            report(progress, count);
            Ok(())
        })
    }
}

/// A transfer here is one step.
fn report(progress: Option<TransferProgress>, count: u64) {
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
