//! What `create` takes for the network. No backend of this build has one: values are checked, then refused by name.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyMapping, PyString};

use crate::arguments::{count_of, dataclass, integer, newtype};

/// Ports, or vsock routes: a mapping of simple values, or a sequence of dataclasses.
fn routes(object: &Bound<'_, PyAny>, class: &str, key: fn(&Bound<'_, PyAny>) -> bool) -> PyResult<usize> {
    let Ok(mapping) = object.cast::<PyMapping>() else { return count_of(object, class) };
    for item in mapping.items()?.iter() {
        let (from, to): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        if !key(&from) || to.is_instance_of::<PyBool>() || !to.is_instance_of::<PyInt>() {
            return Err(PyTypeError::new_err(format!("{{}} must be a mapping to int, or a sequence of {class}")));
        }
        integer(&to, "an int", 1, if class == "PortBinding" { 65535 } else { i64::from(u32::MAX) })?;
    }
    mapping.len()
}

newtype!(
    Ports(usize) = |object| routes(object, "PortBinding", |key| {
        !key.is_instance_of::<PyBool>() && key.extract::<u16>().is_ok()
    })
);
newtype!(Vsock(usize) = |object| routes(object, "VsockRoute", |key| key.is_instance_of::<PyString>()));

newtype!(
    /// What the network was asked to be; `true` when it asks for nothing beyond "no traffic".
    NetworkArg(bool) = |object| {
        dataclass(object, "Network")?;
        object.call_method0("_is_none")?.extract()
    }
);
