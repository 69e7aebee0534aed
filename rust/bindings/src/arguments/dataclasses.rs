//! The configuration dataclasses of the package.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::{refuse, types};

/// Refuses what is not an instance of the dataclass `class`, then lets it check its own fields.
pub fn dataclass(object: &Bound<'_, PyAny>, class: &str) -> PyResult<()> {
    let kind = types(object.py())?.getattr(class)?;
    if !object.is_instance(&kind)? {
        return refuse(object, class);
    }
    if object.hasattr("_to_dict")? {
        object.call_method0("_to_dict")?;
    }
    Ok(())
}

/// How many items an iterable of `class` holds, each checked.
pub fn count_of(object: &Bound<'_, PyAny>, class: &str) -> PyResult<usize> {
    items_of(object, class).map(|items| items.len())
}

/// The items of an iterable of `class`, each checked.
pub fn items_of<'py>(object: &Bound<'py, PyAny>, class: &str) -> PyResult<Vec<Bound<'py, PyAny>>> {
    if object.is_instance_of::<PyString>() || object.is_instance_of::<PyDict>() {
        return refuse(object, &format!("a sequence of {class}"));
    }
    let Ok(items) = object.try_iter() else { return refuse(object, &format!("a sequence of {class}")) };
    items
        .map(|item| {
            let item = item?;
            dataclass(&item, class)?;
            Ok(item)
        })
        .collect()
}
