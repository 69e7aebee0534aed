//! The routing layer: one trait, many homes for a sandbox.
//!
//! A [`Backend`] gives access to narrow traits: [`SandboxBackend`] for records and lifecycle, [`Agent`] for the programs of
//! one running sandbox, [`Files`] for the files of a sandbox or a volume, [`VolumeBackend`] and [`ImageBackend`]. They take
//! requests and return records; [`crate::api`] binds records to the backend that they came from. No implementation
//! receives itself as an argument, and nothing here looks the default backend up.
//!
//! An implementation needs only the operations that it has: the default body of every other one fails with
//! [`MicrosandboxError::Unsupported`] and the operation's name, by way of the trait's `refusal`.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::api::{Awaited, SandboxInner, SandboxRecord};
use crate::config::Wire;
use crate::error::{MicrosandboxError, MicrosandboxResult};
pub use crate::files::Files;
use crate::model::{
    BootStep, DoctorReport, ExecHandle, ExecOptions, ExecOutput, ImageDetail, ImageInfo, ImageProgress,
    ImagePruneReport, ImagePruneRequest, ImageSaveRequest, IsolationReport, JobCall, JobInfo, LogEntry, LogOptions,
    LogStream, LogStreamOptions, MetricsStream, Modification, ModificationPlan, Owners, PullEvent, PullRequest,
    SandboxConfig, SandboxMetrics, SandboxSpec, StorageUsage, VolumeConfig, VolumeInfo, VolumeQuery,
};

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

/// Where the requests of a remote backend go; never holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAddress {
    pub url: String,
    pub wire: Wire,
    /// The profile that the backend was made from.
    pub profile: Option<String>,
}

/// Where sandboxes live.
pub trait Backend: Send + Sync + 'static {
    fn kind(&self) -> BackendKind;
    fn sandboxes(&self) -> &dyn SandboxBackend;
    fn volumes(&self) -> &dyn VolumeBackend;
    /// The image store; local only today.
    fn images(&self) -> &dyn ImageBackend {
        &NoImages
    }
    /// The only sanctioned downcast, for what needs paths or the database. `Any`, because this crate knows no implementation:
    /// `LocalBackend::of` of the crate `local` turns it into the type.
    fn as_local(&self) -> Option<&(dyn Any + Send + Sync)> {
        None
    }
    /// For descriptions of a remote backend.
    fn remote_address(&self) -> Option<RemoteAddress> {
        None
    }
}

/// A sandbox to create.
#[derive(Clone)]
pub struct CreateRequest {
    pub config: SandboxConfig,
    /// Honoured where a record can exist that was never booted; a local sandbox always boots.
    pub start: bool,
    /// The client of a server for whom it is created.
    pub owner: Option<String>,
    /// Of the pull of its image.
    pub progress: Option<PullProgressFn>,
}

/// A sandbox to boot from its stored configuration and pinned root file system.
#[derive(Debug, Clone, Copy)]
pub struct StartRequest<'a> {
    pub name: &'a str,
    pub detached: bool,
}

/// A running sandbox to attach to without owning it.
#[derive(Debug, Clone, Copy)]
pub struct ConnectRequest<'a> {
    pub name: &'a str,
    pub timeout: Duration,
}

/// A sandbox to delete.
#[derive(Debug, Clone, Copy)]
pub struct RemoveRequest<'a> {
    pub name: &'a str,
    /// Refuse if the name means another sandbox by now.
    pub expected_id: Option<&'a str>,
}

/// What is known of a running sandbox after create, start or connect.
#[derive(Debug)]
pub struct LiveRecord {
    pub inner: SandboxInner,
    pub spec: SandboxSpec,
    /// Where the time of the boot went; empty where this call booted nothing.
    pub boot: Vec<BootStep>,
}

/// Which rows `list` returns. All labels must match; the filter precedes paging.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    pub cursor: Option<String>,
    /// 1 to 100; 20 when absent.
    pub limit: Option<u32>,
    pub labels: BTreeMap<String, String>,
    pub owners: Owners,
}

/// One page of records, newest first.
#[derive(Debug, Clone)]
pub struct RecordPage {
    pub records: Vec<SandboxRecord>,
    pub next_cursor: Option<String>,
}

/// A program to run.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// Of the sandbox: its environment, directory and user are the program's unless the options say otherwise.
    pub spec: &'a SandboxSpec,
    pub cmd: String,
    pub options: ExecOptions,
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

/// An operation that fails with this error.
pub fn refuse<'a, T: Send + 'a>(error: MicrosandboxError) -> Operation<'a, T> {
    Box::pin(std::future::ready(Err(error)))
}

/// Records of sandboxes and their lifecycle. Sandboxes are addressed by name.
#[allow(unused_variables, reason = "default bodies refuse")]
pub trait SandboxBackend: Send + Sync {
    /// The error of an operation that this backend lacks.
    fn refusal(&self, feature: &'static str, available_when: &'static str) -> MicrosandboxError {
        MicrosandboxError::unsupported(feature, available_when)
    }
    /// Refuses the first option that this backend cannot honour, before anything else happens.
    fn check_options(&self, config: &SandboxConfig) -> MicrosandboxResult<()> {
        match config.unsupported.first() {
            Some(option) => Err(MicrosandboxError::unsupported(&option.feature, &option.available_when)),
            None => Ok(()),
        }
    }
    /// Creates and boots. Ownership follows `config.spec.detached`.
    fn create(&self, request: CreateRequest) -> Operation<'_, LiveRecord> {
        refuse(self.refusal("Sandbox::create", available_when::LIFECYCLE))
    }
    fn start<'a>(&'a self, request: StartRequest<'a>) -> Operation<'a, LiveRecord> {
        refuse(self.refusal("Sandbox::start", available_when::LIFECYCLE))
    }
    fn connect<'a>(&'a self, request: ConnectRequest<'a>) -> Operation<'a, LiveRecord> {
        refuse(self.refusal("SandboxHandle::connect", available_when::LIFECYCLE))
    }
    fn get<'a>(&'a self, name: &'a str) -> Operation<'a, SandboxRecord> {
        refuse(self.refusal("Sandbox::get", available_when::LIFECYCLE))
    }
    /// By the identity that survives no replacement. One of another owner is as good as none: its process is not looked at.
    fn get_by_id<'a>(&'a self, id: &'a str, owners: &'a Owners) -> Operation<'a, SandboxRecord> {
        refuse(self.refusal("Sandbox::get_by_id", available_when::LOCAL))
    }
    fn list(&self, query: ListQuery) -> Operation<'_, RecordPage> {
        refuse(self.refusal("Sandbox::list", available_when::LIFECYCLE))
    }
    /// The number of records, in every state.
    fn count(&self) -> Operation<'_, u64> {
        refuse(self.refusal("Sandbox::count", available_when::LOCAL))
    }
    /// Deletes directory, then row; refuses a live sandbox.
    fn remove<'a>(&'a self, request: RemoveRequest<'a>) -> Operation<'a, ()> {
        refuse(self.refusal("Sandbox::remove", available_when::LIFECYCLE))
    }
    /// Ends it by force and deletes it, waiting for both. A caller composes the two where this is refused.
    fn destroy<'a>(&'a self, request: RemoveRequest<'a>) -> Operation<'a, ()> {
        refuse(self.refusal("Sandbox::destroy", available_when::LIFECYCLE))
    }
    /// Asks for an orderly end; does not wait.
    fn stop<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        refuse(self.refusal("Sandbox::stop", available_when::LIFECYCLE))
    }
    /// Ends it by force; does not wait.
    fn kill<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        refuse(self.refusal("Sandbox::kill", available_when::LIFECYCLE))
    }
    /// Lets running programs end and refuses new ones; does not wait.
    fn drain<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        refuse(self.refusal("Sandbox::drain", available_when::LIFECYCLE))
    }
    /// Changes a sandbox that exists: all of it or nothing, now or at its next start.
    fn modify<'a>(&'a self, name: &'a str, change: Modification) -> Operation<'a, ModificationPlan> {
        refuse(self.refusal("Sandbox::modify", available_when::LOCAL))
    }
    /// Freezes all processes until [`SandboxBackend::resume`]; idempotent. In-flight calls wait.
    fn pause<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        refuse(self.refusal("Sandbox::pause", available_when::LOCAL))
    }
    /// Thaws all processes; idempotent.
    fn resume<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        refuse(self.refusal("Sandbox::resume", available_when::LOCAL))
    }
    /// Gives up ownership of an attached sandbox: it outlives this process.
    fn detach<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        refuse(self.refusal("Sandbox::detach", available_when::LIFECYCLE))
    }
    /// Returns the record once its status is terminal. The default polls; a backend that can wait overrides it.
    fn wait<'a>(&'a self, name: &'a str) -> Operation<'a, SandboxRecord> {
        Box::pin(async move {
            let mut awaited = Awaited::default();
            loop {
                if let ControlFlow::Break(end) = awaited.look(self.get(name).await) {
                    return end;
                }
                tokio::time::sleep(crate::api::STATUS_POLL_INTERVAL).await;
            }
        })
    }

    /// Captured output, running or not.
    fn logs<'a>(&'a self, name: &'a str, options: LogOptions) -> Operation<'a, Vec<LogEntry>> {
        refuse(self.refusal("Sandbox::logs", available_when::LIFECYCLE))
    }
    fn log_stream<'a>(&'a self, name: &'a str, options: LogStreamOptions) -> Operation<'a, LogStream> {
        refuse(self.refusal("Sandbox::log_stream", available_when::LIFECYCLE))
    }
    fn metrics<'a>(&'a self, name: &'a str, spec: &'a SandboxSpec) -> Operation<'a, SandboxMetrics> {
        refuse(self.refusal("Sandbox::metrics", available_when::METRICS))
    }
    /// The first item comes without delay.
    fn metrics_stream(&self, name: String, spec: SandboxSpec, interval: Duration) -> MetricsStream {
        let error = self.refusal("Sandbox::metrics_stream", available_when::METRICS);
        Box::pin(futures::stream::iter([Err(error)]))
    }
    /// What separates this sandbox from its host.
    fn isolation<'a>(&'a self, name: &'a str) -> Operation<'a, IsolationReport> {
        refuse(self.refusal("Sandbox::isolation_report", available_when::LIFECYCLE))
    }
    /// The programs and files of a running sandbox. Connects to nothing: each call has a connection of its own.
    fn agent<'a>(&'a self, name: &'a str) -> Box<dyn Agent + 'a>;
}

/// Programs and files of one running sandbox.
#[allow(unused_variables, reason = "default bodies refuse")]
pub trait Agent: Send + Sync {
    /// The error of an operation that this agent lacks.
    fn refusal(&self, feature: &'static str, available_when: &'static str) -> MicrosandboxError {
        MicrosandboxError::unsupported(feature, available_when)
    }
    /// Runs a program to its end and collects both streams.
    fn exec<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, ExecOutput> {
        refuse(self.refusal("Sandbox::exec", available_when::LIFECYCLE))
    }
    fn exec_stream<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, ExecHandle> {
        refuse(self.refusal("Sandbox::exec_stream", available_when::LIFECYCLE))
    }
    /// Starts a program that outlives this client.
    fn start_job<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, JobInfo> {
        refuse(self.refusal("Sandbox::exec_detached", available_when::JOBS))
    }
    fn job(&self, call: JobCall) -> Operation<'_, Vec<JobInfo>> {
        refuse(self.refusal("Sandbox::jobs", available_when::JOBS))
    }
    /// Kept output of a job, `replay` bytes at most, then what follows; dropping the handle leaves the job running.
    fn attach_job(&self, job: String, replay: Option<u64>) -> Operation<'_, ExecHandle> {
        refuse(self.refusal("Job::attach", available_when::JOBS))
    }
    /// The files; paths are absolute guest paths.
    fn files<'a>(self: Box<Self>) -> Box<dyn Files + 'a>
    where
        Self: 'a;
    /// Round trip to the agent; not activity.
    fn ping(&self) -> Operation<'_, Duration> {
        refuse(self.refusal("Sandbox::ping", available_when::LIFECYCLE))
    }
    /// Resets the idle timer; the new activity number.
    fn touch(&self) -> Operation<'_, u64> {
        refuse(self.refusal("Sandbox::touch", available_when::LIFECYCLE))
    }
}

/// Named volumes.
#[allow(unused_variables, reason = "default bodies refuse")]
pub trait VolumeBackend: Send + Sync {
    /// The error of an operation that this backend lacks.
    fn refusal(&self, feature: &'static str, available_when: &'static str) -> MicrosandboxError {
        MicrosandboxError::unsupported(feature, available_when)
    }
    fn create(&self, config: VolumeConfig) -> Operation<'_, VolumeInfo> {
        refuse(self.refusal("Volume::create", available_when::VOLUMES))
    }
    fn get<'a>(&'a self, name: &'a str) -> Operation<'a, VolumeInfo> {
        refuse(self.refusal("Volume::get", available_when::VOLUMES))
    }
    /// The account's default volume; a service's only.
    fn get_default(&self) -> Operation<'_, VolumeInfo> {
        refuse(self.refusal("Volume::get_default", available_when::CLOUD_ONLY))
    }
    fn list(&self, query: VolumeQuery) -> Operation<'_, Vec<VolumeInfo>> {
        refuse(self.refusal("Volume::list", available_when::VOLUMES))
    }
    /// Refused with [`MicrosandboxError::VolumeInUse`] while a sandbox that is not stopped mounts it.
    fn remove<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        refuse(self.refusal("Volume::remove", available_when::VOLUMES))
    }
    /// For a caller who is gone: removes what a creation made, and never another volume that has the name by now.
    fn take_back<'a>(&'a self, made: &'a VolumeInfo) -> Operation<'a, ()> {
        Box::pin(async move {
            match self.get(&made.name).await {
                Ok(found) if found.is_same(made) => self.remove(&made.name).await,
                Ok(_) | Err(MicrosandboxError::VolumeNotFound(_)) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
    /// The directory on this machine.
    fn path(&self, name: &str) -> MicrosandboxResult<PathBuf> {
        Err(self.refusal("Volume::path", available_when::VOLUMES))
    }
    /// The files of a volume. Paths are relative to the volume's root: `..` above it and symbolic links out of it are refused.
    fn files<'a>(&'a self, name: &'a str) -> Box<dyn Files + 'a>;
}

/// [`VolumeBackend::take_back`] where there is no caller to report a failure to.
pub async fn take_back_volume(volumes: &dyn VolumeBackend, made: &VolumeInfo) {
    if let Err(error) = volumes.take_back(made).await {
        tracing::warn!(volume = made.name, %error, "a volume whose caller is gone could not be removed");
    }
}

/// Progress of an import; called from the importing task, must not block.
pub type ProgressFn = Arc<dyn Fn(ImageProgress) + Send + Sync>;

/// Progress of a pull; called from the pulling task, must not block.
pub type PullProgressFn = Arc<dyn Fn(PullEvent) + Send + Sync>;

/// The image store.
#[allow(unused_variables, reason = "default bodies refuse")]
pub trait ImageBackend: Send + Sync {
    /// The error of an operation that this backend lacks.
    fn refusal(&self, feature: &'static str, available_when: &'static str) -> MicrosandboxError {
        MicrosandboxError::unsupported(feature, available_when)
    }
    /// Imports a Docker or OCI archive; every imported reference. `tag` is added to the first image.
    fn load<'a>(
        &'a self,
        archive: &'a Path,
        tag: Option<String>,
        progress: Option<ProgressFn>,
    ) -> Operation<'a, Vec<ImageInfo>> {
        refuse(self.refusal("Image::load", available_when::IMAGES))
    }
    /// Fetches an image from its registry, as far as the policy asks for it.
    fn pull(&self, request: PullRequest, progress: Option<PullProgressFn>) -> Operation<'_, ImageInfo> {
        refuse(self.refusal("Image::pull", available_when::IMAGES))
    }
    /// Writes images to an archive, with the digests that they came with.
    fn save(&self, request: ImageSaveRequest) -> Operation<'_, ()> {
        refuse(self.refusal("Image::save", available_when::IMAGES))
    }
    fn list(&self) -> Operation<'_, Vec<ImageInfo>> {
        refuse(self.refusal("Image::list", available_when::IMAGES))
    }
    fn get<'a>(&'a self, reference: &'a str) -> Operation<'a, ImageInfo> {
        refuse(self.refusal("Image::get", available_when::IMAGES))
    }
    fn inspect<'a>(&'a self, reference: &'a str) -> Operation<'a, ImageDetail> {
        refuse(self.refusal("Image::inspect", available_when::IMAGES))
    }
    fn remove<'a>(&'a self, reference: &'a str, force: bool) -> Operation<'a, ()> {
        refuse(self.refusal("Image::remove", available_when::IMAGES))
    }
    fn prune(&self, request: ImagePruneRequest) -> Operation<'_, ImagePruneReport> {
        refuse(self.refusal("Image::prune", available_when::IMAGES))
    }
    /// What uses how much of the disk.
    fn usage(&self) -> Operation<'_, StorageUsage> {
        refuse(self.refusal("Storage::usage", available_when::IMAGES))
    }
    /// What isolation this machine can give.
    fn doctor(&self, recheck: bool) -> Operation<'_, DoctorReport> {
        refuse(self.refusal("doctor", available_when::IMAGES))
    }
}

struct NoImages;
impl ImageBackend for NoImages {}
