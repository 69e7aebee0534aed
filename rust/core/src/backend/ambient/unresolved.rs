//! The backend that stands where none could be resolved: every operation fails with the reason.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::backend::{
    Backend, BackendKind, ImageBackend, ListQuery, Operation, ProgressFn, SandboxBackend, SandboxList, SharedBackend,
    VolumeBackend,
};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{
    DoctorReport, ExecHandle, ExecOptions, ExecOutput, FsAttributes, FsEntry, FsMetadata, FsReadStream, FsWatchStream,
    FsWriteSink, ImageDetail, ImageInfo, ImagePruneReport, IsolationReport, JobCall, JobInfo, LogEntry, LogOptions,
    LogStream, LogStreamOptions, MetricsStream, Modification, ModificationPlan, SandboxConfig, SandboxMetrics,
    SandboxSpec, TransferProgress, VolumeConfig, VolumeInfo,
};
use crate::sandbox::{Sandbox, SandboxHandle};

/// Kind cloud, so that nothing takes it for this machine.
struct Unresolved {
    why: Why,
}

enum Why {
    InvalidConfig(String),
    Unsupported { feature: String, available_when: String },
}

pub(super) fn backend(error: &MicrosandboxError) -> SharedBackend {
    let why = match error {
        MicrosandboxError::InvalidConfig(message) => Why::InvalidConfig(message.clone()),
        MicrosandboxError::Unsupported { feature, available_when } => {
            Why::Unsupported { feature: feature.clone(), available_when: available_when.clone() }
        }
        other => Why::InvalidConfig(other.to_string()),
    };
    Arc::new(Unresolved { why })
}

impl Unresolved {
    fn error(&self) -> MicrosandboxError {
        match &self.why {
            Why::InvalidConfig(message) => MicrosandboxError::InvalidConfig(message.clone()),
            Why::Unsupported { feature, available_when } => MicrosandboxError::unsupported(feature, available_when),
        }
    }

    fn fail<'a, T: Send + 'a>(&self) -> Operation<'a, T> {
        Box::pin(std::future::ready(Err(self.error())))
    }
}

impl Backend for Unresolved {
    fn kind(&self) -> BackendKind {
        BackendKind::Cloud
    }
    fn sandboxes(&self) -> &dyn SandboxBackend {
        self
    }
    fn volumes(&self) -> &dyn VolumeBackend {
        self
    }
    fn images(&self) -> &dyn ImageBackend {
        self
    }
}

impl SandboxBackend for Unresolved {
    fn create<'a>(
        &'a self,
        _backend: &'a SharedBackend,
        _config: SandboxConfig,
        _start: bool,
    ) -> Operation<'a, Sandbox> {
        self.fail()
    }
    fn start<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str, _detached: bool) -> Operation<'a, Sandbox> {
        self.fail()
    }
    fn get<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, SandboxHandle> {
        self.fail()
    }
    fn list<'a>(&'a self, _backend: &'a SharedBackend, _query: ListQuery) -> Operation<'a, SandboxList> {
        self.fail()
    }
    fn remove<'a>(
        &'a self,
        _backend: &'a SharedBackend,
        _name: &'a str,
        _expected_id: Option<&'a str>,
    ) -> Operation<'a, ()> {
        self.fail()
    }
    fn connect<'a>(
        &'a self,
        _backend: &'a SharedBackend,
        _name: &'a str,
        _timeout: Duration,
    ) -> Operation<'a, Sandbox> {
        self.fail()
    }
    fn stop<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn kill<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn drain<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn modify<'a>(
        &'a self,
        _backend: &'a SharedBackend,
        _name: &'a str,
        _asked: Modification,
    ) -> Operation<'a, ModificationPlan> {
        self.fail()
    }
    fn pause<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn resume<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn detach<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn exec<'a>(
        &'a self,
        _name: &'a str,
        _spec: &'a SandboxSpec,
        _cmd: String,
        _options: ExecOptions,
    ) -> Operation<'a, ExecOutput> {
        self.fail()
    }
    fn exec_stream<'a>(
        &'a self,
        _name: &'a str,
        _spec: &'a SandboxSpec,
        _cmd: String,
        _options: ExecOptions,
    ) -> Operation<'a, ExecHandle> {
        self.fail()
    }
    fn job_start<'a>(
        &'a self,
        _name: &'a str,
        _spec: &'a SandboxSpec,
        _cmd: String,
        _options: ExecOptions,
    ) -> Operation<'a, JobInfo> {
        self.fail()
    }
    fn job_call<'a>(&'a self, _name: &'a str, _call: JobCall) -> Operation<'a, Vec<JobInfo>> {
        self.fail()
    }
    fn job_attach<'a>(&'a self, _name: &'a str, _job: String, _replay: Option<u64>) -> Operation<'a, ExecHandle> {
        self.fail()
    }
    fn logs<'a>(&'a self, _name: &'a str, _options: LogOptions) -> Operation<'a, Vec<LogEntry>> {
        self.fail()
    }
    fn log_stream<'a>(&'a self, _name: &'a str, _options: LogStreamOptions) -> Operation<'a, LogStream> {
        self.fail()
    }
    fn metrics<'a>(&'a self, _name: &'a str, _spec: &'a SandboxSpec) -> Operation<'a, SandboxMetrics> {
        self.fail()
    }
    fn metrics_stream(&self, _name: String, _spec: SandboxSpec, _interval: Duration) -> MetricsStream {
        Box::pin(futures::stream::iter([Err(self.error())]))
    }
    fn ping<'a>(&'a self, _name: &'a str) -> Operation<'a, Duration> {
        self.fail()
    }
    fn touch<'a>(&'a self, _name: &'a str) -> Operation<'a, u64> {
        self.fail()
    }
    fn isolation_report<'a>(&'a self, _name: &'a str) -> Operation<'a, IsolationReport> {
        self.fail()
    }
    fn fs_read<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, Bytes> {
        self.fail()
    }
    fn fs_read_stream<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, FsReadStream> {
        self.fail()
    }
    fn fs_write<'a>(&'a self, _name: &'a str, _path: &'a str, _data: Bytes) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_write_stream<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, FsWriteSink> {
        self.fail()
    }
    fn fs_list<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        self.fail()
    }
    fn fs_stat<'a>(&'a self, _name: &'a str, _path: &'a str, _follow: bool) -> Operation<'a, FsMetadata> {
        self.fail()
    }
    fn fs_set<'a>(&'a self, _name: &'a str, _path: &'a str, _attributes: FsAttributes) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_symlink<'a>(&'a self, _name: &'a str, _target: &'a str, _link: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_readlink<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, String> {
        self.fail()
    }
    fn fs_realpath<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, String> {
        self.fail()
    }
    fn fs_read_tar<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, FsReadStream> {
        self.fail()
    }
    fn fs_write_tar<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, FsWriteSink> {
        self.fail()
    }
    fn fs_watch<'a>(&'a self, _name: &'a str, _path: &'a str, _recursive: bool) -> Operation<'a, FsWatchStream> {
        self.fail()
    }
    fn fs_mkdir<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_remove<'a>(&'a self, _name: &'a str, _path: &'a str, _recursive: bool) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_copy<'a>(&'a self, _name: &'a str, _from: &'a str, _to: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_rename<'a>(&'a self, _name: &'a str, _from: &'a str, _to: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_exists<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, bool> {
        self.fail()
    }
    fn fs_copy_from_host<'a>(
        &'a self,
        _name: &'a str,
        _host: &'a Path,
        _guest: &'a str,
        _progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_copy_to_host<'a>(
        &'a self,
        _name: &'a str,
        _guest: &'a str,
        _host: &'a Path,
        _progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        self.fail()
    }
}

impl VolumeBackend for Unresolved {
    fn create<'a>(&'a self, _backend: &'a SharedBackend, _config: VolumeConfig) -> Operation<'a, VolumeInfo> {
        self.fail()
    }
    fn get<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, VolumeInfo> {
        self.fail()
    }
    fn get_default<'a>(&'a self, _backend: &'a SharedBackend) -> Operation<'a, VolumeInfo> {
        self.fail()
    }
    fn list<'a>(&'a self, _backend: &'a SharedBackend) -> Operation<'a, Vec<VolumeInfo>> {
        self.fail()
    }
    fn remove<'a>(&'a self, _backend: &'a SharedBackend, _name: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn path(&self, _name: &str) -> MicrosandboxResult<PathBuf> {
        Err(self.error())
    }
    fn fs_read<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, Bytes> {
        self.fail()
    }
    fn fs_read_stream<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, FsReadStream> {
        self.fail()
    }
    fn fs_write<'a>(&'a self, _name: &'a str, _path: &'a str, _data: Bytes) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_write_stream<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, FsWriteSink> {
        self.fail()
    }
    fn fs_list<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        self.fail()
    }
    fn fs_stat<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, FsMetadata> {
        self.fail()
    }
    fn fs_mkdir<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_remove<'a>(&'a self, _name: &'a str, _path: &'a str, _recursive: bool) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_copy<'a>(&'a self, _name: &'a str, _from: &'a str, _to: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_rename<'a>(&'a self, _name: &'a str, _from: &'a str, _to: &'a str) -> Operation<'a, ()> {
        self.fail()
    }
    fn fs_exists<'a>(&'a self, _name: &'a str, _path: &'a str) -> Operation<'a, bool> {
        self.fail()
    }
}

impl ImageBackend for Unresolved {
    fn load<'a>(
        &'a self,
        _archive: &'a Path,
        _tag: Option<String>,
        _progress: Option<ProgressFn>,
    ) -> Operation<'a, Vec<ImageInfo>> {
        self.fail()
    }
    fn list<'a>(&'a self) -> Operation<'a, Vec<ImageInfo>> {
        self.fail()
    }
    fn get<'a>(&'a self, _reference: &'a str) -> Operation<'a, ImageInfo> {
        self.fail()
    }
    fn inspect<'a>(&'a self, _reference: &'a str) -> Operation<'a, ImageDetail> {
        self.fail()
    }
    fn remove<'a>(&'a self, _reference: &'a str, _force: bool) -> Operation<'a, ()> {
        self.fail()
    }
    fn prune<'a>(&'a self) -> Operation<'a, ImagePruneReport> {
        self.fail()
    }
    fn doctor<'a>(&'a self, _recheck: bool) -> Operation<'a, DoctorReport> {
        self.fail()
    }
}
