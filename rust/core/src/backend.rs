//! The routing layer: one trait, many homes for a sandbox.
//!
//! Every handle holds an `Arc<dyn Backend>` and sends every operation through it; nothing below ever looks the ambient
//! default up again. Lifecycle operations take that very reference as their first argument, because what they return
//! must hold it. Sandboxes are addressed by name.
//!
//! A backend of your own needs only [`Backend`] and the operations that it has: every other one answers
//! [`MicrosandboxError::Unsupported`] with the operation's name.

pub mod ambient;
pub mod cloud;
pub mod connections;
pub mod files;
pub mod local;
pub mod memory;
mod writing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{
    DoctorReport, ExecHandle, ExecOptions, ExecOutput, FsAttributes, FsEntry, FsMetadata, FsReadStream, FsWatchStream,
    FsWriteSink, ImageDetail, ImageInfo, ImageProgress, ImagePruneReport, IsolationReport, JobCall, JobInfo, LogEntry,
    LogOptions, LogStream, LogStreamOptions, MetricsStream, Modification, ModificationPlan, SandboxConfig,
    SandboxMetrics, SandboxSpec, TransferProgress, VolumeConfig, VolumeInfo,
};
use crate::sandbox::{Sandbox, SandboxHandle};

pub use ambient::{
    BackendInfo, default_backend, default_backend_info, inherit_scope, load_sdk_config, resolve_default_backend,
    set_default_backend, swap_default_backend, with_backend,
};
pub use cloud::{CloudBackend, CloudBackendBuilder, Wire};
pub use local::{LocalBackend, LocalBackendBuilder};
pub use memory::MemoryBackend;

/// A boxed, sendable future of a result.
pub type Operation<'a, T> = BoxFuture<'a, MicrosandboxResult<T>>;

/// A shared backend, as every handle holds one.
pub type SharedBackend = Arc<dyn Backend>;

/// For introspection only: operations never branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendKind {
    Local,
    Cloud,
}

impl BackendKind {
    pub fn as_str(self) -> &'static str {
        match self {
            BackendKind::Local => "local",
            BackendKind::Cloud => "cloud",
        }
    }
}

impl std::fmt::Display for BackendKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where sandboxes live.
pub trait Backend: Send + Sync + 'static {
    fn kind(&self) -> BackendKind;
    fn sandboxes(&self) -> &dyn SandboxBackend;
    fn volumes(&self) -> &dyn VolumeBackend;
    /// The image store; local-only today.
    fn images(&self) -> &dyn ImageBackend {
        &NoImages
    }
    /// The only sanctioned downcast, for what needs paths or the database.
    fn as_local(&self) -> Option<&LocalBackend> {
        None
    }
    /// For descriptions of a backend: address and profile.
    fn as_cloud(&self) -> Option<&CloudBackend> {
        None
    }
}

/// Which rows `list` gives. All labels must match; the filter precedes paging.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    pub cursor: Option<String>,
    /// 1 to 100; 20 when absent.
    pub limit: Option<u32>,
    pub labels: BTreeMap<String, String>,
}

/// One page, newest first.
#[derive(Debug, Clone)]
pub struct SandboxList {
    pub sandboxes: Vec<SandboxHandle>,
    pub next_cursor: Option<String>,
}

/// When an operation that this build lacks becomes available; one table, so that texts agree everywhere.
pub mod available_when {
    pub const VOLUMES: &str = "when volumes land on this backend";
    pub const FS: &str = "when guest fs lands on this backend";
    pub const LIFECYCLE: &str = "when the full live surface lands on this backend";
    pub const METRICS: &str = "when metrics land on this backend";
    pub const NETWORK: &str = "when sandbox networking lands; today a sandbox has loopback only";
    pub const SECRETS: &str = "when secrets land";
    pub const SNAPSHOTS: &str = "when snapshots land";
    pub const REGISTRY: &str = "when registry pulls land; load an archive with Image.load instead";
    pub const DISK_IMAGES: &str = "when disk images land; unpack it and name the directory";
    pub const ROOT_DISK: &str = "when root disk options land; today the writable layer is a directory below the home";
    pub const VSOCK: &str = "when vsock routes land";
    pub const PLACEMENT: &str = "when CPU placement lands";
    pub const HUGE_PAGES: &str = "when policies for huge pages land";
    pub const PATCHES: &str = "on the local backend; write the files after create";
    pub const INIT: &str = "on the local backend";
    pub const DISK_VOLUMES: &str = "when disk images land; use a directory volume";
    pub const QUOTAS: &str = "when quotas of directories can be kept; leave it out, or use a tmpfs with a size";
    pub const MOUNT_POLICIES: &str = "when policies for owners and modes land; leave it out";
    pub const JOBS: &str = "on a backend with an agent";
    pub const LOCAL: &str = "on the local backend";
    pub const CLOUD_ONLY: &str = "on the cloud backend";
    pub const IMAGES: &str = "on the local backend";
}

fn unsupported<'a, T: Send + 'a>(feature: &'static str, when: &'static str) -> Operation<'a, T> {
    Box::pin(async move { Err(MicrosandboxError::unsupported(feature, when)) })
}

/// Sandbox lifecycle, programs, files, logs and metrics.
#[allow(unused_variables, reason = "default bodies answer Unsupported")]
pub trait SandboxBackend: Send + Sync {
    /// Refuses the first option that this backend cannot honour, before anything else happens.
    fn check_options(&self, config: &SandboxConfig) -> MicrosandboxResult<()> {
        match config.unsupported.first() {
            Some(option) => Err(MicrosandboxError::unsupported(&option.feature, &option.available_when)),
            None => Ok(()),
        }
    }
    /// Creates and boots. Local always boots; `start` is honoured where a record can exist unbooted. Ownership follows
    /// `config.spec.detached`.
    fn create<'a>(&'a self, backend: &'a SharedBackend, config: SandboxConfig, start: bool) -> Operation<'a, Sandbox>;
    /// Boots a stopped or crashed sandbox from its stored configuration and pinned root file system.
    fn start<'a>(&'a self, backend: &'a SharedBackend, name: &'a str, detached: bool) -> Operation<'a, Sandbox>;
    fn get<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, SandboxHandle>;
    fn list<'a>(&'a self, backend: &'a SharedBackend, query: ListQuery) -> Operation<'a, SandboxList>;
    /// Deletes directory, then row; refuses a live sandbox. `expected_id`: refuse if the name means another one by now.
    fn remove<'a>(
        &'a self,
        backend: &'a SharedBackend,
        name: &'a str,
        expected_id: Option<&'a str>,
    ) -> Operation<'a, ()>;
    /// A live [`Sandbox`] for a running one, without owning it.
    fn connect<'a>(&'a self, backend: &'a SharedBackend, name: &'a str, timeout: Duration) -> Operation<'a, Sandbox> {
        unsupported("SandboxHandle::connect", available_when::LIFECYCLE)
    }
    /// Asks for an orderly end; does not wait.
    fn stop<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()>;
    /// Ends it by force; does not wait.
    fn kill<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        unsupported("Sandbox::kill", available_when::LIFECYCLE)
    }
    /// Lets running programs end and refuses new ones; does not wait.
    fn drain<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        unsupported("Sandbox::drain", available_when::LIFECYCLE)
    }
    /// Changes a sandbox that exists: all of it or nothing, at once or at its next start.
    fn modify<'a>(
        &'a self,
        backend: &'a SharedBackend,
        name: &'a str,
        asked: Modification,
    ) -> Operation<'a, ModificationPlan> {
        unsupported("Sandbox::modify", available_when::LOCAL)
    }
    /// Stands still until [`SandboxBackend::resume`]; fine on a paused one. Calls under way wait.
    fn pause<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        unsupported("Sandbox::pause", available_when::LOCAL)
    }
    /// Goes on; fine on a running one.
    fn resume<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        unsupported("Sandbox::resume", available_when::LOCAL)
    }
    /// Gives up ownership of an attached sandbox: it outlives this process.
    fn detach<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        unsupported("Sandbox::detach", available_when::LIFECYCLE)
    }
    /// Returns the record once it is terminal. The default asks every 100 ms; a backend that can wait overrides it.
    fn wait_terminal<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, SandboxHandle> {
        Box::pin(async move {
            loop {
                let handle = self.get(backend, name).await?;
                if handle.status_snapshot().is_terminal() {
                    return Ok(handle);
                }
                tokio::time::sleep(crate::sandbox::STATUS_POLL_INTERVAL).await;
            }
        })
    }

    /// Runs to the end and collects both streams.
    fn exec<'a>(
        &'a self,
        name: &'a str,
        spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, ExecOutput>;
    fn exec_stream<'a>(
        &'a self,
        name: &'a str,
        spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, ExecHandle> {
        unsupported("Sandbox::exec_stream", available_when::LIFECYCLE)
    }

    /// Starts a program that outlives this client.
    fn job_start<'a>(
        &'a self,
        name: &'a str,
        spec: &'a SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> Operation<'a, JobInfo> {
        unsupported("Sandbox::exec_detached", available_when::JOBS)
    }
    fn job_call<'a>(&'a self, name: &'a str, call: JobCall) -> Operation<'a, Vec<JobInfo>> {
        unsupported("Sandbox::jobs", available_when::JOBS)
    }
    /// Its kept output, `replay` bytes at most, then what follows; dropping the handle leaves it running.
    fn job_attach<'a>(&'a self, name: &'a str, job: String, replay: Option<u64>) -> Operation<'a, ExecHandle> {
        unsupported("Job::attach", available_when::JOBS)
    }

    /// Captured output, running or not.
    fn logs<'a>(&'a self, name: &'a str, options: LogOptions) -> Operation<'a, Vec<LogEntry>> {
        unsupported("Sandbox::logs", available_when::LIFECYCLE)
    }
    fn log_stream<'a>(&'a self, name: &'a str, options: LogStreamOptions) -> Operation<'a, LogStream> {
        unsupported("Sandbox::log_stream", available_when::LIFECYCLE)
    }
    fn metrics<'a>(&'a self, name: &'a str, spec: &'a SandboxSpec) -> Operation<'a, SandboxMetrics> {
        unsupported("Sandbox::metrics", available_when::METRICS)
    }
    /// The first item comes at once.
    fn metrics_stream(&self, name: String, spec: SandboxSpec, interval: Duration) -> MetricsStream {
        let error = MicrosandboxError::unsupported("Sandbox::metrics_stream", available_when::METRICS);
        Box::pin(futures::stream::iter([Err(error)]))
    }
    /// Round trip to the agent; not activity.
    fn ping<'a>(&'a self, name: &'a str) -> Operation<'a, Duration> {
        unsupported("Sandbox::ping", available_when::LIFECYCLE)
    }
    /// Resets the idle timer; the new activity number.
    fn touch<'a>(&'a self, name: &'a str) -> Operation<'a, u64> {
        unsupported("Sandbox::touch", available_when::LIFECYCLE)
    }
    /// What separates this sandbox from its host.
    fn isolation_report<'a>(&'a self, name: &'a str) -> Operation<'a, IsolationReport> {
        unsupported("Sandbox::isolation_report", available_when::LIFECYCLE)
    }

    fn fs_read<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Bytes> {
        unsupported("SandboxFs::read", available_when::FS)
    }
    fn fs_read_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsReadStream> {
        unsupported("SandboxFs::read_stream", available_when::FS)
    }
    fn fs_write<'a>(&'a self, name: &'a str, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        unsupported("SandboxFs::write", available_when::FS)
    }
    fn fs_write_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsWriteSink> {
        unsupported("SandboxFs::write_stream", available_when::FS)
    }
    fn fs_list<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        unsupported("SandboxFs::list", available_when::FS)
    }
    /// `follow`: of what a link leads to, else of the link.
    fn fs_stat<'a>(&'a self, name: &'a str, path: &'a str, follow: bool) -> Operation<'a, FsMetadata> {
        unsupported("SandboxFs::stat", available_when::FS)
    }
    fn fs_set<'a>(&'a self, name: &'a str, path: &'a str, attributes: FsAttributes) -> Operation<'a, ()> {
        unsupported("SandboxFs::set", available_when::FS)
    }
    /// Makes a symbolic link at `link`; `target` is kept as it is.
    fn fs_symlink<'a>(&'a self, name: &'a str, target: &'a str, link: &'a str) -> Operation<'a, ()> {
        unsupported("SandboxFs::symlink", available_when::FS)
    }
    fn fs_readlink<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, String> {
        unsupported("SandboxFs::readlink", available_when::FS)
    }
    /// The path without links, `.` and `..`.
    fn fs_realpath<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, String> {
        unsupported("SandboxFs::realpath", available_when::FS)
    }
    /// What is in a directory as a tar archive.
    fn fs_read_tar<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsReadStream> {
        unsupported("SandboxFs::read_tar", available_when::FS)
    }
    /// Unpacks a tar archive below a directory, which is made if it is missing.
    fn fs_write_tar<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsWriteSink> {
        unsupported("SandboxFs::write_tar", available_when::FS)
    }
    /// Returns when the watch stands: what happens after that is told.
    fn fs_watch<'a>(&'a self, name: &'a str, path: &'a str, recursive: bool) -> Operation<'a, FsWatchStream> {
        unsupported("SandboxFs::watch", available_when::FS)
    }
    /// With parents; an existing directory is fine.
    fn fs_mkdir<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, ()> {
        unsupported("SandboxFs::mkdir", available_when::FS)
    }
    fn fs_remove<'a>(&'a self, name: &'a str, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        unsupported("SandboxFs::remove", available_when::FS)
    }
    /// Inside the guest; an existing target file is replaced.
    fn fs_copy<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        unsupported("SandboxFs::copy", available_when::FS)
    }
    /// As `rename(2)`: an existing target file is replaced.
    fn fs_rename<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        unsupported("SandboxFs::rename", available_when::FS)
    }
    fn fs_exists<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, bool> {
        unsupported("SandboxFs::exists", available_when::FS)
    }
    fn fs_copy_from_host<'a>(
        &'a self,
        name: &'a str,
        host: &'a Path,
        guest: &'a str,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        unsupported("SandboxFs::copy_from_host", available_when::FS)
    }
    fn fs_copy_to_host<'a>(
        &'a self,
        name: &'a str,
        guest: &'a str,
        host: &'a Path,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        unsupported("SandboxFs::copy_to_host", available_when::FS)
    }
}

/// Named volumes and their files. Paths are relative to the volume's root and never leave it: `..` above the root and
/// symbolic links out of it are refused.
#[allow(unused_variables, reason = "default bodies answer Unsupported")]
pub trait VolumeBackend: Send + Sync {
    fn create<'a>(&'a self, backend: &'a SharedBackend, config: VolumeConfig) -> Operation<'a, VolumeInfo> {
        unsupported("Volume::create", available_when::VOLUMES)
    }
    fn get<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, VolumeInfo> {
        unsupported("Volume::get", available_when::VOLUMES)
    }
    /// The account's default volume; a service's only.
    fn get_default<'a>(&'a self, backend: &'a SharedBackend) -> Operation<'a, VolumeInfo> {
        unsupported("Volume::get_default", available_when::CLOUD_ONLY)
    }
    fn list<'a>(&'a self, backend: &'a SharedBackend) -> Operation<'a, Vec<VolumeInfo>> {
        unsupported("Volume::list", available_when::VOLUMES)
    }
    /// Refused with [`MicrosandboxError::VolumeInUse`] while a sandbox that is not stopped mounts it.
    fn remove<'a>(&'a self, backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        unsupported("Volume::remove", available_when::VOLUMES)
    }
    /// The directory on this machine.
    fn path(&self, name: &str) -> MicrosandboxResult<PathBuf> {
        Err(MicrosandboxError::unsupported("Volume::path", available_when::VOLUMES))
    }

    fn fs_read<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Bytes> {
        unsupported("VolumeFs::read", available_when::VOLUMES)
    }
    fn fs_read_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsReadStream> {
        unsupported("VolumeFs::read_stream", available_when::VOLUMES)
    }
    /// Creates or replaces the file at once; parents must exist.
    fn fs_write<'a>(&'a self, name: &'a str, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        unsupported("VolumeFs::write", available_when::VOLUMES)
    }
    fn fs_write_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsWriteSink> {
        unsupported("VolumeFs::write_stream", available_when::VOLUMES)
    }
    fn fs_list<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        unsupported("VolumeFs::list", available_when::VOLUMES)
    }
    fn fs_stat<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsMetadata> {
        unsupported("VolumeFs::stat", available_when::VOLUMES)
    }
    /// With parents; an existing directory is fine.
    fn fs_mkdir<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, ()> {
        unsupported("VolumeFs::mkdir", available_when::VOLUMES)
    }
    fn fs_remove<'a>(&'a self, name: &'a str, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        unsupported("VolumeFs::remove", available_when::VOLUMES)
    }
    fn fs_copy<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        unsupported("VolumeFs::copy", available_when::VOLUMES)
    }
    fn fs_rename<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        unsupported("VolumeFs::rename", available_when::VOLUMES)
    }
    fn fs_exists<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, bool> {
        unsupported("VolumeFs::exists", available_when::VOLUMES)
    }
}

/// Progress of an import; called from the importing task, must not block.
pub type ProgressFn = Arc<dyn Fn(ImageProgress) + Send + Sync>;

/// The image store.
#[allow(unused_variables, reason = "default bodies answer Unsupported")]
pub trait ImageBackend: Send + Sync {
    /// Imports a Docker or OCI archive; every imported reference. `tag` is added to the first image.
    fn load<'a>(
        &'a self,
        archive: &'a Path,
        tag: Option<String>,
        progress: Option<ProgressFn>,
    ) -> Operation<'a, Vec<ImageInfo>> {
        unsupported("Image::load", available_when::IMAGES)
    }
    fn list<'a>(&'a self) -> Operation<'a, Vec<ImageInfo>> {
        unsupported("Image::list", available_when::IMAGES)
    }
    fn get<'a>(&'a self, reference: &'a str) -> Operation<'a, ImageInfo> {
        unsupported("Image::get", available_when::IMAGES)
    }
    fn inspect<'a>(&'a self, reference: &'a str) -> Operation<'a, ImageDetail> {
        unsupported("Image::inspect", available_when::IMAGES)
    }
    fn remove<'a>(&'a self, reference: &'a str, force: bool) -> Operation<'a, ()> {
        unsupported("Image::remove", available_when::IMAGES)
    }
    fn prune<'a>(&'a self) -> Operation<'a, ImagePruneReport> {
        unsupported("Image::prune", available_when::IMAGES)
    }
    /// What isolation this machine can give.
    fn doctor<'a>(&'a self, recheck: bool) -> Operation<'a, DoctorReport> {
        unsupported("doctor", available_when::IMAGES)
    }
}

struct NoImages;
impl ImageBackend for NoImages {}
