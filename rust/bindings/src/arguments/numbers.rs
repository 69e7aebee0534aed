//! Truth values, counts, sizes, durations and times.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt};

use super::{newtype, refuse};
use crate::errors::invalid_config;

newtype!(
    /// `True` or `False`.
    Flag(bool) = |object| match object.cast::<PyBool>() {
        Ok(flag) => Ok(flag.is_true()),
        Err(_) => refuse(object, "bool"),
    }
);

pub fn integer(object: &Bound<'_, PyAny>, what: &str, low: i64, high: i64) -> PyResult<i64> {
    if object.is_instance_of::<PyBool>() || !object.is_instance_of::<PyInt>() {
        return refuse(object, what);
    }
    match object.extract::<i64>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(invalid_config(object.py(), format!("{{}} must be {low} to {high}: got {}", object.str()?))),
    }
}

newtype!(
    /// Virtual CPUs.
    Cpus(u8) = |object| integer(object, "an int (vCPUs)", 1, 255).map(|value| value as u8)
);
newtype!(
    /// Memory in MiB; less than 8 MiB cannot hold an agent and a program.
    Mib(u32) = |object| integer(object, "an int (MiB)", 8, i64::from(u32::MAX)).map(|value| value as u32)
);
newtype!(
    /// Any count that is not negative.
    Count(u64) = |object| integer(object, "an int", 0, i64::MAX).map(|value| value as u64)
);
newtype!(
    /// Any `int` that fits 32 bits.
    Integer(i32) =
        |object| integer(object, "an int", i64::from(i32::MIN), i64::from(i32::MAX)).map(|value| value as i32)
);
newtype!(
    /// A terminal's rows or columns.
    Cells(u16) = |object| integer(object, "an int", 1, i64::from(u16::MAX)).map(|value| value as u16)
);

fn number(object: &Bound<'_, PyAny>, what: &str) -> PyResult<f64> {
    if object.is_instance_of::<PyBool>() || !(object.is_instance_of::<PyFloat>() || object.is_instance_of::<PyInt>()) {
        return refuse(object, what);
    }
    // An int can be larger than every float.
    let value: f64 = object.extract().map_err(|_| PyValueError::new_err("{} is too large"))?;
    if !value.is_finite() {
        return Err(PyValueError::new_err("{} must be finite"));
    }
    if value < 0.0 {
        return Err(PyValueError::new_err("{} must be non-negative"));
    }
    Ok(value)
}

newtype!(
    /// A duration in seconds.
    Seconds(f64) = |object| number(object, "a number of seconds")
);

impl Seconds {
    pub fn duration(&self) -> Duration {
        microsandbox_core::seconds::duration(self.0)
    }
}

newtype!(
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
