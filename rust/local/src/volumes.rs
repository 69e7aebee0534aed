//! Named volumes of a home: a directory `<volumes>/<name>` and a row each.
//!
//! A row without a directory is an empty volume, whose directory is made when it is needed (`volume_dir`). Files belong
//! to the host ids that sandboxes of this home are mapped to, so that files which root inside creates, setuid files
//! among them, belong to no account of the host.

use std::path::PathBuf;

use bytes::Bytes;
use futures::FutureExt as _;

use crate::volume_dir::Volumes;
use crate::volume_files::Tree;
use crate::{LocalBackend, reconcile};
use microsandbox_core::backend::{Files, Operation, VolumeBackend, available_when};
use microsandbox_core::collected::whole_listing;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{
    FsEntry, FsListStream, FsMetadata, FsReadStream, FsWriteSink, VolumeConfig, VolumeInfo, VolumeKind, VolumeQuery,
    validate_stored_name, validate_volume_name,
};
use microsandbox_core::{undo, validate};
use microsandbox_home::failpoint::failpoint;
use microsandbox_home::headroom;
use microsandbox_store::VolumeRow;

impl Volumes<'_> {
    async fn row(&self, name: &str) -> MicrosandboxResult<VolumeRow> {
        validate_stored_name("volume", name)?;
        let found = self.home.store().await?.volume(name).await?;
        found.ok_or_else(|| MicrosandboxError::VolumeNotFound(name.into()))
    }

    /// The files of a volume that exists.
    async fn files(&self, name: &str) -> MicrosandboxResult<Tree> {
        self.row(name).await?;
        self.root(name).await
    }

    async fn info(&self, row: VolumeRow) -> MicrosandboxResult<VolumeInfo> {
        let root = self.root(&row.name).await?;
        let used_bytes = microsandbox_home::blocking(move || Ok(root.used_bytes())).await?;
        Ok(VolumeInfo { used_bytes, ..unmeasured(row) })
    }

    async fn list(&self, query: VolumeQuery) -> MicrosandboxResult<Vec<VolumeInfo>> {
        let rows = self.home.store().await?.volumes(&query.owners, query.name.as_deref()).await?;
        if query.unmeasured {
            return Ok(rows.into_iter().map(unmeasured).collect());
        }
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            match self.info(row).await {
                // Removed since it was listed.
                Err(MicrosandboxError::VolumeNotFound(_)) => {}
                found => all.push(found?),
            }
        }
        Ok(all)
    }

    async fn create(&self, config: VolumeConfig) -> MicrosandboxResult<VolumeInfo> {
        match config.owner {
            // Only a server makes longer names, of shorter ones.
            None => validate_volume_name(&config.name)?,
            Some(_) => validate_stored_name("volume", &config.name)?,
        }
        validate::label_keys(&config.labels)?;
        if config.kind == VolumeKind::Disk || config.capacity_mib.is_some() {
            return Err(MicrosandboxError::unsupported("Volume::create(kind=DISK)", available_when::DISK_VOLUMES));
        }
        if config.quota_mib.is_some() {
            return Err(MicrosandboxError::unsupported("Volume::create(quota_mib=)", available_when::QUOTAS));
        }
        let name = &config.name;
        let lock = self.lock(name).await?;
        self.recover(&lock, name).await?;
        let store = self.home.store().await?;
        let path = self.home.config().volume_path(name);
        let known = store.volume(name).await?.is_some();
        let (home, place, wanted, is_known) = (self.home.clone(), path.clone(), name.clone(), known);
        let stranger = microsandbox_home::blocking(move || {
            headroom::check(&home, &place, || format!("create volume {wanted}"))?;
            Ok(!is_known && place.symlink_metadata().is_ok())
        })
        .await?;
        if stranger {
            return Err(MicrosandboxError::InvalidConfig(format!(
                "{} exists, but is no volume of this home; move it away, or use another name",
                path.display()
            )));
        }
        let row = store.insert_volume(config.owner.as_deref(), name, &config.labels).await?;
        failpoint("volume_inserted");
        self.make(&lock, name).await?;
        drop(lock);
        self.info(row).await
    }

    /// Removes what a creation made, without a look at its files; by now the name may be that of another volume.
    async fn take_back(&self, made: &VolumeInfo) -> MicrosandboxResult<()> {
        match self.row(&made.name).await {
            Ok(row) if row.created_at == made.created_at => self.remove(&made.name).await,
            Ok(_) | Err(MicrosandboxError::VolumeNotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, name: &str) -> MicrosandboxResult<()> {
        self.row(name).await?;
        let store = self.home.store().await?;
        // A row may still say running for a process that is gone. `current` takes that
        // sandbox's lock, which comes before the volume's lock.
        for holder in store.volume_holders(name).await? {
            reconcile::current(self.home, &holder).await?;
        }
        let lock = self.lock(name).await?;
        self.recover(&lock, name).await?;
        let deleted = store.delete_volume(name, &|| self.put_aside(&lock, name)).await;
        failpoint("volume_deleted");
        // The row decides: with it the files are restored, without it they are deleted.
        let recovered = self.recover(&lock, name).await;
        let found = deleted?;
        recovered?;
        lock.remove_file().await;
        self.sweep_removed().await;
        if found { Ok(()) } else { Err(MicrosandboxError::VolumeNotFound(name.into())) }
    }
}

/// What the row says, without a look at the files.
fn unmeasured(row: VolumeRow) -> VolumeInfo {
    VolumeInfo {
        name: row.name,
        kind: VolumeKind::Directory,
        labels: row.labels,
        owner: row.owner,
        created_at: row.created_at,
        updated_at: row.updated_at,
        ..VolumeInfo::default()
    }
}

impl LocalBackend {
    fn volume_rows(&self) -> Volumes<'_> {
        Volumes { home: &self.home }
    }
}

impl VolumeBackend for LocalBackend {
    fn create(&self, config: VolumeConfig) -> Operation<'_, VolumeInfo> {
        let (home, for_undo) = (self.home.clone(), self.home.clone());
        let create = |_cut| async move { Volumes { home: &home }.create(config).await };
        let remove = move |made: VolumeInfo| {
            let home = for_undo.clone();
            async move {
                if let Err(error) = (Volumes { home: &home }).take_back(&made).await {
                    tracing::warn!(volume = made.name, %error, "a volume whose caller is gone could not be removed");
                }
            }
            .boxed()
        };
        Box::pin(undo::whole(create, remove))
    }
    fn take_back<'a>(&'a self, made: &'a VolumeInfo) -> Operation<'a, ()> {
        Box::pin(async move { self.volume_rows().take_back(made).await })
    }
    fn get<'a>(&'a self, name: &'a str) -> Operation<'a, VolumeInfo> {
        Box::pin(async move {
            let volumes = self.volume_rows();
            volumes.info(volumes.row(name).await?).await
        })
    }
    fn list(&self, query: VolumeQuery) -> Operation<'_, Vec<VolumeInfo>> {
        Box::pin(async move { self.volume_rows().list(query).await })
    }
    fn remove<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move { self.volume_rows().remove(name).await })
    }
    fn path(&self, name: &str) -> MicrosandboxResult<PathBuf> {
        validate_stored_name("volume", name)?;
        Ok(self.home.config().volume_path(name))
    }
    fn files<'a>(&'a self, name: &'a str) -> Box<dyn Files + 'a> {
        Box::new(VolumeFiles { volumes: self.volume_rows(), name })
    }
}

/// The files of one volume, resolved by the kernel beneath its root.
struct VolumeFiles<'a> {
    volumes: Volumes<'a>,
    name: &'a str,
}

impl VolumeFiles<'_> {
    fn tree(&self) -> Operation<'_, Tree> {
        Box::pin(self.volumes.files(self.name))
    }
}

impl Files for VolumeFiles<'_> {
    fn lacks(&self, call: &'static str) -> MicrosandboxError {
        MicrosandboxError::unsupported(format!("VolumeFs::{call}"), available_when::VOLUMES)
    }
    fn read_pieces<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.read_stream(path)
    }
    fn read_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        Box::pin(async move { self.tree().await?.read_stream(path).await })
    }
    fn write<'a>(&'a self, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        Box::pin(async move {
            let sink = self.tree().await?.write_stream(path).await?;
            sink.write(data).await?;
            sink.close().await
        })
    }
    fn write_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsWriteSink> {
        Box::pin(async move { self.tree().await?.write_stream(path).await })
    }
    fn list<'a>(&'a self, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        Box::pin(async move { whole_listing(self.list_stream(path).await?, path).await })
    }
    fn list_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsListStream> {
        Box::pin(async move { self.tree().await?.list_stream(path).await })
    }
    fn stat<'a>(&'a self, path: &'a str, _follow: bool) -> Operation<'a, FsMetadata> {
        Box::pin(async move { self.tree().await?.stat("stat", path).await })
    }
    fn mkdir<'a>(&'a self, path: &'a str) -> Operation<'a, ()> {
        Box::pin(async move { self.tree().await?.mkdir(path).await })
    }
    fn remove<'a>(&'a self, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        Box::pin(async move { self.tree().await?.remove(path, recursive).await })
    }
    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        Box::pin(async move { self.tree().await?.copy(from, to).await })
    }
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        Box::pin(async move { self.tree().await?.rename(from, to).await })
    }
    fn exists<'a>(&'a self, path: &'a str) -> Operation<'a, bool> {
        Box::pin(async move {
            match self.tree().await?.stat("exists", path).await {
                Ok(_) => Ok(true),
                Err(MicrosandboxError::PathNotFound { .. }) => Ok(false),
                Err(MicrosandboxError::Filesystem { errno: Some(libc::ENOTDIR), .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }
}
