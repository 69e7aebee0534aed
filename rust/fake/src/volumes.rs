//! Volumes in memory: a file tree each. Mounts of them are refused: the programs here know one tree only.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::Utc;
use futures::stream;

use super::files::{FileTree, one_page};
use super::sink::Sink;
use super::{MemoryBackend, lock};
use microsandbox_core::backend::{Files, Operation, VolumeBackend, available_when};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{
    FsEntry, FsListStream, FsMetadata, FsReadStream, FsWriteSink, VolumeConfig, VolumeInfo, VolumeKind, VolumeQuery,
    validate_stored_name,
};

/// All of them, by name.
#[derive(Default)]
pub struct Volumes(BTreeMap<String, (VolumeInfo, FileTree)>);

impl MemoryBackend {
    fn volume<T>(
        &self,
        operation: &str,
        name: &str,
        work: impl FnOnce(&mut (VolumeInfo, FileTree)) -> MicrosandboxResult<T>,
    ) -> MicrosandboxResult<T> {
        self.fault(operation)?;
        validate_stored_name("volume", name)?;
        let mut volumes = lock(&self.shared.volumes);
        match volumes.0.get_mut(name) {
            Some(volume) => work(volume),
            None => Err(MicrosandboxError::VolumeNotFound(name.into())),
        }
    }
}

/// The files of one volume in memory.
struct MemoryVolume {
    backend: MemoryBackend,
    name: String,
}

impl MemoryVolume {
    fn in_tree<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        path: &'a str,
        work: impl FnOnce(&mut FileTree, &str) -> MicrosandboxResult<T> + Send + 'a,
    ) -> Operation<'a, T> {
        Box::pin(async move {
            let path = absolute(operation, path)?;
            self.backend.volume(operation, &self.name, |(_, files)| work(files, &path))
        })
    }
}

fn described((info, files): &(VolumeInfo, FileTree)) -> VolumeInfo {
    VolumeInfo { used_bytes: files.size(), ..info.clone() }
}

/// A path of the tree; above its root is an escape here as everywhere.
fn absolute(operation: &str, path: &str) -> MicrosandboxResult<String> {
    let mut depth = 0i32;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Err(MicrosandboxError::Filesystem {
                operation: operation.trim_start_matches("volume_").into(),
                path: path.into(),
                kind: "PathEscapes".into(),
                errno: Some(libc::EXDEV),
                message: "the path leads out of the volume, or in circles".into(),
            });
        }
    }
    Ok(super::files::normalise(path))
}

/// As errors and listings name it.
fn relative(path: String) -> String {
    path.trim_start_matches('/').to_owned()
}

impl VolumeBackend for MemoryBackend {
    fn create(&self, config: VolumeConfig) -> Operation<'_, VolumeInfo> {
        Box::pin(async move {
            self.fault("volume_create")?;
            validate_stored_name("volume", &config.name)?;
            microsandbox_core::validate::label_keys(&config.labels)?;
            if config.kind == VolumeKind::Disk || config.capacity_mib.is_some() {
                return Err(MicrosandboxError::unsupported("Volume::create(kind=DISK)", available_when::DISK_VOLUMES));
            }
            if config.quota_mib.is_some() {
                return Err(MicrosandboxError::unsupported("Volume::create(quota_mib=)", available_when::QUOTAS));
            }
            let mut volumes = lock(&self.shared.volumes);
            if volumes.0.contains_key(&config.name) {
                return Err(MicrosandboxError::VolumeAlreadyExists(config.name));
            }
            let now = Some(Utc::now());
            let info = VolumeInfo {
                name: config.name.clone(),
                labels: config.labels,
                owner: config.owner,
                created_at: now,
                updated_at: now,
                ..VolumeInfo::default()
            };
            volumes.0.insert(config.name, (info.clone(), FileTree::empty()));
            Ok(info)
        })
    }
    fn get<'a>(&'a self, name: &'a str) -> Operation<'a, VolumeInfo> {
        Box::pin(async move { self.volume("volume_get", name, |volume| Ok(described(volume))) })
    }
    fn list(&self, query: VolumeQuery) -> Operation<'_, Vec<VolumeInfo>> {
        Box::pin(async move {
            self.fault("volume_list")?;
            let is_wanted = |volume: &VolumeInfo| {
                query.owners.include(volume.owner.as_deref())
                    && query.name.as_ref().is_none_or(|name| *name == volume.name)
            };
            Ok(lock(&self.shared.volumes).0.values().map(described).filter(is_wanted).collect())
        })
    }
    fn remove<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move {
            self.volume("volume_remove", name, |_| Ok(()))?;
            lock(&self.shared.volumes).0.remove(name);
            Ok(())
        })
    }
    fn files<'a>(&'a self, name: &'a str) -> Box<dyn Files + 'a> {
        Box::new(MemoryVolume { backend: self.clone(), name: name.to_owned() })
    }
}

impl Files for MemoryVolume {
    fn lacks(&self, call: &'static str) -> MicrosandboxError {
        MicrosandboxError::unsupported(format!("VolumeFs::{call}"), available_when::VOLUMES)
    }
    fn read_pieces<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.in_tree("volume_read", path, |files, path| {
            let data = files.read(path)?;
            let pieces = (!data.is_empty()).then_some(Ok(data));
            let stream: FsReadStream = Box::pin(stream::iter(pieces));
            Ok(stream)
        })
    }
    fn read_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.read_pieces(path)
    }
    fn write<'a>(&'a self, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        self.in_tree("volume_write", path, |files, path| files.write(path, data, None))
    }
    fn write_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsWriteSink> {
        Box::pin(async move {
            self.backend.volume("volume_write", &self.name, |_| Ok(()))?;
            let (backend, name) = (self.backend.clone(), self.name.clone());
            let sink: FsWriteSink = Box::new(Sink::new(path, move |path, data| {
                let volume = MemoryVolume { backend: backend.clone(), name: name.clone() };
                Box::pin(async move { volume.write(&path, data).await })
            }));
            Ok(sink)
        })
    }
    fn list<'a>(&'a self, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        self.in_tree("volume_list", path, |files, path| {
            let entries = files.list(path)?.into_iter();
            Ok(entries.map(|entry| FsEntry { path: relative(entry.path), ..entry }).collect())
        })
    }
    fn list_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsListStream> {
        Box::pin(async move { self.list(path).await.map(one_page) })
    }
    fn stat<'a>(&'a self, path: &'a str, _follow: bool) -> Operation<'a, FsMetadata> {
        self.in_tree("volume_stat", path, |files, path| files.stat("stat", path))
    }
    fn mkdir<'a>(&'a self, path: &'a str) -> Operation<'a, ()> {
        self.in_tree("volume_mkdir", path, |files, path| files.mkdir(path))
    }
    fn remove<'a>(&'a self, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        self.in_tree("volume_remove", path, move |files, path| files.remove(path, recursive))
    }
    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.in_tree("volume_copy", from, |files, from| files.copy(from, &absolute("copy", to)?))
    }
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.in_tree("volume_rename", from, |files, from| files.rename(from, &absolute("rename", to)?))
    }
    fn exists<'a>(&'a self, path: &'a str) -> Operation<'a, bool> {
        self.in_tree("volume_exists", path, |files, path| match files.stat("exists", path) {
            Ok(_) => Ok(true),
            Err(MicrosandboxError::PathNotFound { .. }) => Ok(false),
            Err(MicrosandboxError::Filesystem { errno: Some(libc::ENOTDIR), .. }) => Ok(false),
            Err(error) => Err(error),
        })
    }
}
