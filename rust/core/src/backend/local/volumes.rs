//! Named volumes of a home: a directory `<volumes>/<name>` and a row each.
//!
//! A row without a directory is an empty volume, whose directory is made when it is needed (`volume_dir`). Files belong to
//! ids as sandboxes of this home map them, so that what root inside creates, setuid files among it, is nobody's on the host.

use std::path::PathBuf;

use bytes::Bytes;

use super::volume_files::{self, Tree};
use super::{LocalBackend, boot, reconcile};
use crate::backend::{Operation, SharedBackend, VolumeBackend, available_when};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{
    FsEntry, FsMetadata, FsReadStream, FsWriteSink, VolumeConfig, VolumeInfo, VolumeKind, validate_volume_name,
};
use crate::store::VolumeRow;

impl LocalBackend {
    async fn volume_row(&self, name: &str) -> MicrosandboxResult<VolumeRow> {
        validate_volume_name(name)?;
        let found = self.store().await?.volume(name).await?;
        found.ok_or_else(|| MicrosandboxError::VolumeNotFound(name.into()))
    }

    /// The files of a volume that exists.
    async fn files(&self, name: &str) -> MicrosandboxResult<Tree> {
        self.volume_row(name).await?;
        self.volume_root(name).await
    }

    async fn info(&self, row: VolumeRow) -> MicrosandboxResult<VolumeInfo> {
        let root = self.volume_root(&row.name).await?;
        let used_bytes = volume_files::blocking(move || Ok(root.used_bytes())).await?;
        Ok(VolumeInfo {
            name: row.name,
            kind: VolumeKind::Directory,
            used_bytes,
            labels: row.labels,
            created_at: row.created_at,
            updated_at: row.updated_at,
            ..VolumeInfo::default()
        })
    }

    async fn create_volume(&self, config: VolumeConfig) -> MicrosandboxResult<VolumeInfo> {
        validate_volume_name(&config.name)?;
        super::validate::label_keys(&config.labels)?;
        if config.kind == VolumeKind::Disk || config.capacity_mib.is_some() {
            return Err(MicrosandboxError::unsupported("Volume::create(kind=DISK)", available_when::DISK_VOLUMES));
        }
        if config.quota_mib.is_some() {
            return Err(MicrosandboxError::unsupported("Volume::create(quota_mib=)", available_when::QUOTAS));
        }
        let name = &config.name;
        let lock = self.lock_volume(name).await?;
        self.recover_volume(&lock, name).await?;
        let store = self.store().await?;
        let path = self.config().volume_path(name);
        let known = store.volume(name).await?.is_some();
        if !known && path.symlink_metadata().is_ok() {
            return Err(MicrosandboxError::InvalidConfig(format!(
                "{} exists, but is no volume of this home; move it away, or use another name",
                path.display()
            )));
        }
        let row = store.insert_volume(name, &config.labels).await?;
        boot::failpoint("volume_inserted");
        self.make_volume(&lock, name)?;
        drop(lock);
        self.info(row).await
    }

    async fn remove_volume(&self, name: &str) -> MicrosandboxResult<()> {
        self.volume_row(name).await?;
        let store = self.store().await?;
        // A row may still say running for a process that is gone. This takes the lock of that sandbox: before our own.
        for holder in store.volume_holders(name).await? {
            reconcile::current(self, &holder).await?;
        }
        let lock = self.lock_volume(name).await?;
        self.recover_volume(&lock, name).await?;
        let deleted = store.delete_volume(name, &|| self.put_volume_aside(&lock, name)).await;
        boot::failpoint("volume_deleted");
        // By the row: the files come back, or go.
        let recovered = self.recover_volume(&lock, name).await;
        let found = deleted?;
        recovered?;
        lock.remove_file();
        self.sweep_removed_volumes().await;
        if found { Ok(()) } else { Err(MicrosandboxError::VolumeNotFound(name.into())) }
    }
}

impl VolumeBackend for LocalBackend {
    fn create<'a>(&'a self, _backend: &'a SharedBackend, config: VolumeConfig) -> Operation<'a, VolumeInfo> {
        Box::pin(self.create_volume(config))
    }
    fn get<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, VolumeInfo> {
        Box::pin(async move { self.info(self.volume_row(name).await?).await })
    }
    fn list<'a>(&'a self, _backend: &'a SharedBackend) -> Operation<'a, Vec<VolumeInfo>> {
        Box::pin(async move {
            let mut all = Vec::new();
            for row in self.store().await?.volumes().await? {
                match self.info(row).await {
                    // Removed since it was listed.
                    Err(MicrosandboxError::VolumeNotFound(_)) => {}
                    found => all.push(found?),
                }
            }
            Ok(all)
        })
    }
    fn remove<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(self.remove_volume(name))
    }
    fn path(&self, name: &str) -> MicrosandboxResult<PathBuf> {
        validate_volume_name(name)?;
        Ok(self.config().volume_path(name))
    }

    fn fs_read<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Bytes> {
        Box::pin(async move { self.files(name).await?.read(path).await })
    }
    fn fs_read_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsReadStream> {
        Box::pin(async move { self.files(name).await?.read_stream(path).await })
    }
    fn fs_write<'a>(&'a self, name: &'a str, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        Box::pin(async move {
            let sink = self.files(name).await?.write_stream(path).await?;
            sink.write(data).await?;
            sink.close().await
        })
    }
    fn fs_write_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsWriteSink> {
        Box::pin(async move { self.files(name).await?.write_stream(path).await })
    }
    fn fs_list<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        Box::pin(async move { self.files(name).await?.list(path).await })
    }
    fn fs_stat<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsMetadata> {
        Box::pin(async move { self.files(name).await?.stat("stat", path).await })
    }
    fn fs_mkdir<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, ()> {
        Box::pin(async move { self.files(name).await?.mkdir(path).await })
    }
    fn fs_remove<'a>(&'a self, name: &'a str, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        Box::pin(async move { self.files(name).await?.remove(path, recursive).await })
    }
    fn fs_copy<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        Box::pin(async move { self.files(name).await?.copy(from, to).await })
    }
    fn fs_rename<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        Box::pin(async move { self.files(name).await?.rename(from, to).await })
    }
    fn fs_exists<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, bool> {
        Box::pin(async move {
            match self.files(name).await?.stat("exists", path).await {
                Ok(_) => Ok(true),
                Err(MicrosandboxError::PathNotFound { .. }) => Ok(false),
                Err(MicrosandboxError::Filesystem { errno: Some(libc::ENOTDIR), .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }
}
