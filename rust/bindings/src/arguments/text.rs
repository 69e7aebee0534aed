//! Text, paths and bytes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use microsandbox_core::names;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMapping, PyMemoryView, PyString, PyTuple};

use super::{newtype, refuse};
use crate::errors::invalid_config;

newtype!(
    /// A `str`, nothing that merely converts to one.
    Text(String) = |object| match object.cast::<PyString>() {
        Ok(text) => text.extract(),
        Err(_) => refuse(object, "str"),
    }
);

newtype!(
    /// A path inside: `str`, whose lone surrogates are bytes that are not UTF-8 (PEP 383), as `os.fsdecode` makes them.
    GuestPath(String) = |object| {
        let Ok(text) = object.cast::<PyString>() else { return refuse(object, "str") };
        if let Ok(plain) = text.to_str() {
            return Ok(names::to_text(plain.as_bytes()).into_owned());
        }
        let bytes = text.call_method1("encode", ("utf-8", "surrogateescape"))?;
        Ok(names::to_text(bytes.cast::<PyBytes>()?.as_bytes()).into_owned())
    }
);

/// A path of this machine, from the working directory of this moment on; it is looked at again when the sandbox starts.
pub fn from_here(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// A path from inside, the other way.
pub fn guest_path<'py>(py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyAny>> {
    if !names::is_escaped(path) {
        return Ok(PyString::new(py, path).into_any());
    }
    PyBytes::new(py, &names::to_bytes(path)).call_method1("decode", ("utf-8", "surrogateescape"))
}

newtype!(
    /// `bytes`, or what exposes a buffer of them.
    Data(Bytes) = |object| {
        if object.is_instance_of::<PyBytes>() || object.is_instance_of::<PyByteArray>() {
            return Ok(Bytes::from_owner(object.extract::<PyBackedBytes>()?));
        }
        if object.is_instance_of::<PyMemoryView>() {
            let copy = object.call_method0("tobytes")?;
            return Ok(Bytes::from_owner(copy.extract::<PyBackedBytes>()?));
        }
        refuse(object, "bytes")
    }
);

newtype!(
    /// `str` or `os.PathLike`.
    Location(PathBuf) = |object| {
        if !object.is_instance_of::<PyString>() && !object.hasattr("__fspath__")? {
            return refuse(object, "str or os.PathLike");
        }
        let path: PathBuf = object.extract()?;
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(PyValueError::new_err("{} must not contain a null byte"));
        }
        Ok(path)
    }
);

newtype!(
    /// A list or tuple of `str`.
    Texts(Vec<String>) = |object| {
        if !object.is_instance_of::<PyList>() && !object.is_instance_of::<PyTuple>() {
            return refuse(object, "a list of strings");
        }
        object.try_iter()?.map(|item| match item?.cast::<PyString>() {
            Ok(text) => text.extract(),
            Err(_) => Err(PyTypeError::new_err("{} must be a list of strings")),
        }).collect()
    }
);

newtype!(
    /// A mapping of `str` to `str`.
    StrMap(BTreeMap<String, String>) = |object| {
        let Ok(mapping) = object.cast::<PyMapping>() else { return refuse(object, "a mapping of str to str") };
        mapping.items()?.iter().map(|item| {
            let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            match (key.cast::<PyString>(), value.cast::<PyString>()) {
                (Ok(key), Ok(value)) => Ok((key.extract()?, value.extract()?)),
                _ => Err(PyTypeError::new_err("{} must be a mapping of str to str")),
            }
        }).collect()
    }
);

newtype!(
    /// Environment variables.
    Env(BTreeMap<String, String>) = |object| {
        let StrMap(map) = object.extract()?;
        for (key, value) in &map {
            if key.is_empty() || key.contains('=') || key.contains('\0') || value.contains('\0') {
                let text = format!("{{}}: {key:?} cannot be set; a name is not empty and has no '=', neither side has a null byte");
                return Err(invalid_config(object.py(), text));
            }
        }
        Ok(map)
    }
);
