//! What separates a sandbox from its host, as data.

use microsandbox_core::model;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::backend::{NativeBackend, chosen};
use crate::convert;
use crate::runtime::Pending;

/// The member, or `None` where the backend does not know.
pub fn isolation_member(py: Python<'_>, value: Option<model::Isolation>) -> PyResult<Option<Bound<'_, PyAny>>> {
    value.map(|value| convert::member(py, "Isolation", value.as_str())).transpose()
}

fn state_member(py: Python<'_>, state: model::MechanismState) -> PyResult<Bound<'_, PyAny>> {
    let value = match state {
        model::MechanismState::On => "on",
        model::MechanismState::Off => "off",
        model::MechanismState::Degraded => "degraded",
    };
    convert::member(py, "MechanismState", value)
}

/// Becomes the dataclass of the same name.
pub struct IsolationReport(pub model::IsolationReport);

impl<'py> IntoPyObject<'py> for IsolationReport {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let types = convert::types(py)?;
        let mechanism = types.getattr("Mechanism")?;
        let mechanisms = pyo3::types::PyTuple::new(
            py,
            self.0
                .mechanisms
                .into_iter()
                .map(|m| mechanism.call1((m.name, state_member(py, m.state)?, m.reason)))
                .collect::<PyResult<Vec<_>>>()?,
        )?;
        types.getattr("IsolationReport")?.call1((self.0.driver, self.0.accelerator, mechanisms))
    }
}

/// Becomes the dataclass of the same name.
pub struct DoctorReport(model::DoctorReport);

impl<'py> IntoPyObject<'py> for DoctorReport {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let types = convert::types(py)?;
        let check = types.getattr("DoctorCheck")?;
        let checks = self
            .0
            .checks
            .into_iter()
            .map(|c| check.call1((c.name, state_member(py, c.state)?, c.detail, c.hint)))
            .collect::<PyResult<Vec<_>>>()?;
        let fields = PyDict::new(py);
        fields.set_item("isolation", isolation_member(py, Some(self.0.isolation))?)?;
        fields.set_item("reason", self.0.reason)?;
        fields.set_item("hint", self.0.hint)?;
        fields.set_item("checks", pyo3::types::PyTuple::new(py, checks)?)?;
        types.getattr("DoctorReport")?.call((), Some(&fields))
    }
}

#[pyfunction]
#[pyo3(signature = (recheck, backend=None))]
pub fn doctor(py: Python<'_>, recheck: bool, backend: Option<&Bound<'_, NativeBackend>>) -> PyResult<Pending> {
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move { backend.images().doctor(recheck).await.map(DoctorReport) }))
}
