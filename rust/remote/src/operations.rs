//! `CloudBackend` as a [`SandboxBackend`].

use std::time::Duration;

use futures::FutureExt as _;
use microsandbox_contract::IsolationReport;
use microsandbox_core::Sandbox;
use microsandbox_core::agent::{AgentClient, Dialer, StreamAgent, check_exec};
use microsandbox_core::api::SandboxRecord;
use microsandbox_core::backend::{
    Agent, ConnectRequest, CreateRequest, ExecRequest, Files, ListQuery, LiveRecord, Operation, RecordPage,
    RemoveRequest, SandboxBackend, SharedBackend, StartRequest,
};
use microsandbox_core::config::Wire;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::files::NoFiles;
use microsandbox_core::lifecycle::{Force, replace};
use microsandbox_core::model::{
    ExecHandle, ExecOutput, JobCall, JobInfo, LogEntry, LogOptions, LogStream, LogStreamOptions, MetricsStream,
    SandboxConfig, SandboxMetrics, SandboxSpec, validate_sandbox_name,
};
use microsandbox_core::undo;
use microsandbox_wire::flat::ExecResponse;
use microsandbox_wire::paths;
use microsandbox_wire::sandbox::{CloudPaginated, CloudSandbox};
use reqwest::Method;

use super::errors::{About, Route};
use super::http::Call;
use super::socket::Socket;
use super::{CloudBackend, dialect, response};

/// How long the service waits for a boot, in seconds, and how long the client waits for the service.
const READY_SECS: &str = "90";
const READY_TIMEOUT: Duration = Duration::from_secs(95);
const DEFAULT_LIMIT: u32 = 20;
/// Added to the timeout of a program.
const EXEC_SLACK: Duration = Duration::from_secs(30);
/// Timeout of the request for a program without one.
const EXEC_LONGEST: Duration = Duration::from_secs(24 * 3600);

/// `available_when`, in the words of the contract.
mod when {
    pub const KILL: &str = "when cloud forced-stop lands";
    pub const DRAIN: &str = "when cloud graceful-drain lands";
    pub const LOCAL: &str = "on the local backend";
    pub const ISOLATION: &str = "where the service is `msb serve`, and on the local backend";
}

impl CloudBackend {
    pub(super) async fn find(&self, name: &str) -> MicrosandboxResult<CloudSandbox> {
        validate_sandbox_name(name)?;
        let route = Route::sandbox("GET /v1/sandboxes/by-name/{name}", name);
        self.http.json(Call::get(paths::by_name(name), route)).await
    }

    /// Creates exactly once: a retry of a request without a response gets the result of the first.
    async fn post_create(&self, config: &SandboxConfig, start: bool) -> MicrosandboxResult<CloudSandbox> {
        let name = config.spec.name.as_str();
        let route = Route { label: "POST /v1/sandboxes", subject: name, about: About::CreateSandbox };
        let call = Call::new(Method::POST, paths::SANDBOXES.into(), route);
        let mut call = match self.wire {
            Wire::Spec => call
                .json(&dialect::spec::create(config)?)?
                .header(paths::IDEMPOTENCY_HEADER, microsandbox_core::random::hex::<16>()?)
                .idempotent(),
            Wire::Flat => call.json(&dialect::flat::create(config)?)?,
        };
        if start {
            call = match self.wire {
                Wire::Spec => {
                    call.query("start", "true").query("wait_for", "running").query("wait_timeout", READY_SECS)
                }
                Wire::Flat => call.query("start", "true"),
            };
            call.timeout = Some(READY_TIMEOUT);
        } else if self.wire == Wire::Flat {
            call = call.query("start", "false");
        }
        let sandbox: CloudSandbox = self.http.json(call).await?;
        if start && self.wire == Wire::Spec {
            response::check_running(&sandbox)?;
        }
        Ok(sandbox)
    }

    async fn created(&self, config: SandboxConfig, start: bool) -> MicrosandboxResult<LiveRecord> {
        let sandbox = self.post_create(&config, start).await?;
        self.sockets.forget(&sandbox.name);
        let inner = response::inner(&sandbox);
        Ok(LiveRecord { inner, spec: SandboxSpec { id: sandbox.id, ..config.spec }, boot: Vec::new() })
    }

    async fn started(&self, name: &str) -> MicrosandboxResult<LiveRecord> {
        let known = match self.wire {
            // The response to start may lack the configuration.
            Wire::Spec => Some(self.find(name).await?),
            Wire::Flat => None,
        };
        let mut sandbox = self.post_start(name).await?;
        self.sockets.forget(name);
        if let Some(known) = known
            && sandbox.configuration().is_none()
        {
            sandbox.spec = known.spec;
            sandbox.config = known.config;
        }
        Ok(response::live(&sandbox))
    }

    /// In steps, because the wire has no replace: if another client takes the name between the steps, the creation fails.
    async fn make_room(&self, config: &SandboxConfig) -> MicrosandboxResult<()> {
        // A configuration that the service would refuse is refused before anything is removed.
        dialect::spec::create(config)?;
        replace(self, &config.spec.name, config.replace_timeout, Force::Missing).await
    }

    async fn post_start(&self, name: &str) -> MicrosandboxResult<CloudSandbox> {
        let route = Route::sandbox("POST /v1/sandboxes/by-name/{name}/start", name);
        let mut call = Call::new(Method::POST, paths::start(name), route).json(&serde_json::json!({}))?;
        if self.wire == Wire::Spec {
            call = call.query("wait_for", "running").query("wait_timeout", READY_SECS);
        }
        call.timeout = Some(READY_TIMEOUT);
        let sandbox: CloudSandbox = self.http.json(call).await?;
        if self.wire == Wire::Spec {
            response::check_running(&sandbox)?;
        }
        Ok(sandbox)
    }

    pub(super) fn spec_only<'a, T: Send + 'a>(
        &'a self,
        feature: &'static str,
        when: &'static str,
        work: impl Future<Output = MicrosandboxResult<T>> + Send + 'a,
    ) -> Operation<'a, T> {
        match self.wire {
            Wire::Spec => Box::pin(work),
            Wire::Flat => unsupported(feature, when),
        }
    }
}

fn unsupported<'a, T: Send + 'a>(feature: &'static str, when: &'static str) -> Operation<'a, T> {
    Box::pin(std::future::ready(Err(MicrosandboxError::unsupported(feature, when))))
}

impl SandboxBackend for CloudBackend {
    fn check_options(&self, config: &SandboxConfig) -> MicrosandboxResult<()> {
        match self.wire {
            Wire::Spec => dialect::spec::create(config).map(drop),
            Wire::Flat => dialect::flat::create(config).map(drop),
        }
    }
    fn create(&self, request: CreateRequest) -> Operation<'_, LiveRecord> {
        Box::pin(async move {
            let CreateRequest { config, start, owner: _, progress: _ } = request;
            validate_sandbox_name(&config.spec.name)?;
            if config.replace_existing && self.wire == Wire::Spec {
                self.make_room(&config).await?;
            }
            let (backend, shared) = (self.clone(), SharedBackend::from(self.clone()));
            // The service completes a creation whose client has disconnected.
            let create = |_cut| async move { backend.created(config, start).await };
            undo::whole(create, move |live| {
                let made = Sandbox::created(shared.clone(), live);
                async move { made.take_back().await }.boxed()
            })
            .await
        })
    }
    fn start<'a>(&'a self, request: StartRequest<'a>) -> Operation<'a, LiveRecord> {
        Box::pin(async move {
            let name = request.name.to_owned();
            validate_sandbox_name(&name)?;
            let (backend, shared) = (self.clone(), SharedBackend::from(self.clone()));
            let start = |_cut| async move { backend.started(&name).await };
            undo::whole(start, move |live| {
                let started = Sandbox::started(shared.clone(), live);
                async move { started.take_back().await }.boxed()
            })
            .await
        })
    }
    fn connect<'a>(&'a self, request: ConnectRequest<'a>) -> Operation<'a, LiveRecord> {
        if self.wire == Wire::Flat {
            return unsupported("SandboxHandle::connect on cloud", "when cloud attach lands");
        }
        Box::pin(async move {
            let ConnectRequest { name, timeout } = request;
            let sandbox = tokio::time::timeout(timeout, self.find(name)).await.unwrap_or_else(|_elapsed| {
                Err(MicrosandboxError::Http(format!("sandbox {name}: no response within {} s", timeout.as_secs_f64())))
            })?;
            let status = response::status(&sandbox.status);
            if !status.is_live() {
                return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status });
            }
            Ok(response::live(&sandbox))
        })
    }
    fn get<'a>(&'a self, name: &'a str) -> Operation<'a, SandboxRecord> {
        Box::pin(async move { response::record(self.find(name).await?) })
    }
    fn list(&self, query: ListQuery) -> Operation<'_, RecordPage> {
        Box::pin(async move {
            if let Some(limit) = query.limit
                && !(1..=100).contains(&limit)
            {
                return Err(MicrosandboxError::InvalidConfig(format!("limit must be 1 to 100: got {limit}")));
            }
            let mut call = Call::get(paths::SANDBOXES.into(), Route::sandbox("GET /v1/sandboxes", ""));
            match (query.limit, self.wire) {
                (Some(limit), _) => call = call.query("limit", limit.to_string()),
                (None, Wire::Spec) => call = call.query("limit", DEFAULT_LIMIT.to_string()),
                (None, Wire::Flat) => {}
            }
            if let Some(cursor) = &query.cursor {
                call = call.query("cursor", cursor.clone());
            }
            if !query.labels.is_empty() {
                let labels = serde_json::to_string(&query.labels);
                call = call.query("labels", labels.map_err(|error| MicrosandboxError::json("labels", error))?);
            }
            let page: CloudPaginated<CloudSandbox> = self.http.json(call).await?;
            let records = page.data.into_iter().map(response::record).collect::<MicrosandboxResult<_>>()?;
            let next_cursor = page.next_cursor.filter(|cursor| !cursor.is_empty());
            if next_cursor.is_some() && next_cursor == query.cursor {
                // Followed, it would be a list without an end.
                return Err(MicrosandboxError::Runtime(
                    "list sandboxes: the service gives the cursor of this page as that of the next one".into(),
                ));
            }
            Ok(RecordPage { records, next_cursor })
        })
    }
    fn remove<'a>(&'a self, request: RemoveRequest<'a>) -> Operation<'a, ()> {
        Box::pin(async move {
            let RemoveRequest { name, expected_id } = request;
            validate_sandbox_name(name)?;
            let route = Route::sandbox("DELETE /v1/sandboxes/by-name/{name}", name);
            let mut call = Call::new(Method::DELETE, paths::by_name(name), route);
            if let Some(id) = expected_id {
                call = call.header(paths::EXPECTED_ID_HEADER, id);
            }
            self.http.done(call).await?;
            self.sockets.forget(name);
            Ok(())
        })
    }
    fn stop<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move {
            validate_sandbox_name(name)?;
            let route = Route::sandbox("POST /v1/sandboxes/by-name/{name}/stop", name);
            let call = Call::new(Method::POST, paths::stop(name), route).json(&serde_json::json!({}))?;
            self.http.done(call.idempotent()).await
        })
    }
    fn kill<'a>(&'a self, _name: &'a str) -> Operation<'a, ()> {
        unsupported("cloud sandbox kill", when::KILL)
    }
    fn drain<'a>(&'a self, _name: &'a str) -> Operation<'a, ()> {
        unsupported("cloud sandbox drain", when::DRAIN)
    }
    /// A sandbox of a service has no owner: nothing to do.
    fn detach<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move { validate_sandbox_name(name) })
    }
    fn logs<'a>(&'a self, name: &'a str, options: LogOptions) -> Operation<'a, Vec<LogEntry>> {
        Box::pin(self.read_logs(name, options))
    }
    fn log_stream<'a>(&'a self, name: &'a str, options: LogStreamOptions) -> Operation<'a, LogStream> {
        Box::pin(self.read_log_stream(name, options))
    }
    fn metrics<'a>(&'a self, _name: &'a str, _spec: &'a SandboxSpec) -> Operation<'a, SandboxMetrics> {
        unsupported("Sandbox::metrics", dialect::flat::METRICS)
    }
    fn metrics_stream(&self, _name: String, _spec: SandboxSpec, _interval: Duration) -> MetricsStream {
        let error = MicrosandboxError::unsupported("Sandbox::metrics_stream", dialect::flat::METRICS);
        Box::pin(futures::stream::iter([Err(error)]))
    }
    /// An extension of the server of this project.
    fn isolation<'a>(&'a self, name: &'a str) -> Operation<'a, IsolationReport> {
        self.spec_only("Sandbox::isolation_report", when::ISOLATION, async move {
            let id = self.find(name).await?.id;
            let route = Route::sandbox("GET /v1/sandboxes/{id}/isolation", name);
            match self.http.json(Call::get(paths::isolation(&id), route)).await {
                Err(MicrosandboxError::SandboxNotFound(_) | MicrosandboxError::CloudHttp { status: 404 | 405, .. }) => {
                    Err(MicrosandboxError::unsupported("Sandbox::isolation_report", when::ISOLATION))
                }
                other => other,
            }
        })
    }
    fn agent<'a>(&'a self, name: &'a str) -> Box<dyn Agent + 'a> {
        match self.wire {
            Wire::Spec => Box::new(RelayedAgent(StreamAgent::new(RelayDialer { backend: self, name }))),
            Wire::Flat => Box::new(FlatAgent { backend: self, name }),
        }
    }
}

/// The agent of one sandbox, through the relay of the service.
struct RelayDialer<'a> {
    backend: &'a CloudBackend,
    name: &'a str,
}

impl Dialer for RelayDialer<'_> {
    type Stream = Socket;

    /// A connection that a finished call left open, or a new one.
    async fn dial(&self) -> MicrosandboxResult<AgentClient<Socket>> {
        self.backend.connection(self.name).await
    }
    fn keep(&self, client: AgentClient<Socket>) {
        self.backend.sockets.put(self.name, &[], client);
    }
}

/// An agent behind a relay, without the calls that a relay does not carry.
struct RelayedAgent<'a>(StreamAgent<RelayDialer<'a>>);

impl Agent for RelayedAgent<'_> {
    fn exec<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, ExecOutput> {
        self.0.exec(request)
    }
    fn exec_stream<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, ExecHandle> {
        self.0.exec_stream(request)
    }
    fn start_job<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, JobInfo> {
        self.0.start_job(request)
    }
    fn job(&self, call: JobCall) -> Operation<'_, Vec<JobInfo>> {
        self.0.job(call)
    }
    fn attach_job(&self, job: String, replay: Option<u64>) -> Operation<'_, ExecHandle> {
        self.0.attach_job(job, replay)
    }
    fn files<'a>(self: Box<Self>) -> Box<dyn Files + 'a>
    where
        Self: 'a,
    {
        Box::new(self.0)
    }
    fn ping(&self) -> Operation<'_, Duration> {
        unsupported("Sandbox::ping", when::LOCAL)
    }
    fn touch(&self) -> Operation<'_, u64> {
        unsupported("Sandbox::touch", when::LOCAL)
    }
}

/// The older dialect: one program is one request, and there are no files.
struct FlatAgent<'a> {
    backend: &'a CloudBackend,
    name: &'a str,
}

impl Agent for FlatAgent<'_> {
    fn exec<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, ExecOutput> {
        Box::pin(async move {
            let ExecRequest { cmd, options, .. } = request;
            check_exec(&cmd, &options)?;
            validate_sandbox_name(self.name)?;
            let timeout = options.timeout;
            let route = Route::sandbox("POST /v1/sandboxes/by-name/{name}/exec", self.name);
            let body = dialect::flat::exec_request(cmd, &options)?;
            let mut call = Call::new(Method::POST, paths::exec(self.name), route).json(&body)?;
            call.timeout = Some(timeout.map_or(EXEC_LONGEST, |timeout| timeout.saturating_add(EXEC_SLACK)));
            let response: ExecResponse = self.backend.http.json(call).await?;
            dialect::flat::exec_output(response, timeout)
        })
    }
    fn exec_stream<'a>(&'a self, _request: ExecRequest<'a>) -> Operation<'a, ExecHandle> {
        unsupported("Sandbox::exec_stream", dialect::flat::EXEC)
    }
    fn start_job<'a>(&'a self, _request: ExecRequest<'a>) -> Operation<'a, JobInfo> {
        unsupported("Sandbox::exec_detached", dialect::flat::EXEC)
    }
    fn job(&self, _call: JobCall) -> Operation<'_, Vec<JobInfo>> {
        unsupported("Sandbox::jobs", dialect::flat::EXEC)
    }
    fn attach_job(&self, _job: String, _replay: Option<u64>) -> Operation<'_, ExecHandle> {
        unsupported("Job::attach", dialect::flat::EXEC)
    }
    fn files<'a>(self: Box<Self>) -> Box<dyn Files + 'a>
    where
        Self: 'a,
    {
        Box::new(NoFiles(dialect::flat::FS))
    }
    fn ping(&self) -> Operation<'_, Duration> {
        unsupported("Sandbox::ping", when::LOCAL)
    }
    fn touch(&self) -> Operation<'_, u64> {
        unsupported("Sandbox::touch", when::LOCAL)
    }
}
