//! What separates a sandbox from its host, as data.

use std::path::PathBuf;

use microsandbox_core::{MicrosandboxError, model};
use microsandbox_local::LocalBackend;
use microsandbox_local::guest_kernel;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::arguments;
use crate::backend::{NativeBackend, chosen};
use crate::enums::Member;
use crate::runtime::Pending;

/// Becomes the dataclass of the same name.
pub struct IsolationReport(pub model::IsolationReport);

impl<'py> IntoPyObject<'py> for IsolationReport {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let types = arguments::types(py)?;
        let mechanism = types.getattr("Mechanism")?;
        let mechanisms = PyTuple::new(
            py,
            self.0
                .mechanisms
                .into_iter()
                .map(|m| mechanism.call1((m.name.as_str(), Member(m.state), m.reason)))
                .collect::<PyResult<Vec<_>>>()?,
        )?;
        types.getattr("IsolationReport")?.call1((
            self.0.driver.as_str(),
            self.0.accelerator.map(model::Accelerator::as_str),
            mechanisms,
        ))
    }
}

/// Becomes the dataclass of the same name.
pub struct DoctorReport(model::DoctorReport);

impl<'py> IntoPyObject<'py> for DoctorReport {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let types = arguments::types(py)?;
        let check = types.getattr("DoctorCheck")?;
        let checks = self
            .0
            .checks
            .into_iter()
            .map(|c| check.call1((c.name, Member(c.state), c.detail, c.hint)))
            .collect::<PyResult<Vec<_>>>()?;
        let fields = PyDict::new(py);
        fields.set_item("isolation", Member(self.0.isolation))?;
        fields.set_item("reason", self.0.reason)?;
        fields.set_item("hint", self.0.hint)?;
        fields.set_item("checks", PyTuple::new(py, checks)?)?;
        let rung = types.getattr("LibraryRung")?;
        let rungs = self
            .0
            .libkrunfw
            .into_iter()
            .map(|r| rung.call1((r.rung, r.path, r.found, r.detail)))
            .collect::<PyResult<Vec<_>>>()?;
        fields.set_item("libkrunfw", PyTuple::new(py, rungs)?)?;
        types.getattr("DoctorReport")?.call((), Some(&fields))
    }
}

/// Becomes a tuple of the dataclass of the same name.
pub fn boot_steps<'py>(py: Python<'py>, steps: &[model::BootStep]) -> PyResult<Bound<'py, PyTuple>> {
    let class = arguments::types(py)?.getattr("BootStep")?;
    let side = |step: &model::BootStep| match step.side {
        model::BootSide::Sdk => "sdk",
        model::BootSide::Runtime => "runtime",
    };
    let steps = steps.iter().map(|step| class.call1((side(step), &step.step, step.at_us)));
    PyTuple::new(py, steps.collect::<PyResult<Vec<_>>>()?)
}

/// Names the guest kernel's library for this process.
#[pyfunction]
pub fn set_runtime_libkrunfw_path(path: PathBuf) {
    guest_kernel::set_library_path(path);
}

/// The guest kernel's library that microVMs would use; `None` where there is no usable one.
#[pyfunction]
#[pyo3(signature = (backend=None))]
pub fn resolved_libkrunfw_path(
    py: Python<'_>,
    backend: Option<&Bound<'_, NativeBackend>>,
) -> PyResult<Option<PathBuf>> {
    let backend = chosen(py, backend)?;
    let config = LocalBackend::of(&backend).map(|local| local.config().clone());
    Ok(py.detach(|| Some(guest_kernel::locate(&config?).ok()?.path)))
}

/// Copies it from a file (the library, or a wheel with it) into the home; gives its path there.
#[pyfunction]
#[pyo3(signature = (file, backend=None))]
pub fn install_libkrunfw(
    py: Python<'_>,
    file: PathBuf,
    backend: Option<&Bound<'_, NativeBackend>>,
) -> PyResult<Pending> {
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let Some(local) = LocalBackend::of(&backend) else {
            return Err(MicrosandboxError::unsupported("install_libkrunfw", "sandboxes on this machine only"));
        };
        let installed = guest_kernel::install::from_file(local.config(), &file)?;
        Ok(installed.path.to_string_lossy().into_owned())
    }))
}

#[pyfunction]
#[pyo3(signature = (recheck, backend=None))]
pub fn doctor(py: Python<'_>, recheck: bool, backend: Option<&Bound<'_, NativeBackend>>) -> PyResult<Pending> {
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move { backend.images().doctor(recheck).await.map(DoctorReport) }))
}
