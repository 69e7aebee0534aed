//! Named volumes of a home: a directory `<volumes>/<name>` and a row each.
//!
//! The row comes first and goes last: a row without a directory is an empty volume, whose directory is made when it is
//! needed. Files belong to ids as sandboxes of this home map them, so that what root inside creates, setuid files among
//! it, is nobody's on the host.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use bytes::Bytes;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::volume_files::{self, Tree};
use super::{LocalBackend, reconcile, tree};
use crate::backend::{Operation, SharedBackend, VolumeBackend, available_when};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{
    FsEntry, FsMetadata, FsReadStream, FsWriteSink, VolumeConfig, VolumeInfo, VolumeKind, validate_volume_name,
};
use crate::store::VolumeRow;

/// Removed volumes on their way out begin with this; no volume can.
const ASIDE: &str = ".removed-";

impl LocalBackend {
    /// The directory of a volume that has a row; made if it is not there.
    pub(super) fn volume_root(&self, name: &str) -> MicrosandboxResult<Tree> {
        super::make_private_directory(&self.volumes_dir())?;
        let path = self.config().volume_path(name);
        let ids = self.id_map()?;
        let failed = |action: &'static str| {
            let path = path.clone();
            move |error: Errno| MicrosandboxError::io(action, &path, error.into())
        };
        let parent =
            rustix::fs::open(self.volumes_dir(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(failed("open"))?;
        let fresh = match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed("create")(error)),
        };
        let owner = super::idmap::inside_root(&ids);
        if let (true, Some((uid, gid))) = (fresh, owner) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("own"))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root: OwnedFd = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(failed("open"))?;
        Ok(Tree::new(root, ids))
    }

    async fn volume_row(&self, name: &str) -> MicrosandboxResult<VolumeRow> {
        validate_volume_name(name)?;
        let found = self.store().await?.volume(name).await?;
        found.ok_or_else(|| MicrosandboxError::VolumeNotFound(name.into()))
    }

    /// The files of a volume that exists.
    async fn files(&self, name: &str) -> MicrosandboxResult<Tree> {
        let row = self.volume_row(name).await?;
        self.volume_root(&row.name)
    }

    async fn info(&self, row: VolumeRow) -> MicrosandboxResult<VolumeInfo> {
        let root = self.volume_root(&row.name)?;
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
        let store = self.store().await?;
        let path = self.config().volume_path(&config.name);
        let known = store.volume(&config.name).await?.is_some();
        if !known && path.symlink_metadata().is_ok() {
            return Err(MicrosandboxError::InvalidConfig(format!(
                "{} exists, but is no volume of this home; move it away, or use another name",
                path.display()
            )));
        }
        let row = store.insert_volume(&config.name, &config.labels).await?;
        self.info(row).await
    }

    async fn remove_volume(&self, name: &str) -> MicrosandboxResult<()> {
        self.volume_row(name).await?;
        let store = self.store().await?;
        // A row may still say running for a process that is gone.
        for holder in store.volume_holders(name).await? {
            reconcile::current(self, &holder).await?;
        }
        let (path, mut aside) = (self.config().volume_path(name), None);
        if path.symlink_metadata().is_ok() {
            let mut bytes = [0u8; 8];
            rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
                .map_err(|e| MicrosandboxError::Io { context: "read random bytes".into(), source: e.into() })?;
            aside = Some(self.volumes_dir().join(format!("{ASIDE}{}", hex::encode(bytes))));
        }
        let put_aside = || match &aside {
            None => Ok(()),
            Some(aside) => match std::fs::rename(&path, aside) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(|error| MicrosandboxError::io("remove", &path, error)),
            },
        };
        let deleted = store.delete_volume(name, &put_aside).await;
        match (&deleted, &aside) {
            // The row stays, so its files come back.
            (Err(_), Some(aside)) => drop(std::fs::rename(aside, &path)),
            (Ok(_), Some(aside)) => tree::remove(self, aside).await?,
            _ => {}
        }
        self.sweep_removed().await;
        match deleted? {
            true => Ok(()),
            false => Err(MicrosandboxError::VolumeNotFound(name.into())),
        }
    }

    /// What a removal that was cut off left.
    async fn sweep_removed(&self) {
        let Ok(entries) = std::fs::read_dir(self.volumes_dir()) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(ASIDE)
                && let Err(error) = tree::remove(self, &entry.path()).await
            {
                tracing::debug!(%error, "the rest of a removed volume stays for now");
            }
        }
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
                all.push(self.info(row).await?);
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
