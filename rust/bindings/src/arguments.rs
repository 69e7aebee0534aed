//! Typed arguments: one newtype per kind of value, and `keywords!` for groups of keywords.
//!
//! A refusal names the argument: newtypes write `{}` where the name belongs, and the caller that knows it fills it in.

mod dataclasses;
mod numbers;
mod text;

pub use dataclasses::{count_of, dataclass, items_of};
pub use numbers::{Cells, Count, Cpus, Flag, Integer, Mib, Millis, Seconds, integer, millis};
pub use text::{Data, Env, GuestPath, Location, StrMap, Text, Texts, Word, WordMap, Words, from_here, guest_path};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The module of enums and dataclasses, imported by the first call that needs it.
pub fn types(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static TYPES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    Ok(TYPES.get_or_try_init(py, || py.import("microsandbox.types").map(Bound::unbind))?.bind(py))
}

/// What `type(object).__name__` says.
pub fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "object".into(), |name| name.to_string())
}

pub(crate) fn refuse<T>(object: &Bound<'_, PyAny>, expected: &str) -> PyResult<T> {
    Err(PyTypeError::new_err(format!("{{}} must be {expected}, not {}", type_name(object))))
}

/// Fills in the argument's name.
pub fn named(py: Python<'_>, name: &str, error: PyErr) -> PyErr {
    let text = error.value(py).to_string();
    if !text.contains("{}") {
        return error;
    }
    let text = text.replacen("{}", name, 1);
    if error.is_instance_of::<PyTypeError>(py) {
        return PyTypeError::new_err(text);
    }
    match error.value(py).get_type().call1((text,)) {
        Ok(error) => PyErr::from_value(error),
        Err(failure) => failure,
    }
}

/// Reads an argument and names it in the refusal.
pub fn argument<'py, T>(object: &Bound<'py, PyAny>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    object.extract::<T>().map_err(|e| named(object.py(), name, e))
}

/// As [`argument`], where `None` means absent.
pub fn optional<'py, T>(object: &Bound<'py, PyAny>, name: &str) -> PyResult<Option<T>>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    if object.is_none() { Ok(None) } else { argument(object, name).map(Some) }
}

/// Declares a struct of keywords taken from the mapping that the Python layer passes: `None` and absent are the same,
/// and a key that is not listed is refused.
macro_rules! keywords {
    ($(#[$meta:meta])* pub struct $name:ident { $($field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Default)]
        pub struct $name { $(pub $field: Option<$kind>,)* }

        impl<'a, 'py> pyo3::FromPyObject<'a, 'py> for $name {
            type Error = pyo3::PyErr;
            fn extract(object: pyo3::Borrowed<'a, 'py, pyo3::PyAny>) -> pyo3::PyResult<Self> {
                use pyo3::types::{PyDictMethods, PyAnyMethods};
                let given = object.cast::<pyo3::types::PyDict>()?;
                let mut taken = $name::default();
                for (key, value) in given.iter() {
                    let key: String = key.extract()?;
                    match key.as_str() {
                        $(stringify!($field) => if !value.is_none() {
                            let value = value.extract::<$kind>();
                            taken.$field =
                                Some(value.map_err(|e| $crate::arguments::named(object.py(), stringify!($field), e.into()))?);
                        })*
                        other => return Err(pyo3::exceptions::PyTypeError::new_err(
                            format!("unexpected keyword argument '{other}'"),
                        )),
                    }
                }
                Ok(taken)
            }
        }
    };
}
pub(crate) use keywords;

/// Declares a newtype with a function that reads it.
macro_rules! newtype {
    ($(#[$meta:meta])* $name:ident($inner:ty) = $read:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub struct $name(pub $inner);

        impl<'a, 'py> FromPyObject<'a, 'py> for $name {
            type Error = PyErr;
            fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
                let read: fn(&Bound<'py, PyAny>) -> PyResult<$inner> = $read;
                read(&object).map($name)
            }
        }
    };
}
pub(crate) use newtype;
