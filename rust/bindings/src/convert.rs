//! Typed arguments: one newtype per kind of value, and `keywords!` for groups of keywords.
//!
//! A refusal says the argument's name: newtypes write `{}` where it belongs, and whoever knows the name fills it in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use microsandbox_core::model::{InitConfig, Mount, Patch};
use microsandbox_core::names;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PyMemoryView, PyString, PyTuple,
};

use crate::errors::invalid_config;

/// The module of enums and dataclasses, imported by the first call that needs it.
pub fn types(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static TYPES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    Ok(TYPES.get_or_try_init(py, || py.import("microsandbox.types").map(Bound::unbind))?.bind(py))
}

/// An enum; the enums are cheaper to import than all types.
fn enumeration<'py>(py: Python<'py>, class: &str) -> PyResult<Bound<'py, PyAny>> {
    static ENUMS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    ENUMS.get_or_try_init(py, || py.import("microsandbox._enums").map(Bound::unbind))?.bind(py).getattr(class)
}

/// The member of `class` with this wire value.
pub fn member<'py>(py: Python<'py>, class: &str, value: &str) -> PyResult<Bound<'py, PyAny>> {
    enumeration(py, class)?.call1((value,))
}

/// What `type(object).__name__` says.
pub fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "object".into(), |name| name.to_string())
}

fn refuse<T>(object: &Bound<'_, PyAny>, expected: &str) -> PyResult<T> {
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
                                Some(value.map_err(|e| $crate::convert::named(object.py(), stringify!($field), e.into()))?);
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
macro_rules! argument {
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

argument!(
    /// A `str`, nothing that merely converts to one.
    Text(String) = |object| match object.cast::<PyString>() {
        Ok(text) => text.extract(),
        Err(_) => refuse(object, "str"),
    }
);

argument!(
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

argument!(
    /// `True` or `False`.
    Flag(bool) = |object| match object.cast::<PyBool>() {
        Ok(flag) => Ok(flag.is_true()),
        Err(_) => refuse(object, "bool"),
    }
);

fn integer(object: &Bound<'_, PyAny>, what: &str, low: i64, high: i64) -> PyResult<i64> {
    if object.is_instance_of::<PyBool>() || !object.is_instance_of::<PyInt>() {
        return refuse(object, what);
    }
    match object.extract::<i64>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(invalid_config(object.py(), format!("{{}} must be {low} to {high}: got {}", object.str()?))),
    }
}

argument!(
    /// Virtual CPUs.
    Cpus(u8) = |object| integer(object, "an int (vCPUs)", 1, 255).map(|value| value as u8)
);
argument!(
    /// Memory in MiB; less than 8 MiB cannot hold an agent and a program.
    Mib(u32) = |object| integer(object, "an int (MiB)", 8, i64::from(u32::MAX)).map(|value| value as u32)
);
argument!(
    /// Any count that is not negative.
    Count(u64) = |object| integer(object, "an int", 0, i64::MAX).map(|value| value as u64)
);
argument!(
    /// Any `int` that fits 32 bits.
    Integer(i32) =
        |object| integer(object, "an int", i64::from(i32::MIN), i64::from(i32::MAX)).map(|value| value as i32)
);
argument!(
    /// A terminal's rows or columns.
    Cells(u16) = |object| integer(object, "an int", 1, i64::from(u16::MAX)).map(|value| value as u16)
);

fn number(object: &Bound<'_, PyAny>, what: &str) -> PyResult<f64> {
    if object.is_instance_of::<PyBool>() || !(object.is_instance_of::<PyFloat>() || object.is_instance_of::<PyInt>()) {
        return refuse(object, what);
    }
    let value: f64 = object.extract()?;
    if !value.is_finite() {
        return Err(PyValueError::new_err("{} must be finite"));
    }
    if value < 0.0 {
        return Err(PyValueError::new_err("{} must be non-negative"));
    }
    Ok(value)
}

argument!(
    /// A duration in seconds.
    Seconds(f64) = |object| number(object, "a number of seconds")
);

impl Seconds {
    /// Centuries are as good as for ever.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.0.min(3.0e9))
    }
}

argument!(
    /// A time in milliseconds since the epoch.
    Millis(DateTime<Utc>) = |object| {
        let value = number(object, "milliseconds since the epoch")?;
        DateTime::from_timestamp_micros((value * 1000.0) as i64)
            .ok_or_else(|| PyValueError::new_err("{} is too far in the future"))
    }
);

/// Milliseconds since the epoch, as Python gets them.
pub fn millis(time: DateTime<Utc>) -> f64 {
    time.timestamp_micros() as f64 / 1000.0
}

argument!(
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

argument!(
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

argument!(
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

argument!(
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

argument!(
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

/// The wire value of a member of `class`, or of a plain string that equals one.
pub fn enum_value(object: &Bound<'_, PyAny>, class: &str) -> PyResult<String> {
    let py = object.py();
    let kind = enumeration(py, class)?;
    if object.get_type().is(&kind) {
        return object.getattr("value")?.extract();
    }
    if !object.is_exact_instance_of::<PyString>() {
        return refuse(object, class);
    }
    let text: String = object.extract()?;
    if kind.call1((&text,)).is_ok() {
        return Ok(text);
    }
    let allowed: Vec<String> =
        kind.try_iter()?.map(|item| item?.getattr("value")?.repr()?.extract::<String>()).collect::<PyResult<_>>()?;
    Err(PyTypeError::new_err(format!("{{}} must be {class}, not {}; allowed: {}", object.repr()?, allowed.join(", "))))
}

/// Declares enum arguments by their Python class.
macro_rules! enum_arguments {
    ($($name:ident),*) => { $(
        argument!(
            /// A member of the enum of this name, by its wire value.
            $name(String) = |object| enum_value(object, stringify!($name))
        );
    )* };
}
enum_arguments!(
    CpuPlacement,
    DeploymentProfile,
    Isolation,
    LogLevel,
    LogReadSource,
    ModificationPolicy,
    PullPolicy,
    SandboxStatus,
    SecurityProfile,
    VolumeKind
);

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

/// Declares arguments that are a configuration dataclass which this build checks but cannot honour yet.
macro_rules! checked_dataclasses {
    ($($name:ident),*) => { $(
        argument!(
            /// An instance of the dataclass of this name, checked.
            $name(()) = |object| dataclass(object, stringify!($name))
        );
    )* };
}
checked_dataclasses!(RegistryAuth);

/// How many items an iterable of `class` holds, each checked.
pub fn count_of(object: &Bound<'_, PyAny>, class: &str) -> PyResult<usize> {
    items_of(object, class).map(|items| items.len())
}

/// The items of an iterable of `class`, each checked.
fn items_of<'py>(object: &Bound<'py, PyAny>, class: &str) -> PyResult<Vec<Bound<'py, PyAny>>> {
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

argument!(
    /// In order.
    Patches(Vec<Patch>) = |object| {
        let mut patches = Vec::new();
        for item in items_of(object, "PatchConfig")? {
            patches.push(crate::patches::patch_of(&item.call_method0("_to_dict")?)?);
        }
        Ok(patches)
    }
);
argument!(Secrets(usize) = |object| count_of(object, "SecretEntry"));

argument!(
    /// Guest path to mount.
    Mounts((Vec<Mount>, Vec<String>)) = |object| {
        let Ok(mapping) = object.cast::<PyMapping>() else { return refuse(object, "a mapping of str to MountConfig") };
        let (mut mounts, mut refused) = (Vec::new(), Vec::new());
        for item in mapping.items()?.iter() {
            let (path, mount): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            if !path.is_instance_of::<PyString>() {
                return refuse(&path, "a mapping of str to MountConfig; a key");
            }
            dataclass(&mount, "MountConfig")?;
            match crate::mounts::mount_of(path.extract()?, &mount.call_method0("_to_dict")?)? {
                Ok(mount) => mounts.push(mount),
                Err(feature) => refused.push(feature),
            }
        }
        // Parents before children.
        mounts.sort_by_key(|mount| mount.guest().split('/').filter(|part| !part.is_empty()).count());
        Ok((mounts, refused))
    }
);

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

argument!(
    Ports(usize) = |object| routes(object, "PortBinding", |key| {
        !key.is_instance_of::<PyBool>() && key.extract::<u16>().is_ok()
    })
);
argument!(Vsock(usize) = |object| routes(object, "VsockRoute", |key| key.is_instance_of::<PyString>()));

argument!(
    /// What the network was asked to be; `true` when it asks for nothing beyond "no traffic".
    NetworkArg(bool) = |object| {
        dataclass(object, "Network")?;
        object.call_method0("_is_none")?.extract()
    }
);

argument!(
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

argument!(
    /// A string, `InitConfig`, or any mapping with `cmd`.
    Init(InitConfig) = |object| {
        if object.is_instance_of::<PyString>() {
            return Ok(InitConfig { cmd: object.extract::<Text>()?.0, ..InitConfig::default() });
        }
        let field = |name: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
            match object.cast::<PyMapping>() {
                Ok(mapping) if mapping.contains(name)? => mapping.get_item(name).map(Some),
                Ok(_) => Ok(None),
                Err(_) => object.getattr(name).map(Some),
            }
        };
        if object.cast::<PyMapping>().is_err() && dataclass(object, "InitConfig").is_err() {
            let text = format!("init must be str, Mapping or InitConfig, not {}", type_name(object));
            return Err(PyTypeError::new_err(text));
        }
        let Some(cmd) = field("cmd")? else { return Err(PyValueError::new_err("init dict requires 'cmd'")) };
        let Text(cmd) = cmd.extract().map_err(|error| named(object.py(), "init.cmd", error))?;
        let args = field("args")?.map(|args| args.extract::<Texts>()).transpose();
        let args = args.map_err(|error| named(object.py(), "init.args", error))?;
        let env = field("env")?.map(|env| env.extract::<StrMap>()).transpose();
        let env = env.map_err(|error| named(object.py(), "init.env", error))?;
        Ok(InitConfig { cmd, args: args.unwrap_or(Texts(Vec::new())).0, env: env.map(|env| env.0).unwrap_or_default() })
    }
);

argument!(
    /// Transparent huge pages; checked only.
    Thp(()) = |object| {
        let Text(text) = object.extract()?;
        match text.as_str() {
            "always" | "madvise" | "never" => Ok(()),
            _ => Err(PyValueError::new_err(format!("unknown transparent huge-page policy {text:?}; use always, madvise or never"))),
        }
    }
);

argument!(
    /// A member of the enum, checked only.
    ViolationAction(()) = |object| enum_value(object, "ViolationAction").map(drop)
);
argument!(
    /// `ViolationAction` or `ViolationPolicy`; checked only.
    Violation(()) = |object| match enum_value(object, "ViolationAction") {
        Ok(_) => Ok(()),
        Err(error) => dataclass(object, "ViolationPolicy").map_err(|_| error),
    }
);
