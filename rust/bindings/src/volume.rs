//! Named volumes.

use microsandbox_core::model::{self, VolumeConfig};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::backend::{NativeBackend, chosen};
use crate::convert::{self, Count, StrMap, Text};
use crate::runtime::Pending;
use crate::sandbox::{argument, optional};

type Given<'a, 'py> = Option<&'a Bound<'py, NativeBackend>>;

/// A row of the volume table.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeVolume {
    info: model::VolumeInfo,
}

#[pymethods]
impl NativeVolume {
    #[getter]
    fn name(&self) -> &str {
        &self.info.name
    }
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let value = match self.info.kind {
            model::VolumeKind::Directory => "dir",
            model::VolumeKind::Disk => "disk",
        };
        convert::member(py, "VolumeKind", value)
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
    let convert::VolumeKind(kind) = argument(kind, "kind")?;
    let disk = kind == "disk";
    let config = VolumeConfig {
        name: argument::<Text>(name, "name")?.0,
        kind: if disk { model::VolumeKind::Disk } else { model::VolumeKind::Directory },
        quota_mib: optional::<Count>(quota_mib, "quota_mib")?.map(|count| count.0),
        capacity_mib: optional::<Count>(size_mib, "size_mib")?.map(|count| count.0),
        labels: optional::<StrMap>(labels, "labels")?.map(|map| map.0).unwrap_or_default(),
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
    Ok(Pending::new(async move {
        model::validate_volume_name(&config.name)?;
        let info = backend.volumes().create(&backend, config).await?;
        Ok(NativeVolume { info })
    }))
}

#[pyfunction]
#[pyo3(signature = (name, backend=None))]
pub fn volume_get(py: Python<'_>, name: &Bound<'_, PyAny>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let info = backend.volumes().get(&backend, &name).await?;
        Ok(NativeVolume { info })
    }))
}

#[pyfunction]
#[pyo3(signature = (backend=None))]
pub fn volume_list(py: Python<'_>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let infos = backend.volumes().list(&backend).await?;
        Ok(infos.into_iter().map(|info| NativeVolume { info }).collect::<Vec<_>>())
    }))
}

#[pyfunction]
#[pyo3(signature = (name, backend=None))]
pub fn volume_remove(py: Python<'_>, name: &Bound<'_, PyAny>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    Ok(Pending::unattended(async move { backend.volumes().remove(&backend, &name).await }))
}
