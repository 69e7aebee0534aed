//! `LocalBackend` as a [`SandboxBackend`] and an [`ImageBackend`]: every operation, delegated.

use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use microsandbox_contract::{Identity, IsolationReport};
use microsandbox_core::agent::connections::KeptDialer;
use microsandbox_core::agent::{AgentAddress, AgentClient, Dialer, StreamAgent, Verdict};
use microsandbox_core::api::{DEFAULT_STOP_TIMEOUT, SandboxRecord};
use microsandbox_core::backend::{
    Agent, ConnectRequest, CreateRequest, ImageBackend, ListQuery, LiveRecord, Operation, ProgressFn, PullProgressFn,
    RecordPage, RemoveRequest, SandboxBackend, StartRequest,
};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::guest_dirs::GuestDirs;
use microsandbox_core::lifecycle::{Ending, Force, replace};
use microsandbox_core::model::{
    DoctorReport, ImageDetail, ImageInfo, ImagePruneReport, ImagePruneRequest, ImageSaveRequest, LogEntry, LogOptions,
    LogStream, LogStreamOptions, MetricsStream, Modification, ModificationPlan, Owners, PullRequest, SandboxMetrics,
    SandboxSpec, SandboxStatus, StorageUsage, validate_stored_name,
};
use microsandbox_home::{Home, blocking, process};
use microsandbox_images as images;
use tokio::net::UnixStream;
use tokio::sync::OnceCell;

use super::lifecycle::{create, lifeline, remove, start, stop};
use super::reconcile::Current;
use super::upper::Upper;
use super::{LocalBackend, doctor, freeze, logs, metrics, modify, reconcile, records, storage, strays};

/// Longest wait for an agent that is to complete its log.
const LOG_DEADLINE: Duration = Duration::from_secs(2);

impl LocalBackend {
    async fn create_prepared(&self, request: CreateRequest) -> MicrosandboxResult<LiveRecord> {
        let prepared = create::prepare(&self.home, request, &self.fallback).await?;
        let config = &prepared.config;
        if config.replace_existing {
            replace(self, &config.spec.name, config.replace_timeout, Force::Available).await?;
        }
        create::create(&self.home, prepared).await
    }

    async fn modify_and_restart(&self, name: &str, change: Modification) -> MicrosandboxResult<ModificationPlan> {
        let modify::Modified { mut plan, restart } = modify::modify(&self.home, name, change).await?;
        if let Some(detached) = restart {
            let record = records::get(&self.home, name).await?;
            Ending { backend: self, record: &record }.stop(DEFAULT_STOP_TIMEOUT).await?;
            start::start(&self.home, StartRequest { name, detached }).await?;
            plan.applied = true;
        }
        Ok(plan)
    }

    /// Lets the log of an existing sandbox catch up: what its agent has sent to any caller is in the file after this. When a
    /// sandbox does not run, its log is complete; when its agent does not answer, what is there is all there is to read.
    async fn settle_log(&self, name: &str) -> MicrosandboxResult<Current> {
        let now = reconcile::current(&self.home, name).await?.ok_or_else(|| reconcile::not_found(name))?;
        if !matches!(now.row.status, SandboxStatus::Running | SandboxStatus::Draining) {
            return Ok(now);
        }
        let dialer = LocalDialer { backend: self, name, address: OnceCell::new() };
        let settle = async {
            let mut client = dialer.dial_idle().await?;
            client.sync_log().await?;
            dialer.keep(client);
            MicrosandboxResult::Ok(())
        };
        match tokio::time::timeout(LOG_DEADLINE, settle).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, name, "the log is read as it is"),
            Err(_elapsed) => tracing::debug!(name, "the log is read as it is: the agent does not answer"),
        }
        Ok(now)
    }

    /// What a failure to reach the agent, or its loss, really means.
    async fn explain(&self, name: &str, error: MicrosandboxError) -> MicrosandboxError {
        let unreachable = matches!(
            error,
            MicrosandboxError::SandboxNotRunning { .. }
                | MicrosandboxError::AgentLost { .. }
                | MicrosandboxError::Io { .. }
        );
        if !unreachable {
            return error;
        }
        match reconcile::current(&self.home, name).await {
            Ok(None) => reconcile::not_found(name),
            Ok(Some(now)) if !now.row.status.is_live() => {
                MicrosandboxError::SandboxNotRunning { name: name.into(), status: now.row.status }
            }
            _ => error,
        }
    }
}

/// The agent of one sandbox, on its unix socket. One call of the caller's has one of these.
struct LocalDialer<'a> {
    backend: &'a LocalBackend,
    name: &'a str,
    /// As of the last dial: reading the token again for each later step of the call would be a file access each.
    address: OnceCell<AgentAddress>,
}

impl LocalDialer<'_> {
    /// Reads the token, and opens the kernel's count of kills for lack of memory where this run's is not open yet.
    async fn kept(&self) -> MicrosandboxResult<KeptDialer<'_>> {
        let read = || async {
            validate_stored_name("sandbox", self.name)?;
            let (name, home, oom) = (self.name.to_owned(), self.backend.home.clone(), self.backend.oom.clone());
            blocking(move || {
                let address = AgentAddress::read(&name, home.agent_socket(&name))?;
                oom.open(&name, &address.token, &home.sandbox_dir(&name));
                Ok(address)
            })
            .await
        };
        let address = self.address.get_or_try_init(read).await?.clone();
        Ok(KeptDialer { address, connections: &self.backend.connections })
    }
}

impl Dialer for LocalDialer<'_> {
    type Stream = UnixStream;

    async fn dial(&self) -> MicrosandboxResult<AgentClient> {
        self.kept().await?.dial().await
    }
    async fn dial_idle(&self) -> MicrosandboxResult<AgentClient> {
        self.kept().await?.dial_idle().await
    }
    fn keep(&self, client: AgentClient) {
        if let Some(address) = self.address.get() {
            KeptDialer { address: address.clone(), connections: &self.backend.connections }.keep(client);
        }
    }
    fn verdict(&self) -> Option<Verdict> {
        let watch = self.backend.oom.watch(self.name, &self.address.get()?.token)?;
        Some(Box::new(move |exit| watch.judge(exit)))
    }
    fn guest_dirs(&self) -> MicrosandboxResult<GuestDirs> {
        GuestDirs::of(&self.backend.home.config().home)
    }
    async fn explain(&self, error: MicrosandboxError) -> MicrosandboxError {
        self.backend.explain(self.name, error).await
    }
}

impl SandboxBackend for LocalBackend {
    fn create(&self, request: CreateRequest) -> Operation<'_, LiveRecord> {
        Box::pin(self.create_prepared(request))
    }
    fn start<'a>(&'a self, request: StartRequest<'a>) -> Operation<'a, LiveRecord> {
        Box::pin(start::start(&self.home, request))
    }
    fn connect<'a>(&'a self, request: ConnectRequest<'a>) -> Operation<'a, LiveRecord> {
        Box::pin(start::connect(&self.home, request))
    }
    fn get<'a>(&'a self, name: &'a str) -> Operation<'a, SandboxRecord> {
        Box::pin(records::get(&self.home, name))
    }
    fn get_by_id<'a>(&'a self, id: &'a str, owners: &'a Owners) -> Operation<'a, SandboxRecord> {
        Box::pin(records::get_by_id(&self.home, id, owners))
    }
    fn count(&self) -> Operation<'_, u64> {
        Box::pin(records::count(&self.home))
    }
    fn list(&self, query: ListQuery) -> Operation<'_, RecordPage> {
        Box::pin(records::list(&self.home, query))
    }
    fn remove<'a>(&'a self, request: RemoveRequest<'a>) -> Operation<'a, ()> {
        Box::pin(async move {
            remove::remove(&self.home, request).await?;
            self.forget(request.name);
            Ok(())
        })
    }
    fn destroy<'a>(&'a self, request: RemoveRequest<'a>) -> Operation<'a, ()> {
        Box::pin(async move {
            remove::destroy(&self.home, request).await?;
            self.forget(request.name);
            Ok(())
        })
    }
    fn stop<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(stop::stop(&self.home, name))
    }
    fn kill<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(stop::kill(&self.home, name))
    }
    fn drain<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(stop::drain(&self.home, name))
    }
    fn modify<'a>(&'a self, name: &'a str, change: Modification) -> Operation<'a, ModificationPlan> {
        Box::pin(self.modify_and_restart(name, change))
    }
    fn pause<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(freeze::pause(&self.home, name))
    }
    fn resume<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(freeze::resume(&self.home, name))
    }
    fn detach<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(lifeline::detach(&self.home, name))
    }
    fn wait<'a>(&'a self, name: &'a str) -> Operation<'a, SandboxRecord> {
        Box::pin(records::wait(&self.home, name))
    }

    fn logs<'a>(&'a self, name: &'a str, options: LogOptions) -> Operation<'a, Vec<LogEntry>> {
        Box::pin(async move {
            self.settle_log(name).await?;
            logs::logs(&self.home.sandbox_dir(name).join("logs"), options).await
        })
    }
    fn log_stream<'a>(&'a self, name: &'a str, options: LogStreamOptions) -> Operation<'a, LogStream> {
        Box::pin(async move {
            let seen = self.settle_log(name).await?.identity;
            let dir = self.home.sandbox_dir(name);
            let logs_dir = dir.join("logs");
            let alive = move || {
                seen.as_ref().is_some_and(|identity| process::is_alive(&identity.runtime))
                    || reconcile::read_live(&dir).is_some()
            };
            logs::log_stream(logs_dir, options, alive).await
        })
    }
    fn metrics<'a>(&'a self, name: &'a str, spec: &'a SandboxSpec) -> Operation<'a, SandboxMetrics> {
        Box::pin(async move {
            let (identity, stored) = live_identity(&self.home, name, spec).await?;
            let address = self.home.agent_address(name).await?;
            let sandbox_dir = self.home.sandbox_dir(name);
            let measured = metrics::Measured { address, spec: stored, identity, sandbox_dir };
            match metrics::sample(&measured, &mut Upper::default(), None).await {
                Ok(sample) => Ok(sample),
                Err(error) => Err(self.explain(name, error).await),
            }
        })
    }
    fn metrics_stream(&self, name: String, spec: SandboxSpec, interval: Duration) -> MetricsStream {
        let home = self.home.clone();
        let stream = async move {
            let now = reconcile::current(&home, &name).await.ok().flatten();
            let identity = now.and_then(|now| now.identity);
            metrics::stream(home.agent_address(&name).await, spec, identity, home.sandbox_dir(&name), interval)
        };
        Box::pin(stream.flatten_stream())
    }
    fn isolation<'a>(&'a self, name: &'a str) -> Operation<'a, IsolationReport> {
        Box::pin(async move {
            let now = reconcile::current(&self.home, name).await?.ok_or_else(|| reconcile::not_found(name))?;
            // The report of the last run outlives it.
            match now.last_identity(&self.home).await {
                Some(identity) if identity.isolation.mechanisms.is_empty() => Err(strays::report_lost(name)),
                Some(identity) => Ok(identity.isolation),
                None => Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status: now.row.status }),
            }
        })
    }
    fn agent<'a>(&'a self, name: &'a str) -> Box<dyn Agent + 'a> {
        Box::new(StreamAgent::new(LocalDialer { backend: self, name, address: OnceCell::new() }))
    }
}

/// The run to measure and its limits as they are now, or why there is nothing to measure.
async fn live_identity(home: &Home, name: &str, spec: &SandboxSpec) -> MicrosandboxResult<(Identity, SandboxSpec)> {
    if spec.metrics.effective_interval_ms().is_none() {
        return Err(MicrosandboxError::MetricsDisabled(name.into()));
    }
    let now = reconcile::current(home, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    let row = now.row;
    let unavailable = |reason: String| MicrosandboxError::MetricsUnavailable { name: name.into(), reason };
    if !row.status.is_live() {
        return Err(unavailable(format!("no live metrics slot: the sandbox is {}", row.status)));
    }
    let identity = now.identity.ok_or_else(|| unavailable("no live metrics slot yet".into()))?;
    // Limits may have been changed since the caller's view of them.
    let stored = serde_json::from_str(&row.config_json).unwrap_or_else(|_| spec.clone());
    Ok((identity, stored))
}

impl ImageBackend for LocalBackend {
    fn load<'a>(
        &'a self,
        archive: &'a Path,
        tag: Option<String>,
        progress: Option<ProgressFn>,
    ) -> Operation<'a, Vec<ImageInfo>> {
        Box::pin(images::load(&self.home, archive, tag, progress))
    }
    fn pull(&self, request: PullRequest, progress: Option<PullProgressFn>) -> Operation<'_, ImageInfo> {
        Box::pin(async move { images::pull(&self.home, &request, progress).await })
    }
    fn save(&self, request: ImageSaveRequest) -> Operation<'_, ()> {
        Box::pin(images::save(&self.home, request))
    }
    fn list(&self) -> Operation<'_, Vec<ImageInfo>> {
        Box::pin(images::list(&self.home))
    }
    fn get<'a>(&'a self, reference: &'a str) -> Operation<'a, ImageInfo> {
        Box::pin(images::get(&self.home, reference))
    }
    fn inspect<'a>(&'a self, reference: &'a str) -> Operation<'a, ImageDetail> {
        Box::pin(images::inspect(&self.home, reference))
    }
    fn remove<'a>(&'a self, reference: &'a str, force: bool) -> Operation<'a, ()> {
        Box::pin(images::remove(&self.home, reference, force))
    }
    fn prune(&self, request: ImagePruneRequest) -> Operation<'_, ImagePruneReport> {
        Box::pin(images::prune(&self.home, request))
    }
    fn usage(&self) -> Operation<'_, StorageUsage> {
        Box::pin(storage::usage(&self.home))
    }
    fn doctor(&self, recheck: bool) -> Operation<'_, DoctorReport> {
        Box::pin(doctor::doctor(&self.home, recheck))
    }
}
