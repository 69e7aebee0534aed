//! Volumes in memory: a file tree each. Mounts of them are refused: the programs here know one tree only.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::Utc;
use futures::stream;

use super::files::Files;
use super::sink::Sink;
use super::{MemoryBackend, lock};
use crate::backend::{Operation, SharedBackend, VolumeBackend, available_when};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{
    FsEntry, FsMetadata, FsReadStream, FsWriteSink, VolumeConfig, VolumeInfo, VolumeKind, validate_volume_name,
};

/// All of them, by name.
#[derive(Default)]
pub struct Volumes(BTreeMap<String, (VolumeInfo, Files)>);

impl MemoryBackend {
    fn volume<T>(
        &self,
        operation: &str,
        name: &str,
        work: impl FnOnce(&mut (VolumeInfo, Files)) -> MicrosandboxResult<T>,
    ) -> MicrosandboxResult<T> {
        self.fault(operation)?;
        validate_volume_name(name)?;
        let mut volumes = lock(&self.shared.volumes);
        match volumes.0.get_mut(name) {
            Some(volume) => work(volume),
            None => Err(MicrosandboxError::VolumeNotFound(name.into())),
        }
    }

    fn in_files<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        name: &'a str,
        path: &'a str,
        work: impl FnOnce(&mut Files, &str) -> MicrosandboxResult<T> + Send + 'a,
    ) -> Operation<'a, T> {
        Box::pin(async move {
            let path = absolute(operation, path)?;
            self.volume(operation, name, |(_, files)| work(files, &path))
        })
    }
}

fn described((info, files): &(VolumeInfo, Files)) -> VolumeInfo {
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
    fn create<'a>(&'a self, _backend: &'a SharedBackend, config: VolumeConfig) -> Operation<'a, VolumeInfo> {
        Box::pin(async move {
            self.fault("volume_create")?;
            validate_volume_name(&config.name)?;
            crate::backend::local::validate::label_keys(&config.labels)?;
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
                created_at: now,
                updated_at: now,
                ..VolumeInfo::default()
            };
            volumes.0.insert(config.name, (info.clone(), Files::empty()));
            Ok(info)
        })
    }
    fn get<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, VolumeInfo> {
        Box::pin(async move { self.volume("volume_get", name, |volume| Ok(described(volume))) })
    }
    fn list<'a>(&'a self, _backend: &'a SharedBackend) -> Operation<'a, Vec<VolumeInfo>> {
        Box::pin(async move {
            self.fault("volume_list")?;
            Ok(lock(&self.shared.volumes).0.values().map(described).collect())
        })
    }
    fn remove<'a>(&'a self, _backend: &'a SharedBackend, name: &'a str) -> Operation<'a, ()> {
        Box::pin(async move {
            self.volume("volume_remove", name, |_| Ok(()))?;
            lock(&self.shared.volumes).0.remove(name);
            Ok(())
        })
    }

    fn fs_read<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Bytes> {
        self.in_files("volume_read", name, path, |files, path| files.read(path))
    }
    fn fs_read_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsReadStream> {
        Box::pin(async move {
            let data = VolumeBackend::fs_read(self, name, path).await?;
            let pieces = (!data.is_empty()).then_some(Ok(data));
            let stream: FsReadStream = Box::pin(stream::iter(pieces));
            Ok(stream)
        })
    }
    fn fs_write<'a>(&'a self, name: &'a str, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        self.in_files("volume_write", name, path, |files, path| files.write(path, data, None))
    }
    fn fs_write_stream<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsWriteSink> {
        Box::pin(async move {
            self.volume("volume_write", name, |_| Ok(()))?;
            let (backend, name) = (self.clone(), name.to_owned());
            let sink: FsWriteSink = Box::new(Sink::new(path, move |path, data| {
                let (backend, name) = (backend.clone(), name.clone());
                Box::pin(async move { VolumeBackend::fs_write(&backend, &name, &path, data).await })
            }));
            Ok(sink)
        })
    }
    fn fs_list<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        self.in_files("volume_list", name, path, |files, path| {
            let entries = files.list(path)?.into_iter();
            Ok(entries.map(|entry| FsEntry { path: relative(entry.path), ..entry }).collect())
        })
    }
    fn fs_stat<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, FsMetadata> {
        self.in_files("volume_stat", name, path, |files, path| files.stat("stat", path))
    }
    fn fs_mkdir<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, ()> {
        self.in_files("volume_mkdir", name, path, |files, path| files.mkdir(path))
    }
    fn fs_remove<'a>(&'a self, name: &'a str, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        self.in_files("volume_remove", name, path, move |files, path| files.remove(path, recursive))
    }
    fn fs_copy<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.in_files("volume_copy", name, from, |files, from| files.copy(from, &absolute("copy", to)?))
    }
    fn fs_rename<'a>(&'a self, name: &'a str, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.in_files("volume_rename", name, from, |files, from| files.rename(from, &absolute("rename", to)?))
    }
    fn fs_exists<'a>(&'a self, name: &'a str, path: &'a str) -> Operation<'a, bool> {
        self.in_files("volume_exists", name, path, |files, path| match files.stat("exists", path) {
            Ok(_) => Ok(true),
            Err(MicrosandboxError::PathNotFound { .. }) => Ok(false),
            Err(MicrosandboxError::Filesystem { errno: Some(libc::ENOTDIR), .. }) => Ok(false),
            Err(error) => Err(error),
        })
    }
}
