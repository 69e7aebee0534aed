//! A live sandbox: the full run-time surface.

use std::sync::Arc;
use std::time::Duration;

use super::{
    DEFAULT_KILL_TIMEOUT, DEFAULT_STOP_TIMEOUT, SandboxCloudState, SandboxFs, SandboxHandle, SandboxInner, SandboxList,
    SandboxLocalState,
};
use crate::backend::{
    Agent, BackendKind, CreateRequest, ExecRequest, ListQuery, LiveRecord, PullProgressFn, RemoveRequest,
    SharedBackend, StartRequest,
};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{
    BootStep, DEFAULT_SHELL, ExecHandle, ExecOptions, ExecOutput, Isolation, IsolationReport, JobInfo, LogEntry,
    LogOptions, LogStream, LogStreamOptions, MetricsStream, SandboxConfig, SandboxMetrics, SandboxSpec, SandboxStatus,
    SandboxStopResult, validate_sandbox_name,
};

/// A running sandbox, bound to the backend it came from.
#[derive(Clone)]
pub struct Sandbox {
    backend: SharedBackend,
    inner: SandboxInner,
    spec: SandboxSpec,
    boot: Arc<[BootStep]>,
    origin: Origin,
}

/// What this object did to come by its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Created,
    Started,
    Connected,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("name", &self.spec.name)
            .field("backend_kind", &self.backend.kind())
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Binds what a backend returned to the backend.
    pub fn new(backend: SharedBackend, live: LiveRecord) -> Self {
        Sandbox { backend, inner: live.inner, spec: live.spec, boot: live.boot.into(), origin: Origin::Connected }
    }

    /// What a creation made: [`Sandbox::take_back`] removes it.
    pub fn created(backend: SharedBackend, live: LiveRecord) -> Self {
        Sandbox::new(backend, live).by(Origin::Created)
    }
    /// What a start has started: [`Sandbox::take_back`] ends it.
    pub fn started(backend: SharedBackend, live: LiveRecord) -> Self {
        Sandbox::new(backend, live).by(Origin::Started)
    }
    fn by(self, origin: Origin) -> Self {
        Sandbox { origin, ..self }
    }

    /// Creates and boots. With `replace_existing`, a sandbox of the same name is stopped and removed first.
    pub async fn create(backend: &SharedBackend, config: SandboxConfig) -> MicrosandboxResult<Sandbox> {
        Sandbox::create_with_progress(backend, config, None).await
    }
    /// As [`Sandbox::create`]; reports the pull of the image.
    pub async fn create_with_progress(
        backend: &SharedBackend,
        config: SandboxConfig,
        progress: Option<PullProgressFn>,
    ) -> MicrosandboxResult<Sandbox> {
        validate_sandbox_name(&config.spec.name)?;
        backend.sandboxes().check_options(&config)?;
        let request = CreateRequest { config, start: true, owner: None, progress };
        Ok(Sandbox::created(backend.clone(), backend.sandboxes().create(request).await?))
    }
    /// Running: connect; stopped: start; absent: create.
    pub async fn connect_or_create(backend: &SharedBackend, config: SandboxConfig) -> MicrosandboxResult<Sandbox> {
        let mut turn = 1;
        loop {
            let done = match Sandbox::get(backend, &config.spec.name).await {
                Ok(handle) => handle.connect_or_start(config.spec.detached).await,
                Err(MicrosandboxError::SandboxNotFound(_)) => Sandbox::create(backend, config.clone()).await,
                Err(error) => Err(error),
            };
            match done {
                // Somebody else created it, or removed it, between the look and the act.
                Err(MicrosandboxError::SandboxAlreadyExists(_) | MicrosandboxError::SandboxNotFound(_))
                    if turn < super::CHANGED_TURNS =>
                {
                    turn += 1;
                    tokio::time::sleep(super::STATUS_POLL_INTERVAL).await;
                }
                done => return done,
            }
        }
    }
    pub async fn start(backend: &SharedBackend, name: &str, detached: bool) -> MicrosandboxResult<Sandbox> {
        let request = StartRequest { name, detached };
        Ok(Sandbox::started(backend.clone(), backend.sandboxes().start(request).await?))
    }
    pub async fn get(backend: &SharedBackend, name: &str) -> MicrosandboxResult<SandboxHandle> {
        Ok(SandboxHandle::new(backend.clone(), backend.sandboxes().get(name).await?))
    }
    pub async fn list(backend: &SharedBackend, query: ListQuery) -> MicrosandboxResult<SandboxList> {
        let page = backend.sandboxes().list(query).await?;
        let bind = |record| SandboxHandle::new(backend.clone(), record);
        Ok(SandboxList { sandboxes: page.records.into_iter().map(bind).collect(), next_cursor: page.next_cursor })
    }
    pub async fn remove(backend: &SharedBackend, name: &str) -> MicrosandboxResult<()> {
        backend.sandboxes().remove(RemoveRequest { name, expected_id: None }).await
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }
    pub fn id(&self) -> &str {
        &self.spec.id
    }
    pub fn spec(&self) -> &SandboxSpec {
        &self.spec
    }
    pub fn backend(&self) -> &SharedBackend {
        &self.backend
    }
    pub fn backend_kind(&self) -> BackendKind {
        self.backend.kind()
    }
    /// Where the time of its boot went; empty where this object did not boot it.
    pub fn boot_timings(&self) -> &[BootStep] {
        &self.boot
    }
    pub fn isolation(&self) -> Option<Isolation> {
        self.spec.isolation_actual
    }
    pub fn local(&self) -> Option<&SandboxLocalState> {
        match &self.inner {
            SandboxInner::Local(state) => Some(state),
            _ => None,
        }
    }
    pub fn cloud(&self) -> Option<&SandboxCloudState> {
        match &self.inner {
            SandboxInner::Cloud(state) => Some(state),
            _ => None,
        }
    }
    /// True only for a local attached sandbox from `create` or `start` in this process.
    pub fn owns_lifecycle(&self) -> bool {
        self.local().is_some_and(|state| state.owned)
    }

    /// The record, read now.
    pub async fn handle(&self) -> MicrosandboxResult<SandboxHandle> {
        Sandbox::get(&self.backend, self.name()).await
    }
    /// Live, one round trip.
    pub async fn status(&self) -> MicrosandboxResult<SandboxStatus> {
        Ok(self.handle().await?.status_snapshot())
    }

    pub async fn exec(&self, cmd: impl Into<String>, options: ExecOptions) -> MicrosandboxResult<ExecOutput> {
        self.agent().exec(self.request(cmd.into(), options)).await
    }
    pub async fn exec_stream(&self, cmd: impl Into<String>, options: ExecOptions) -> MicrosandboxResult<ExecHandle> {
        self.agent().exec_stream(self.request(cmd.into(), options)).await
    }
    /// Starts a program that outlives this client.
    pub async fn exec_detached(&self, cmd: impl Into<String>, options: ExecOptions) -> MicrosandboxResult<JobInfo> {
        self.agent().start_job(self.request(cmd.into(), options)).await
    }
    /// The shell of scripts.
    pub fn shell(&self) -> &str {
        self.spec.runtime.shell.as_deref().unwrap_or(DEFAULT_SHELL)
    }
    /// `<shell> -c script`.
    pub fn shell_command(&self, script: String) -> (String, Vec<String>) {
        (self.shell().to_owned(), vec!["-c".into(), script])
    }
    /// The resolved ENTRYPOINT + CMD.
    pub fn default_command(&self) -> MicrosandboxResult<(String, Vec<String>)> {
        let own = &self.spec.runtime;
        let image = &self.spec.image_defaults;
        let entrypoint = own.entrypoint.clone().or_else(|| image.entrypoint.clone()).unwrap_or_default();
        // As in the OCI image specification: an entrypoint given by the caller drops the image's arguments.
        let inherited = if own.entrypoint.is_some() { None } else { image.cmd.clone() };
        let mut words = entrypoint;
        words.extend(own.cmd.clone().or(inherited).unwrap_or_default());
        if words.is_empty() {
            return Err(MicrosandboxError::NoDefaultCommand { image: self.spec.image.describe() });
        }
        let cmd = words.remove(0);
        Ok((cmd, words))
    }

    pub async fn logs(&self, options: LogOptions) -> MicrosandboxResult<Vec<LogEntry>> {
        self.backend.sandboxes().logs(self.name(), options).await
    }
    pub async fn log_stream(&self, options: LogStreamOptions) -> MicrosandboxResult<LogStream> {
        self.backend.sandboxes().log_stream(self.name(), options).await
    }
    pub async fn metrics(&self) -> MicrosandboxResult<SandboxMetrics> {
        self.backend.sandboxes().metrics(self.name(), &self.spec).await
    }
    pub fn metrics_stream(&self, interval: Duration) -> MetricsStream {
        self.backend.sandboxes().metrics_stream(self.name().into(), self.spec.clone(), interval)
    }
    pub async fn ping(&self) -> MicrosandboxResult<Duration> {
        self.agent().ping().await
    }
    pub async fn touch(&self) -> MicrosandboxResult<u64> {
        self.agent().touch().await
    }
    pub async fn isolation_report(&self) -> MicrosandboxResult<IsolationReport> {
        self.backend.sandboxes().isolation(self.name()).await
    }

    /// Orderly stop; forced after `timeout` (10 s by default; zero kills without waiting).
    pub async fn stop(&self, timeout: Option<Duration>) -> MicrosandboxResult<()> {
        self.handle().await?.stop(timeout).await
    }
    /// Orderly stop, never forced.
    pub async fn stop_with_timeout(&self, timeout: Duration) -> MicrosandboxResult<()> {
        self.handle().await?.stop_with_timeout(timeout).await
    }
    pub async fn kill(&self, timeout: Option<Duration>) -> MicrosandboxResult<()> {
        self.handle().await?.kill(timeout).await
    }
    pub async fn request_stop(&self) -> MicrosandboxResult<()> {
        self.handle().await?.request_stop().await
    }
    pub async fn request_kill(&self) -> MicrosandboxResult<()> {
        self.handle().await?.request_kill().await
    }
    pub async fn request_drain(&self) -> MicrosandboxResult<()> {
        self.handle().await?.request_drain().await
    }
    pub async fn wait_until_stopped(&self) -> MicrosandboxResult<SandboxStopResult> {
        self.handle().await?.wait_until_stopped().await
    }
    /// Stop (or kill), then remove.
    pub async fn destroy(&self, force: bool, timeout: Option<Duration>) -> MicrosandboxResult<()> {
        if force {
            match self.destroy_in_one_call(timeout.unwrap_or(DEFAULT_KILL_TIMEOUT)).await {
                Err(MicrosandboxError::Unsupported { .. }) => {}
                done => return done,
            }
        }
        let handle = self.handle().await?;
        if !self.id().is_empty() && handle.id() != self.id() {
            return Err(MicrosandboxError::SandboxReplaced(self.name().into()));
        }
        self.destroy_found(&handle, force, timeout).await
    }
    async fn destroy_in_one_call(&self, timeout: Duration) -> MicrosandboxResult<()> {
        let expected_id = Some(self.id()).filter(|id| !id.is_empty());
        let destroying = self.backend.sandboxes().destroy(RemoveRequest { name: self.name(), expected_id });
        let elapsed = |_| Err(MicrosandboxError::KillTimeout { name: self.name().into(), secs: timeout.as_secs_f64() });
        tokio::time::timeout(timeout, destroying).await.unwrap_or_else(elapsed)
    }
    async fn destroy_found(
        &self,
        handle: &SandboxHandle,
        force: bool,
        timeout: Option<Duration>,
    ) -> MicrosandboxResult<()> {
        self.end(handle, force, timeout).await?;
        match handle.remove().await {
            // An ephemeral one may have removed itself.
            Err(MicrosandboxError::SandboxNotFound(_)) => Ok(()),
            other => other,
        }
    }
    async fn end(&self, handle: &SandboxHandle, force: bool, timeout: Option<Duration>) -> MicrosandboxResult<()> {
        match if force { handle.kill(timeout).await } else { handle.stop(timeout).await } {
            // Where there is no force, asking has to do.
            Err(MicrosandboxError::Unsupported { .. }) => {
                handle.stop_with_timeout(timeout.unwrap_or(DEFAULT_STOP_TIMEOUT).max(DEFAULT_STOP_TIMEOUT)).await
            }
            done => done,
        }
    }
    /// For a caller who is gone: removes what this object created, ends what it started, leaves alone what ran before.
    pub async fn take_back(&self) {
        if let Err(error) = self.try_take_back().await {
            tracing::warn!(sandbox = self.name(), %error, "a sandbox whose caller is gone could not be ended");
        }
    }
    async fn try_take_back(&self) -> MicrosandboxResult<()> {
        let handle = match self.handle().await {
            Err(MicrosandboxError::SandboxNotFound(_)) => return Ok(()),
            found => found?,
        };
        // By now the name may be that of another sandbox.
        match self.origin {
            Origin::Connected => Ok(()),
            _ if handle.id() != self.id() => Ok(()),
            Origin::Created => self.destroy_found(&handle, true, None).await,
            Origin::Started => self.end(&handle, true, None).await,
        }
    }
    /// It keeps running after this process ends.
    pub async fn detach(&self) -> MicrosandboxResult<()> {
        self.backend.sandboxes().detach(self.name()).await
    }

    /// Programs and files, one call at a time; connects to nothing yet.
    pub fn agent(&self) -> Box<dyn Agent + '_> {
        self.backend.sandboxes().agent(self.name())
    }

    fn request(&self, cmd: String, options: ExecOptions) -> ExecRequest<'_> {
        ExecRequest { spec: &self.spec, cmd, options }
    }

    /// Guest files; paths are absolute guest paths.
    pub fn fs(&self) -> SandboxFs<'_> {
        SandboxFs::with_backend(&self.backend, self.name())
    }
}
