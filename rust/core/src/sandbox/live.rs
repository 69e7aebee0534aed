//! A live sandbox: the full run-time surface.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{DEFAULT_STOP_TIMEOUT, SandboxCloudState, SandboxHandle, SandboxInner, SandboxLocalState};
use crate::backend::{BackendKind, ListQuery, SandboxList, SharedBackend};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{
    BootStep, DEFAULT_SHELL, ExecHandle, ExecOptions, ExecOutput, FsAttributes, FsEntry, FsMetadata, FsReadStream,
    FsWatchStream, FsWriteSink, Isolation, IsolationReport, JobInfo, LogEntry, LogOptions, LogStream, LogStreamOptions,
    MetricsStream, SandboxConfig, SandboxMetrics, SandboxSpec, SandboxStatus, SandboxStopResult, TransferProgress,
    validate_sandbox_name,
};

/// A running sandbox, bound to the backend it came from.
#[derive(Clone)]
pub struct Sandbox {
    backend: SharedBackend,
    inner: SandboxInner,
    spec: SandboxSpec,
    boot: Arc<[BootStep]>,
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
    /// For backends.
    pub fn new(backend: SharedBackend, inner: SandboxInner, spec: SandboxSpec) -> Self {
        Sandbox { backend, inner, spec, boot: Arc::default() }
    }
    /// For backends: where the time of its boot went.
    #[must_use]
    pub fn with_boot(mut self, steps: Vec<BootStep>) -> Self {
        self.boot = steps.into();
        self
    }

    /// Creates and boots. With `replace_existing`, a sandbox of the same name is stopped and removed first.
    pub async fn create(backend: &SharedBackend, config: SandboxConfig) -> MicrosandboxResult<Sandbox> {
        validate_sandbox_name(&config.spec.name)?;
        backend.sandboxes().check_options(&config)?;
        backend.sandboxes().create(backend, config, true).await
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
        backend.sandboxes().start(backend, name, detached).await
    }
    pub async fn get(backend: &SharedBackend, name: &str) -> MicrosandboxResult<SandboxHandle> {
        backend.sandboxes().get(backend, name).await
    }
    pub async fn list(backend: &SharedBackend, query: ListQuery) -> MicrosandboxResult<SandboxList> {
        backend.sandboxes().list(backend, query).await
    }
    pub async fn remove(backend: &SharedBackend, name: &str) -> MicrosandboxResult<()> {
        backend.sandboxes().remove(backend, name, None).await
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
        self.backend.sandboxes().exec(self.name(), &self.spec, cmd.into(), options).await
    }
    pub async fn exec_stream(&self, cmd: impl Into<String>, options: ExecOptions) -> MicrosandboxResult<ExecHandle> {
        self.backend.sandboxes().exec_stream(self.name(), &self.spec, cmd.into(), options).await
    }
    /// Starts a program that outlives this client.
    pub async fn exec_detached(&self, cmd: impl Into<String>, options: ExecOptions) -> MicrosandboxResult<JobInfo> {
        self.backend.sandboxes().job_start(self.name(), &self.spec, cmd.into(), options).await
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
        self.backend.sandboxes().ping(self.name()).await
    }
    pub async fn touch(&self) -> MicrosandboxResult<u64> {
        self.backend.sandboxes().touch(self.name()).await
    }
    pub async fn isolation_report(&self) -> MicrosandboxResult<IsolationReport> {
        self.backend.sandboxes().isolation_report(self.name()).await
    }

    /// Orderly end; forced after `timeout` (10 s by default, zero kills at once).
    pub async fn stop(&self, timeout: Option<Duration>) -> MicrosandboxResult<()> {
        self.handle().await?.stop(timeout).await
    }
    /// Orderly end, never forced.
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
        let handle = self.handle().await?;
        match if force { handle.kill(timeout).await } else { handle.stop(timeout).await } {
            // Where there is no force, asking has to do.
            Err(MicrosandboxError::Unsupported { .. }) => {
                handle.stop_with_timeout(timeout.unwrap_or(DEFAULT_STOP_TIMEOUT).max(DEFAULT_STOP_TIMEOUT)).await?;
            }
            done => done?,
        }
        match handle.remove().await {
            // An ephemeral one may have removed itself.
            Err(MicrosandboxError::SandboxNotFound(_)) => Ok(()),
            other => other,
        }
    }
    /// It keeps running after this process ends.
    pub async fn detach(&self) -> MicrosandboxResult<()> {
        self.backend.sandboxes().detach(&self.backend, self.name()).await
    }

    /// Guest files. Never fails: the calls do.
    pub fn fs(&self) -> SandboxFs<'_> {
        SandboxFs { backend: &self.backend, name: self.name() }
    }
}

/// Guest files of one sandbox; paths are absolute guest paths.
pub struct SandboxFs<'a> {
    backend: &'a SharedBackend,
    name: &'a str,
}

impl<'a> SandboxFs<'a> {
    /// For bindings, which keep backend and name.
    pub fn with_backend(backend: &'a SharedBackend, name: &'a str) -> Self {
        SandboxFs { backend, name }
    }
    pub async fn read(&self, path: &str) -> MicrosandboxResult<Bytes> {
        self.backend.sandboxes().fs_read(self.name, path).await
    }
    pub async fn read_stream(&self, path: &str) -> MicrosandboxResult<FsReadStream> {
        self.backend.sandboxes().fs_read_stream(self.name, path).await
    }
    pub async fn write(&self, path: &str, data: Bytes) -> MicrosandboxResult<()> {
        self.backend.sandboxes().fs_write(self.name, path, data).await
    }
    pub async fn write_stream(&self, path: &str) -> MicrosandboxResult<FsWriteSink> {
        self.backend.sandboxes().fs_write_stream(self.name, path).await
    }
    pub async fn list(&self, path: &str) -> MicrosandboxResult<Vec<FsEntry>> {
        self.backend.sandboxes().fs_list(self.name, path).await
    }
    /// `follow`: of what a link leads to, else of the link.
    pub async fn stat(&self, path: &str, follow: bool) -> MicrosandboxResult<FsMetadata> {
        self.backend.sandboxes().fs_stat(self.name, path, follow).await
    }
    pub async fn set(&self, path: &str, attributes: FsAttributes) -> MicrosandboxResult<()> {
        self.backend.sandboxes().fs_set(self.name, path, attributes).await
    }
    pub async fn symlink(&self, target: &str, link: &str) -> MicrosandboxResult<()> {
        self.backend.sandboxes().fs_symlink(self.name, target, link).await
    }
    pub async fn readlink(&self, path: &str) -> MicrosandboxResult<String> {
        self.backend.sandboxes().fs_readlink(self.name, path).await
    }
    pub async fn realpath(&self, path: &str) -> MicrosandboxResult<String> {
        self.backend.sandboxes().fs_realpath(self.name, path).await
    }
    pub async fn read_tar(&self, path: &str) -> MicrosandboxResult<FsReadStream> {
        self.backend.sandboxes().fs_read_tar(self.name, path).await
    }
    pub async fn write_tar(&self, path: &str) -> MicrosandboxResult<FsWriteSink> {
        self.backend.sandboxes().fs_write_tar(self.name, path).await
    }
    pub async fn watch(&self, path: &str, recursive: bool) -> MicrosandboxResult<FsWatchStream> {
        self.backend.sandboxes().fs_watch(self.name, path, recursive).await
    }
    pub async fn exists(&self, path: &str) -> MicrosandboxResult<bool> {
        self.backend.sandboxes().fs_exists(self.name, path).await
    }
    pub async fn mkdir(&self, path: &str) -> MicrosandboxResult<()> {
        self.backend.sandboxes().fs_mkdir(self.name, path).await
    }
    pub async fn remove(&self, path: &str) -> MicrosandboxResult<()> {
        self.backend.sandboxes().fs_remove(self.name, path, false).await
    }
    pub async fn remove_dir(&self, path: &str) -> MicrosandboxResult<()> {
        self.backend.sandboxes().fs_remove(self.name, path, true).await
    }
    pub async fn copy(&self, from: &str, to: &str) -> MicrosandboxResult<()> {
        self.backend.sandboxes().fs_copy(self.name, from, to).await
    }
    pub async fn rename(&self, from: &str, to: &str) -> MicrosandboxResult<()> {
        self.backend.sandboxes().fs_rename(self.name, from, to).await
    }
    pub async fn copy_from_host(
        &self,
        host: &Path,
        guest: &str,
        progress: Option<TransferProgress>,
    ) -> MicrosandboxResult<()> {
        self.backend.sandboxes().fs_copy_from_host(self.name, host, guest, progress).await
    }
    pub async fn copy_to_host(
        &self,
        guest: &str,
        host: &Path,
        progress: Option<TransferProgress>,
    ) -> MicrosandboxResult<()> {
        self.backend.sandboxes().fs_copy_to_host(self.name, guest, host, progress).await
    }
}
