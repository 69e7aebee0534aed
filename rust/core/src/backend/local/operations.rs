//! `LocalBackend` as a [`SandboxBackend`] and an [`ImageBackend`]: every operation, delegated.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use microsandbox_contract::IsolationReport;

use super::{LocalBackend, doctor, exec, freeze, lifecycle, logs, metrics, modify, process, reconcile};
use crate::agent::AgentClient;
use crate::backend::{
    ImageBackend, ListQuery, Operation, ProgressFn, SandboxBackend, SandboxList, SharedBackend, files,
};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::images;
use crate::model::{
    DoctorReport, ExecHandle, ExecOptions, ExecOutput, FsAttributes, FsEntry, FsMetadata, FsReadStream, FsWatchStream,
    FsWriteSink, ImageDetail, ImageInfo, ImagePruneReport, JobCall, JobInfo, LogEntry, LogOptions, LogStream,
    LogStreamOptions, MetricsStream, Modification, ModificationPlan, SandboxConfig, SandboxMetrics, SandboxSpec,
    TransferProgress,
};
use crate::sandbox::{Sandbox, SandboxHandle};

impl LocalBackend {
    /// An agent connection for one call. A refused one is explained by the sandbox's true state.
    async fn agent(&self, name: &str) -> MicrosandboxResult<AgentClient> {
        let address = match self.agent_address(name) {
            Ok(address) => address,
            Err(error) => return Err(self.explain(name, error).await),
        };
        match address.dial().await {
            Ok(client) => Ok(client),
            Err(error) => Err(self.explain(name, error).await),
        }
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
        match reconcile::current(self, name).await {
            Ok(None) => reconcile::not_found(name),
            Ok(Some((row, _))) if !row.status.is_live() => {
                MicrosandboxError::SandboxNotRunning { name: name.into(), status: row.status }
            }
            _ => error,
        }
    }

    async fn explained<T>(&self, name: &str, result: MicrosandboxResult<T>) -> MicrosandboxResult<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(self.explain(name, error).await),
        }
    }
}

/// Reads the address, runs the call on it, and explains a failure.
macro_rules! on_agent {
    ($self:ident, $name:ident, $address:ident => $call:expr) => {
        Box::pin(async move {
            let result = async {
                let $address = $self.agent_address($name)?;
                $call.await
            };
            $self.explained($name, result.await).await
        })
    };
}

impl SandboxBackend for LocalBackend {
    fn create<'a>(&'a self, backend: &'a SharedBackend, config: SandboxConfig, _start: bool) -> Operation<'a, Sandbox> {
        Box::pin(lifecycle::create(self, backend, config))
    }
    fn start<'a>(&'a self, backend: &'a SharedBackend, name: &'a str, detached: bool) -> Operation<'a, Sandbox> {
        Box::pin(lifecycle::start(self, backend, name, detached))
    }
    fn get<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, SandboxHandle> {
        Box::pin(lifecycle::get(self, backend, name))
    }
    fn list<'a>(&'a self, backend: &'a SharedBackend, query: ListQuery) -> Operation<'a, SandboxList> {
        Box::pin(lifecycle::list(self, backend, query))
    }
    fn remove<'a>(
        &'a self,
        _backend: &'a SharedBackend,
        name: &'a str,
        expected_id: Option<&'a str>,
    ) -> Operation<'a, ()> {
        Box::pin(lifecycle::remove(self, name, expected_id))
    }
    fn connect<'a>(&'a self, backend: &'a SharedBackend, name: &'a str, timeout: Duration) -> Operation<'a, Sandbox> {
        Box::pin(lifecycle::connect(self, backend, name, timeout))
    }
    fn stop<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(lifecycle::stop(self, name))
    }
    fn kill<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(lifecycle::kill(self, name))
    }
    fn drain<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(lifecycle::drain(self, name))
    }
    fn modify<'a>(
        &'a self,
        backend: &'a SharedBackend,
        name: &'a str,
        asked: Modification,
    ) -> Operation<'a, ModificationPlan> {
        Box::pin(modify::modify(self, backend, name, asked))
    }
    fn pause<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(freeze::pause(self, name))
    }
    fn resume<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(freeze::resume(self, name))
    }
    fn detach<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(lifecycle::detach(self, name))
    }
    fn wait_terminal<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, SandboxHandle> {
        Box::pin(lifecycle::wait_terminal(self, backend, name))
    }

    fn exec<'a>(
        &'a self,
        name: &'a str,
        spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, ExecOutput> {
        on_agent!(self, name, address => async {
            let watch = self.oom.watch(name, &address.token, &self.sandbox_dir(name));
            let mut output = exec::exec(&self.connections, &address, spec, cmd, options).await?;
            if let Some(watch) = watch {
                watch.judge(&mut output.exit);
            }
            Ok(output)
        })
    }
    fn exec_stream<'a>(
        &'a self,
        name: &'a str,
        spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, ExecHandle> {
        on_agent!(self, name, address => async {
            let watch = self.oom.watch(name, &address.token, &self.sandbox_dir(name));
            let handle = exec::exec_stream(&address, spec, cmd, options).await?;
            Ok(match watch {
                Some(watch) => handle.with_verdict(move |exit| watch.judge(exit)),
                None => handle,
            })
        })
    }

    fn job_start<'a>(
        &'a self,
        name: &'a str,
        spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, JobInfo> {
        on_agent!(self, name, address => async { address.dial().await?.start_job(spec, cmd, options).await })
    }
    fn job_call<'a>(&'a self, name: &'a str, call: JobCall) -> Operation<'a, Vec<JobInfo>> {
        on_agent!(self, name, address => async { address.dial().await?.job(call).await })
    }
    fn job_attach<'a>(&'a self, name: &'a str, job: String, replay: Option<u64>) -> Operation<'a, ExecHandle> {
        on_agent!(self, name, address => async { address.dial().await?.attach_job(job, replay) })
    }

    fn logs<'a>(&'a self, name: &'a str, options: LogOptions) -> Operation<'a, Vec<LogEntry>> {
        Box::pin(async move {
            reconcile::current(self, name).await?.ok_or_else(|| reconcile::not_found(name))?;
            logs::logs(&self.sandbox_dir(name).join("logs"), options).await
        })
    }
    fn log_stream<'a>(&'a self, name: &'a str, options: LogStreamOptions) -> Operation<'a, LogStream> {
        Box::pin(async move {
            reconcile::current(self, name).await?.ok_or_else(|| reconcile::not_found(name))?;
            let dir = self.sandbox_dir(name);
            let logs_dir = dir.join("logs");
            let alive = move || reconcile::identity(&dir).is_some_and(|identity| process::is_alive(&identity.runtime));
            logs::log_stream(logs_dir, options, alive).await
        })
    }
    fn metrics<'a>(&'a self, name: &'a str, spec: &'a SandboxSpec) -> Operation<'a, SandboxMetrics> {
        Box::pin(async move {
            let (identity, stored) = live_identity(self, name, spec).await?;
            let address = self.agent_address(name)?;
            self.explained(name, metrics::sample(&address, &stored, &identity, None).await).await
        })
    }
    fn metrics_stream(&self, name: String, spec: SandboxSpec, interval: Duration) -> MetricsStream {
        let dir = self.sandbox_dir(&name);
        let identity = reconcile::identity(&dir).filter(|identity| process::is_alive(&identity.runtime));
        metrics::stream(self.agent_address(&name), spec, identity, interval)
    }
    fn ping<'a>(&'a self, name: &'a str) -> Operation<'a, Duration> {
        Box::pin(async move {
            let mut client = self.agent(name).await?;
            self.explained(name, client.ping().await).await
        })
    }
    fn touch<'a>(&'a self, name: &'a str) -> Operation<'a, u64> {
        Box::pin(async move {
            let mut client = self.agent(name).await?;
            self.explained(name, client.touch().await).await
        })
    }
    fn isolation_report<'a>(&'a self, name: &'a str) -> Operation<'a, IsolationReport> {
        Box::pin(async move {
            let (row, _) = reconcile::current(self, name).await?.ok_or_else(|| reconcile::not_found(name))?;
            let identity = reconcile::identity(&self.sandbox_dir(name));
            identity
                .map(|identity| identity.isolation)
                .ok_or(MicrosandboxError::SandboxNotRunning { name: name.into(), status: row.status })
        })
    }

    fn fs_read<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Bytes> {
        on_agent!(self, name, address => files::read(address.dial(), path))
    }
    fn fs_read_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsReadStream> {
        on_agent!(self, name, address => files::read_stream(address.dial(), path))
    }
    fn fs_write<'a>(&'a self, name: &'a str, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        on_agent!(self, name, address => files::write(address.dial(), path, data))
    }
    fn fs_write_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsWriteSink> {
        on_agent!(self, name, address => files::write_stream(address.dial(), path))
    }
    fn fs_list<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        on_agent!(self, name, address => files::list(address.dial(), path))
    }
    fn fs_stat<'a>(&'a self, name: &'a str, path: &'a str, follow: bool) -> Operation<'a, FsMetadata> {
        on_agent!(self, name, address => files::stat(address.dial(), path, follow))
    }
    fn fs_set<'a>(&'a self, name: &'a str, path: &'a str, attributes: FsAttributes) -> Operation<'a, ()> {
        on_agent!(self, name, address => files::set(address.dial(), path, attributes))
    }
    fn fs_symlink<'a>(&'a self, name: &'a str, target: &'a str, link: &'a str) -> Operation<'a, ()> {
        on_agent!(self, name, address => files::symlink(address.dial(), target, link))
    }
    fn fs_readlink<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, String> {
        on_agent!(self, name, address => files::readlink(address.dial(), path))
    }
    fn fs_realpath<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, String> {
        on_agent!(self, name, address => files::realpath(address.dial(), path))
    }
    fn fs_read_tar<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsReadStream> {
        on_agent!(self, name, address => files::read_tar(address.dial(), path))
    }
    fn fs_write_tar<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsWriteSink> {
        on_agent!(self, name, address => files::write_tar(address.dial(), path))
    }
    fn fs_watch<'a>(&'a self, name: &'a str, path: &'a str, recursive: bool) -> Operation<'a, FsWatchStream> {
        on_agent!(self, name, address => files::watch(address.dial(), path, recursive))
    }
    fn fs_mkdir<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, ()> {
        on_agent!(self, name, address => files::mkdir(address.dial(), path))
    }
    fn fs_remove<'a>(&'a self, name: &'a str, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        on_agent!(self, name, address => files::remove(address.dial(), path, recursive))
    }
    fn fs_copy<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        on_agent!(self, name, address => files::copy(address.dial(), from, to))
    }
    fn fs_rename<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        on_agent!(self, name, address => files::rename(address.dial(), from, to))
    }
    fn fs_exists<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, bool> {
        on_agent!(self, name, address => files::exists(address.dial(), path))
    }
    fn fs_copy_from_host<'a>(
        &'a self,
        name: &'a str,
        host: &'a Path,
        guest: &'a str,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        on_agent!(self, name, address => files::copy_from_host(address.dial(), host, guest, progress))
    }
    fn fs_copy_to_host<'a>(
        &'a self,
        name: &'a str,
        guest: &'a str,
        host: &'a Path,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        on_agent!(self, name, address => files::copy_to_host(address.dial(), guest, host, progress))
    }
}

/// The run to measure and its limits as they are now, or why there is nothing to measure.
async fn live_identity(
    backend: &LocalBackend,
    name: &str,
    spec: &SandboxSpec,
) -> MicrosandboxResult<(microsandbox_contract::Identity, SandboxSpec)> {
    if spec.metrics.effective_interval_ms().is_none() {
        return Err(MicrosandboxError::MetricsDisabled(name.into()));
    }
    let (row, _) = reconcile::current(backend, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    let unavailable = |reason: String| MicrosandboxError::MetricsUnavailable { name: name.into(), reason };
    if !row.status.is_live() {
        return Err(unavailable(format!("no live metrics slot: the sandbox is {}", row.status)));
    }
    let identity = reconcile::identity(&backend.sandbox_dir(name));
    let identity = identity.ok_or_else(|| unavailable("no live metrics slot yet".into()))?;
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
        Box::pin(images::load(self, archive, tag, progress))
    }
    fn list<'a>(&'a self) -> Operation<'a, Vec<ImageInfo>> {
        Box::pin(images::list(self))
    }
    fn get<'a>(&'a self, reference: &'a str) -> Operation<'a, ImageInfo> {
        Box::pin(images::get(self, reference))
    }
    fn inspect<'a>(&'a self, reference: &'a str) -> Operation<'a, ImageDetail> {
        Box::pin(images::inspect(self, reference))
    }
    fn remove<'a>(&'a self, reference: &'a str, force: bool) -> Operation<'a, ()> {
        Box::pin(images::remove(self, reference, force))
    }
    fn prune<'a>(&'a self) -> Operation<'a, ImagePruneReport> {
        Box::pin(images::prune(self))
    }
    fn doctor<'a>(&'a self, recheck: bool) -> Operation<'a, DoctorReport> {
        Box::pin(doctor::doctor(self, recheck))
    }
}
