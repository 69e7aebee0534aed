//! The files of a volume, wherever it lives.

use bytes::Bytes;

use crate::backend::SharedBackend;
use crate::error::MicrosandboxResult;
use crate::model::{FsEntry, FsMetadata, FsReadStream, FsWriteSink};

/// Files of one volume; paths are relative to its root and never leave it.
pub struct VolumeFs<'a> {
    backend: &'a SharedBackend,
    name: &'a str,
}

impl<'a> VolumeFs<'a> {
    /// Never fails: the calls do.
    pub fn with_backend(backend: &'a SharedBackend, name: &'a str) -> Self {
        VolumeFs { backend, name }
    }
    pub async fn read(&self, path: &str) -> MicrosandboxResult<Bytes> {
        self.backend.volumes().fs_read(self.name, path).await
    }
    pub async fn read_stream(&self, path: &str) -> MicrosandboxResult<FsReadStream> {
        self.backend.volumes().fs_read_stream(self.name, path).await
    }
    /// Creates or replaces the file at once.
    pub async fn write(&self, path: &str, data: Bytes) -> MicrosandboxResult<()> {
        self.backend.volumes().fs_write(self.name, path, data).await
    }
    /// The file is in place when `close` returned.
    pub async fn write_stream(&self, path: &str) -> MicrosandboxResult<FsWriteSink> {
        self.backend.volumes().fs_write_stream(self.name, path).await
    }
    pub async fn list(&self, path: &str) -> MicrosandboxResult<Vec<FsEntry>> {
        self.backend.volumes().fs_list(self.name, path).await
    }
    pub async fn stat(&self, path: &str) -> MicrosandboxResult<FsMetadata> {
        self.backend.volumes().fs_stat(self.name, path).await
    }
    pub async fn exists(&self, path: &str) -> MicrosandboxResult<bool> {
        self.backend.volumes().fs_exists(self.name, path).await
    }
    pub async fn mkdir(&self, path: &str) -> MicrosandboxResult<()> {
        self.backend.volumes().fs_mkdir(self.name, path).await
    }
    pub async fn remove(&self, path: &str) -> MicrosandboxResult<()> {
        self.backend.volumes().fs_remove(self.name, path, false).await
    }
    pub async fn remove_dir(&self, path: &str) -> MicrosandboxResult<()> {
        self.backend.volumes().fs_remove(self.name, path, true).await
    }
    pub async fn copy(&self, from: &str, to: &str) -> MicrosandboxResult<()> {
        self.backend.volumes().fs_copy(self.name, from, to).await
    }
    pub async fn rename(&self, from: &str, to: &str) -> MicrosandboxResult<()> {
        self.backend.volumes().fs_rename(self.name, from, to).await
    }
}
