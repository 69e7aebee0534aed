//! `CloudBackend` as a [`SandboxBackend`].

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use microsandbox_contract::IsolationReport;
use microsandbox_wire::flat::ExecResponse;
use microsandbox_wire::paths;
use microsandbox_wire::sandbox::{CloudPaginated, CloudSandbox};
use reqwest::Method;

use super::errors::{About, Route};
use super::http::Call;
use super::{CloudBackend, Wire, answer, flat, request};
use crate::agent::check_exec;
use crate::backend::{ListQuery, Operation, SandboxBackend, SandboxList, SharedBackend, files};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{
    ExecHandle, ExecOptions, ExecOutput, FsAttributes, FsEntry, FsMetadata, FsReadStream, FsWatchStream, FsWriteSink,
    JobCall, JobInfo, LogEntry, LogOptions, LogStream, LogStreamOptions, MetricsStream, SandboxConfig, SandboxMetrics,
    SandboxSpec, TransferProgress, validate_sandbox_name,
};
use crate::sandbox::{DEFAULT_STOP_TIMEOUT, Sandbox, SandboxHandle};

/// How long the service waits for a boot, in seconds, and how long this side waits for the service.
const READY_SECS: &str = "90";
const READY_TIMEOUT: Duration = Duration::from_secs(95);
const DEFAULT_LIMIT: u32 = 20;
/// Added to a program's own timeout.
const EXEC_SLACK: Duration = Duration::from_secs(30);
/// A program without a timeout.
const EXEC_LONGEST: Duration = Duration::from_secs(24 * 3600);

/// "Not here": in the words of the contract.
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

    /// Creates, once; a repeat of a request that got no answer finds the first one's result.
    async fn post_create(&self, config: &SandboxConfig, start: bool) -> MicrosandboxResult<CloudSandbox> {
        let name = config.spec.name.as_str();
        let route = Route { label: "POST /v1/sandboxes", subject: name, about: About::CreateSandbox };
        let call = Call::new(Method::POST, paths::SANDBOXES.into(), route);
        let mut call = match self.wire {
            Wire::Spec => call
                .json(&request::create(config)?)?
                .header(paths::IDEMPOTENCY_HEADER, crate::random::hex::<16>()?)
                .repeatable(),
            Wire::Flat => call.json(&flat::create(config)?)?,
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
            answer::check_running(&sandbox)?;
        }
        Ok(sandbox)
    }

    /// In steps, because the wire has no such word: another client may come between them, and then this one says so.
    async fn make_room(&self, backend: &SharedBackend, config: &SandboxConfig) -> MicrosandboxResult<()> {
        // What would be refused is refused before anything is removed.
        request::create(config)?;
        let old = match self.get(backend, &config.spec.name).await {
            Ok(old) => old,
            Err(MicrosandboxError::SandboxNotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let grace = config.replace_timeout.map_or(DEFAULT_STOP_TIMEOUT, Duration::from_secs_f64);
        if !old.status_snapshot().is_terminal() {
            // There is no kill here: a grace of nothing is still an orderly end.
            old.stop_with_timeout(grace.max(DEFAULT_STOP_TIMEOUT)).await?;
        }
        match old.remove().await {
            Err(MicrosandboxError::SandboxNotFound(_)) => Ok(()),
            other => other,
        }
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
            answer::check_running(&sandbox)?;
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
            Wire::Spec => request::create(config).map(drop),
            Wire::Flat => flat::create(config).map(drop),
        }
    }

    fn create<'a>(&'a self, backend: &'a SharedBackend, config: SandboxConfig, start: bool) -> Operation<'a, Sandbox> {
        Box::pin(async move {
            validate_sandbox_name(&config.spec.name)?;
            if config.replace_existing && self.wire == Wire::Spec {
                self.make_room(backend, &config).await?;
            }
            let sandbox = self.post_create(&config, start).await?;
            self.sockets.forget(&sandbox.name);
            let inner = answer::inner(&sandbox);
            Ok(Sandbox::new(backend.clone(), inner, SandboxSpec { id: sandbox.id, ..config.spec }))
        })
    }

    fn start<'a>(&'a self, backend: &'a SharedBackend, name: &'a str, _detached: bool) -> Operation<'a, Sandbox> {
        Box::pin(async move {
            validate_sandbox_name(name)?;
            let known = match self.wire {
                // The answer to start need not hold the configuration.
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
            let inner = answer::inner(&sandbox);
            Ok(Sandbox::new(backend.clone(), inner, answer::specification(&sandbox)))
        })
    }

    fn get<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, SandboxHandle> {
        Box::pin(async move { Ok(SandboxHandle::new(backend.clone(), answer::record(self.find(name).await?)?)) })
    }

    fn list<'a>(&'a self, backend: &'a SharedBackend, query: ListQuery) -> Operation<'a, SandboxList> {
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
            if let Some(cursor) = query.cursor {
                call = call.query("cursor", cursor);
            }
            if !query.labels.is_empty() {
                let labels = serde_json::to_string(&query.labels);
                call = call.query("labels", labels.map_err(|error| MicrosandboxError::json("labels", error))?);
            }
            let page: CloudPaginated<CloudSandbox> = self.http.json(call).await?;
            let sandboxes = page
                .data
                .into_iter()
                .map(|sandbox| Ok(SandboxHandle::new(backend.clone(), answer::record(sandbox)?)))
                .collect::<MicrosandboxResult<_>>()?;
            Ok(SandboxList { sandboxes, next_cursor: page.next_cursor.filter(|cursor| !cursor.is_empty()) })
        })
    }

    fn remove<'a>(
        &'a self,
        _backend: &'a SharedBackend,
        name: &'a str,
        expected_id: Option<&'a str>,
    ) -> Operation<'a, ()> {
        Box::pin(async move {
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

    fn connect<'a>(&'a self, backend: &'a SharedBackend, name: &'a str, timeout: Duration) -> Operation<'a, Sandbox> {
        if self.wire == Wire::Flat {
            return unsupported("SandboxHandle::connect on cloud", "when cloud attach lands");
        }
        Box::pin(async move {
            let sandbox = tokio::time::timeout(timeout, self.find(name)).await.unwrap_or_else(|_elapsed| {
                Err(MicrosandboxError::Http(format!("sandbox {name}: no answer within {} s", timeout.as_secs_f64())))
            })?;
            let status = answer::status(sandbox.status);
            if !status.is_live() {
                return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status });
            }
            Ok(Sandbox::new(backend.clone(), answer::inner(&sandbox), answer::specification(&sandbox)))
        })
    }

    fn stop<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move {
            validate_sandbox_name(name)?;
            let route = Route::sandbox("POST /v1/sandboxes/by-name/{name}/stop", name);
            let call = Call::new(Method::POST, paths::stop(name), route).json(&serde_json::json!({}))?;
            self.http.done(call.repeatable()).await
        })
    }

    fn kill<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, ()> {
        unsupported("cloud sandbox kill", when::KILL)
    }

    fn drain<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, ()> {
        unsupported("cloud sandbox drain", when::DRAIN)
    }

    /// Nobody owns a service's sandbox.
    fn detach<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move { validate_sandbox_name(name) })
    }

    fn exec<'a>(
        &'a self,
        name: &'a str,
        spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, ExecOutput> {
        Box::pin(async move {
            check_exec(&cmd, &options)?;
            match self.wire {
                Wire::Spec => {
                    let client = self.agent(name).await?;
                    let (output, client) = client.exec_and_keep(spec, cmd, options).await;
                    if let Some(client) = client {
                        self.sockets.put(name, &[], client);
                    }
                    output
                }
                Wire::Flat => {
                    validate_sandbox_name(name)?;
                    let timeout = options.timeout;
                    let route = Route::sandbox("POST /v1/sandboxes/by-name/{name}/exec", name);
                    let body = flat::exec_request(cmd, &options)?;
                    let mut call = Call::new(Method::POST, paths::exec(name), route).json(&body)?;
                    call.timeout = Some(timeout.map_or(EXEC_LONGEST, |timeout| timeout.saturating_add(EXEC_SLACK)));
                    let answer: ExecResponse = self.http.json(call).await?;
                    flat::exec_output(answer, timeout)
                }
            }
        })
    }

    fn exec_stream<'a>(
        &'a self,
        name: &'a str,
        spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, ExecHandle> {
        self.spec_only("Sandbox::exec_stream", flat::EXEC, async move {
            check_exec(&cmd, &options)?;
            self.agent(name).await?.exec_stream(spec, cmd, options)
        })
    }

    fn job_start<'a>(
        &'a self,
        name: &'a str,
        spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, JobInfo> {
        let start = async move { self.agent(name).await?.start_job(spec, cmd, options).await };
        self.spec_only("Sandbox::exec_detached", flat::EXEC, start)
    }
    fn job_call<'a>(&'a self, name: &'a str, call: JobCall) -> Operation<'a, Vec<JobInfo>> {
        self.spec_only("Sandbox::jobs", flat::EXEC, async move { self.agent(name).await?.job(call).await })
    }
    fn job_attach<'a>(&'a self, name: &'a str, job: String, replay: Option<u64>) -> Operation<'a, ExecHandle> {
        self.spec_only("Job::attach", flat::EXEC, async move { self.agent(name).await?.attach_job(job, replay) })
    }
    fn logs<'a>(&'a self, name: &'a str, options: LogOptions) -> Operation<'a, Vec<LogEntry>> {
        Box::pin(self.read_logs(name, options))
    }
    fn log_stream<'a>(&'a self, name: &'a str, options: LogStreamOptions) -> Operation<'a, LogStream> {
        Box::pin(self.read_log_stream(name, options))
    }
    fn metrics<'a>(&'a self, _name: &'a str, _spec: &'a SandboxSpec) -> Operation<'a, SandboxMetrics> {
        unsupported("Sandbox::metrics", flat::METRICS)
    }
    fn metrics_stream(&self, _name: String, _spec: SandboxSpec, _interval: Duration) -> MetricsStream {
        let error = MicrosandboxError::unsupported("Sandbox::metrics_stream", flat::METRICS);
        Box::pin(futures::stream::iter([Err(error)]))
    }
    fn ping<'a>(&'a self, _name: &'a str) -> Operation<'a, Duration> {
        unsupported("Sandbox::ping", when::LOCAL)
    }
    fn touch<'a>(&'a self, _name: &'a str) -> Operation<'a, u64> {
        unsupported("Sandbox::touch", when::LOCAL)
    }

    /// An extension of this project's server.
    fn isolation_report<'a>(&'a self, name: &'a str) -> Operation<'a, IsolationReport> {
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

    fn fs_read<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Bytes> {
        self.spec_only("SandboxFs::read", flat::FS, files::read(self.agent(name), path))
    }
    fn fs_read_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsReadStream> {
        self.spec_only("SandboxFs::read_stream", flat::FS, files::read_stream(self.agent(name), path))
    }
    fn fs_write<'a>(&'a self, name: &'a str, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        self.spec_only("SandboxFs::write", flat::FS, files::write(self.agent(name), path, data))
    }
    fn fs_write_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsWriteSink> {
        self.spec_only("SandboxFs::write_stream", flat::FS, files::write_stream(self.agent(name), path))
    }
    fn fs_list<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        self.spec_only("SandboxFs::list", flat::FS, files::list(self.agent(name), path))
    }
    fn fs_stat<'a>(&'a self, name: &'a str, path: &'a str, follow: bool) -> Operation<'a, FsMetadata> {
        self.spec_only("SandboxFs::stat", flat::FS, files::stat(self.agent(name), path, follow))
    }
    fn fs_set<'a>(&'a self, name: &'a str, path: &'a str, attributes: FsAttributes) -> Operation<'a, ()> {
        self.spec_only("SandboxFs::set", flat::FS, files::set(self.agent(name), path, attributes))
    }
    fn fs_symlink<'a>(&'a self, name: &'a str, target: &'a str, link: &'a str) -> Operation<'a, ()> {
        self.spec_only("SandboxFs::symlink", flat::FS, files::symlink(self.agent(name), target, link))
    }
    fn fs_readlink<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, String> {
        self.spec_only("SandboxFs::readlink", flat::FS, files::readlink(self.agent(name), path))
    }
    fn fs_realpath<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, String> {
        self.spec_only("SandboxFs::realpath", flat::FS, files::realpath(self.agent(name), path))
    }
    fn fs_read_tar<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsReadStream> {
        self.spec_only("SandboxFs::read_tar", flat::FS, files::read_tar(self.agent(name), path))
    }
    fn fs_write_tar<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsWriteSink> {
        self.spec_only("SandboxFs::write_tar", flat::FS, files::write_tar(self.agent(name), path))
    }
    fn fs_watch<'a>(&'a self, name: &'a str, path: &'a str, recursive: bool) -> Operation<'a, FsWatchStream> {
        self.spec_only("SandboxFs::watch", flat::FS, files::watch(self.agent(name), path, recursive))
    }
    fn fs_mkdir<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, ()> {
        self.spec_only("SandboxFs::mkdir", flat::FS, files::mkdir(self.agent(name), path))
    }
    fn fs_remove<'a>(&'a self, name: &'a str, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        self.spec_only("SandboxFs::remove", flat::FS, files::remove(self.agent(name), path, recursive))
    }
    fn fs_copy<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.spec_only("SandboxFs::copy", flat::FS, files::copy(self.agent(name), from, to))
    }
    fn fs_rename<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.spec_only("SandboxFs::rename", flat::FS, files::rename(self.agent(name), from, to))
    }
    fn fs_exists<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, bool> {
        self.spec_only("SandboxFs::exists", flat::FS, files::exists(self.agent(name), path))
    }
    fn fs_copy_from_host<'a>(
        &'a self,
        name: &'a str,
        host: &'a Path,
        guest: &'a str,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        let copy = files::copy_from_host(self.agent(name), host, guest, progress);
        self.spec_only("SandboxFs::copy_from_host", flat::FS, copy)
    }
    fn fs_copy_to_host<'a>(
        &'a self,
        name: &'a str,
        guest: &'a str,
        host: &'a Path,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        let copy = files::copy_to_host(self.agent(name), guest, host, progress);
        self.spec_only("SandboxFs::copy_to_host", flat::FS, copy)
    }
}
