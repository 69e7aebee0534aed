//! The program that becomes process 1.

use microsandbox_core::model::InitConfig;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString};

use crate::arguments::{Word, WordMap, Words, dataclass, named, newtype, type_name};

newtype!(
    /// A string, `InitConfig`, or any mapping with `cmd`.
    Init(InitConfig) = |object| {
        if object.is_instance_of::<PyString>() {
            return Ok(InitConfig { cmd: object.extract::<Word>()?.0, ..InitConfig::default() });
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
        let Word(cmd) = cmd.extract().map_err(|error| named(object.py(), "init.cmd", error))?;
        let args = field("args")?.map(|args| args.extract::<Words>()).transpose();
        let args = args.map_err(|error| named(object.py(), "init.args", error))?;
        let env = field("env")?.map(|env| env.extract::<WordMap>()).transpose();
        let env = env.map_err(|error| named(object.py(), "init.env", error))?;
        Ok(InitConfig { cmd, args: args.unwrap_or(Words(Vec::new())).0, env: env.map(|env| env.0).unwrap_or_default() })
    }
);
