//! Named volumes.

use std::sync::Arc;

use futures::FutureExt as _;
use microsandbox_core::SharedBackend;
use microsandbox_core::api::VolumeFs;
use microsandbox_core::backend::take_back_volume;
use microsandbox_core::model::{self, VolumeConfig, VolumeQuery};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arguments::{self, Count, Data, GuestPath, StrMap, Text, argument, optional};
use crate::backend::{NativeBackend, chosen};
use crate::content::{Content, TextContent};
use crate::enums::Member;
use crate::files::{FsEntry, FsMetadata, NativeListStream, NativeReadStream, NativeWriteSink, bound};
use crate::made;
use crate::runtime::{Owned, Pending};
use crate::values;

type Given<'a, 'py> = Option<&'a Bound<'py, NativeBackend>>;

/// What is known of a volume, and the backend it came from.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeVolume {
    backend: Owned<SharedBackend>,
    info: model::VolumeInfo,
}

impl NativeVolume {
    fn new(backend: &SharedBackend, info: model::VolumeInfo) -> Self {
        NativeVolume { backend: Owned::new(backend.clone()), info }
    }
}

#[pymethods]
impl NativeVolume {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    #[getter]
    fn is_default(&self) -> bool {
        self.info.is_default
    }
    #[getter]
    fn used_bytes(&self) -> u64 {
        self.info.used_bytes
    }
    #[getter]
    fn capacity_bytes(&self) -> Option<u64> {
        self.info.capacity_bytes
    }
    #[getter]
    fn disk_format(&self) -> Option<&str> {
        self.info.disk_format.as_deref()
    }
    #[getter]
    fn disk_fstype(&self) -> Option<&str> {
        self.info.disk_fstype.as_deref()
    }
    /// Milliseconds since the epoch.
    #[getter]
    fn created_at(&self) -> Option<f64> {
        self.info.created_at.map(|time| time.timestamp_micros() as f64 / 1000.0)
    }
    /// The directory on this machine.
    fn path(&self, py: Python<'_>) -> PyResult<std::path::PathBuf> {
        let path = self.backend.get(py)?.volumes().path(&self.info.name);
        path.map_err(|error| crate::errors::to_python(py, error))
    }
    #[getter]
    fn fs(&self, py: Python<'_>) -> PyResult<NativeVolumeFs> {
        Ok(NativeVolumeFs { backend: Owned::new(self.backend.get(py)?.clone()), name: self.info.name.as_str().into() })
    }
    fn remove(&self, py: Python<'_>) -> PyResult<Pending> {
        let (backend, name) = (self.backend.get(py)?.clone(), self.info.name.clone());
        Ok(Pending::unattended(async move { backend.volumes().remove(&name).await }))
    }
    #[getter]
    fn name(&self) -> &str {
        &self.info.name
    }
    #[getter]
    fn kind(&self) -> Member<model::VolumeKind> {
        Member(self.info.kind)
    }
    #[getter]
    fn quota_mib(&self) -> Option<u64> {
        self.info.quota_mib
    }
    #[getter]
    fn labels(&self) -> std::collections::BTreeMap<String, String> {
        self.info.labels.clone()
    }
}

#[pyfunction]
#[pyo3(signature = (name, kind, size_mib, quota_mib, labels, backend=None))]
pub fn volume_create(
    py: Python<'_>,
    name: &Bound<'_, PyAny>,
    kind: &Bound<'_, PyAny>,
    size_mib: &Bound<'_, PyAny>,
    quota_mib: &Bound<'_, PyAny>,
    labels: &Bound<'_, PyAny>,
    backend: Given<'_, '_>,
) -> PyResult<Pending> {
    let Member(kind) = argument::<Member<model::VolumeKind>>(kind, "kind")?;
    let disk = kind == model::VolumeKind::Disk;
    let config = VolumeConfig {
        name: argument::<Text>(name, "name")?.0,
        kind,
        quota_mib: optional::<Count>(quota_mib, "quota_mib")?.map(|count| count.0),
        capacity_mib: optional::<Count>(size_mib, "size_mib")?.map(|count| count.0),
        labels: optional::<StrMap>(labels, "labels")?.map(|map| map.0).unwrap_or_default(),
        owner: None,
    };
    if disk && config.capacity_mib.is_none_or(|size| size == 0) {
        return Err(PyValueError::new_err("a disk volume needs a positive size_mib"));
    }
    if disk && config.quota_mib.is_some() {
        return Err(PyValueError::new_err("quota_mib is for directory volumes; a disk has its size_mib"));
    }
    if !disk && config.capacity_mib.is_some() {
        return Err(PyValueError::new_err("size_mib is for disk volumes; a directory has a quota_mib"));
    }
    let backend = chosen(py, backend)?;
    Ok(made::call(async move {
        model::validate_volume_name(&config.name)?;
        let info = backend.volumes().create(config).await?;
        let volume = NativeVolume::new(&backend, info.clone());
        let undo = async move { take_back_volume(backend.volumes(), &info).await };
        Ok((volume, undo.boxed()))
    }))
}

#[pyfunction]
#[pyo3(signature = (name, backend=None))]
pub fn volume_get(py: Python<'_>, name: &Bound<'_, PyAny>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let info = backend.volumes().get(&name).await?;
        Ok(NativeVolume::new(&backend, info))
    }))
}

#[pyfunction]
#[pyo3(signature = (backend=None))]
pub fn volume_list(py: Python<'_>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let infos = backend.volumes().list(VolumeQuery::default()).await?;
        Ok(infos.into_iter().map(|info| NativeVolume::new(&backend, info)).collect::<Vec<_>>())
    }))
}

#[pyfunction]
#[pyo3(signature = (name, backend=None))]
pub fn volume_remove(py: Python<'_>, name: &Bound<'_, PyAny>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    Ok(Pending::unattended(async move { backend.volumes().remove(&name).await }))
}

#[pyfunction]
#[pyo3(signature = (backend=None))]
pub fn volume_get_default(py: Python<'_>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let info = backend.volumes().get_default().await?;
        Ok(NativeVolume::new(&backend, info))
    }))
}

/// Files of one volume: its backend and its name.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeVolumeFs {
    backend: Owned<SharedBackend>,
    name: Arc<str>,
}

impl NativeVolumeFs {
    fn target(&self, py: Python<'_>) -> PyResult<(SharedBackend, Arc<str>)> {
        Ok((self.backend.get(py)?.clone(), self.name.clone()))
    }
}

fn inside(object: &Bound<'_, PyAny>, name: &str) -> PyResult<String> {
    Ok(argument::<GuestPath>(object, name)?.0)
}

#[pymethods]
impl NativeVolumeFs {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    fn read(&self, py: Python<'_>, path: &Bound<'_, PyAny>, most: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path, most) = (self.target(py)?, inside(path, "path")?, bound(most)?);
        Ok(Pending::new(async move {
            let files = VolumeFs::with_backend(&backend, &name);
            Content::gather(&mut files.read_pieces(&path).await?, &path, most).await
        }))
    }
    fn read_text(&self, py: Python<'_>, path: &Bound<'_, PyAny>, most: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path, most) = (self.target(py)?, inside(path, "path")?, bound(most)?);
        Ok(Pending::new(async move {
            let files = VolumeFs::with_backend(&backend, &name);
            let content = Content::gather(&mut files.read_pieces(&path).await?, &path, most).await?;
            Ok(TextContent { content, path, allowed: most.is_some() })
        }))
    }
    fn read_stream(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            let stream = VolumeFs::with_backend(&backend, &name).read_stream(&path).await?;
            Ok(NativeReadStream::new(stream, path))
        }))
    }
    fn write(&self, py: Python<'_>, path: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        let Data(data) = data.extract().map_err(|e| arguments::named(py, "data", e))?;
        Ok(Pending::new(async move { VolumeFs::with_backend(&backend, &name).write(&path, data).await }))
    }
    fn write_stream(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            VolumeFs::with_backend(&backend, &name).write_stream(&path).await.map(NativeWriteSink::new)
        }))
    }
    fn list(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            let entries = VolumeFs::with_backend(&backend, &name).list(&path).await?;
            Ok(entries.into_iter().map(FsEntry::new).collect::<Vec<_>>())
        }))
    }
    fn list_stream(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            VolumeFs::with_backend(&backend, &name).list_stream(&path).await.map(NativeListStream::new)
        }))
    }
    fn stat(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(
            async move { VolumeFs::with_backend(&backend, &name).stat(&path, true).await.map(FsMetadata::new) },
        ))
    }
    fn exists(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move { VolumeFs::with_backend(&backend, &name).exists(&path).await }))
    }
    fn mkdir(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move { VolumeFs::with_backend(&backend, &name).mkdir(&path).await }))
    }
    fn remove_file(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move { VolumeFs::with_backend(&backend, &name).remove(&path, false).await }))
    }
    fn remove_dir(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move { VolumeFs::with_backend(&backend, &name).remove(&path, true).await }))
    }
    fn copy(&self, py: Python<'_>, from_: &Bound<'_, PyAny>, to: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), from, to) = (self.target(py)?, inside(from_, "from_")?, inside(to, "to")?);
        Ok(Pending::new(async move { VolumeFs::with_backend(&backend, &name).copy(&from, &to).await }))
    }
    fn rename(&self, py: Python<'_>, from_: &Bound<'_, PyAny>, to: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), from, to) = (self.target(py)?, inside(from_, "from_")?, inside(to, "to")?);
        Ok(Pending::new(async move { VolumeFs::with_backend(&backend, &name).rename(&from, &to).await }))
    }
}
