//! What `create` takes for registries: checked, then refused by name.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList};

use crate::arguments::{Location, dataclass, newtype, refuse};

newtype!(
    /// Credentials, checked.
    RegistryAuth(()) = |object| dataclass(object, "RegistryAuth")
);

newtype!(
    /// PEM bytes or readable files.
    CaCerts(usize) = |object| {
        let Ok(items) = object.cast::<PyList>() else { return refuse(object, "a list of PEM bytes or paths") };
        for (index, item) in items.iter().enumerate() {
            if item.is_instance_of::<PyBytes>() || item.is_instance_of::<PyByteArray>() {
                continue;
            }
            let Ok(Location(path)) = item.extract::<Location>() else {
                return Err(PyTypeError::new_err(format!("{{}}[{index}] must be PEM bytes or a path")));
            };
            std::fs::File::open(&path)
                .map_err(|e| PyErr::from(std::io::Error::new(e.kind(), format!("{}: {e}", path.display()))))?;
        }
        Ok(items.len())
    }
);
