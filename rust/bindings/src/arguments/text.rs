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

/// Text that is bytes inside: its lone surrogates are bytes that are not UTF-8 (PEP 383), as `os.fsdecode` makes them.
fn of_bytes(text: &Bound<'_, PyString>) -> PyResult<String> {
    if let Ok(plain) = text.to_str() {
        return Ok(names::to_text(plain.as_bytes()).into_owned());
    }
    let bytes = text.call_method1("encode", ("utf-8", "surrogateescape"))?;
    Ok(names::to_text(bytes.cast::<PyBytes>()?.as_bytes()).into_owned())
}

/// The same, of any object.
fn word(object: &Bound<'_, PyAny>) -> PyResult<String> {
    match object.cast::<PyString>() {
        Ok(text) => of_bytes(text),
        Err(_) => refuse(object, "str"),
    }
}

newtype!(
    /// A path inside.
    GuestPath(String) = word
);

newtype!(
    /// A program, an argument, a directory or a user of a program: bytes to the kernel.
    Word(String) = word
);

/// A path of this machine, from the working directory of this moment on; it is looked at again when the sandbox starts.
pub fn from_here(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// A path or another word from inside, the other way.
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

fn each<T>(object: &Bound<'_, PyAny>, read: fn(&Bound<'_, PyString>) -> PyResult<T>) -> PyResult<Vec<T>> {
    if !object.is_instance_of::<PyList>() && !object.is_instance_of::<PyTuple>() {
        return refuse(object, "a list of strings");
    }
    let read_one = |item: PyResult<Bound<'_, PyAny>>| match item?.cast::<PyString>() {
        Ok(text) => read(text),
        Err(_) => Err(PyTypeError::new_err("{} must be a list of strings")),
    };
    object.try_iter()?.map(read_one).collect()
}

newtype!(
    /// A list or tuple of `str`.
    Texts(Vec<String>) = |object| each(object, |text| text.extract())
);

newtype!(
    /// A list or tuple of what [`Word`] is one of.
    Words(Vec<String>) = |object| each(object, of_bytes)
);

fn pairs(
    object: &Bound<'_, PyAny>,
    read: fn(&Bound<'_, PyString>) -> PyResult<String>,
) -> PyResult<BTreeMap<String, String>> {
    let Ok(mapping) = object.cast::<PyMapping>() else { return refuse(object, "a mapping of str to str") };
    let read_one = |item: Bound<'_, PyAny>| {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        match (key.cast::<PyString>(), value.cast::<PyString>()) {
            (Ok(key), Ok(value)) => Ok((read(key)?, read(value)?)),
            _ => Err(PyTypeError::new_err("{} must be a mapping of str to str")),
        }
    };
    mapping.items()?.iter().map(read_one).collect()
}

newtype!(
    /// A mapping of `str` to `str`.
    StrMap(BTreeMap<String, String>) = |object| pairs(object, |text| text.extract())
);

newtype!(
    /// The same of what [`Word`] is one of.
    WordMap(BTreeMap<String, String>) = |object| pairs(object, of_bytes)
);

newtype!(
    /// Environment variables.
    Env(BTreeMap<String, String>) = |object| {
        let WordMap(map) = object.extract()?;
        for (key, value) in &map {
            if key.is_empty() || key.contains('=') || key.contains('\0') || value.contains('\0') {
                let text = format!("{{}}: {key:?} cannot be set; a name is not empty and has no '=', neither side has a null byte");
                return Err(invalid_config(object.py(), text));
            }
        }
        Ok(map)
    }
);
