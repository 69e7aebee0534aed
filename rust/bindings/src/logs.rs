//! Captured output.

use std::sync::Arc;

use futures::StreamExt;
use microsandbox_core::model::{self, LogOptions, LogSource, LogStreamOptions};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use tokio::sync::Mutex;

use crate::arguments::{self, Count, Flag, Millis, Text, keywords};
use crate::enums::{LogReadSource, Member};
use crate::runtime::{Owned, Pending};
use crate::values::{self, Reduced};

keywords! {
    /// A bounded read.
    pub struct LogKeywords {
        tail: Count,
        since_ms: Millis,
        until_ms: Millis,
        sources: Sources,
    }
}

keywords! {
    /// A stream.
    pub struct LogStreamKeywords {
        sources: Sources,
        since_ms: Millis,
        from_cursor: Text,
        until_ms: Millis,
        follow: Flag,
    }
}

/// Log sources; `ALL` is all of them.
pub struct Sources(Vec<LogSource>);

impl<'a, 'py> FromPyObject<'a, 'py> for Sources {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if !object.is_instance_of::<PyList>() && !object.is_instance_of::<PyTuple>() {
            let text = format!("sources must be a list of LogReadSource, not {}", arguments::type_name(&object));
            return Err(PyTypeError::new_err(text));
        }
        let mut sources = Vec::new();
        for item in object.try_iter()? {
            let item = item?;
            let Member(source) = item.extract().map_err(|e| arguments::named(item.py(), "an element of sources", e))?;
            match source {
                LogReadSource::Stdout => sources.push(LogSource::Stdout),
                LogReadSource::Stderr => sources.push(LogSource::Stderr),
                LogReadSource::Output => sources.push(LogSource::Output),
                LogReadSource::System => sources.push(LogSource::System),
                LogReadSource::All => {
                    sources.extend([LogSource::Stdout, LogSource::Stderr, LogSource::Output, LogSource::System]);
                }
            }
        }
        Ok(Sources(sources))
    }
}

impl LogKeywords {
    pub fn request(self) -> LogOptions {
        LogOptions {
            tail: self.tail.map(|count| usize::try_from(count.0).unwrap_or(usize::MAX)),
            since: self.since_ms.map(|time| time.0),
            until: self.until_ms.map(|time| time.0),
            sources: self.sources.map(|sources| sources.0).unwrap_or_default(),
        }
    }
}

impl LogStreamKeywords {
    pub fn request(self) -> LogStreamOptions {
        LogStreamOptions {
            sources: self.sources.map(|sources| sources.0).unwrap_or_default(),
            since: self.since_ms.map(|time| time.0),
            until: self.until_ms.map(|time| time.0),
            from_cursor: self.from_cursor.map(|text| text.0),
            follow: self.follow.is_some_and(|flag| flag.0),
        }
    }
}

/// One captured piece of output.
///
/// Example: `print([(entry.source, entry.data) for entry in await sb.logs()])`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct LogEntry {
    pub entry: model::LogEntry,
}

impl LogEntry {
    pub fn new(entry: model::LogEntry) -> Self {
        LogEntry { entry }
    }
}

#[pymethods]
impl LogEntry {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// Milliseconds since the epoch.
    #[getter]
    fn timestamp_ms(&self) -> f64 {
        arguments::millis(self.entry.timestamp)
    }
    /// Where it came from.
    #[getter]
    fn source(&self) -> Member<LogSource> {
        Member(self.entry.source)
    }
    /// Number of the exec session; `None` for system entries.
    #[getter]
    fn session_id(&self) -> Option<u64> {
        self.entry.session_id
    }
    /// Opaque position; a stream from it continues strictly after this entry.
    #[getter]
    fn cursor(&self) -> &str {
        &self.entry.cursor
    }
    /// The bytes as captured.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.entry.data)
    }
    /// The bytes as text; what is not UTF-8 is replaced.
    ///
    /// Example: `print([entry.text() for entry in await sb.logs(tail=10)])`
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.entry.data).into_owned()
    }
    fn __repr__(&self) -> String {
        format!("LogEntry({}, {:?})", self.entry.source.as_str(), self.text())
    }
}

/// Log entries as they come.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeLogStream {
    stream: Owned<Arc<Mutex<model::LogStream>>>,
}

impl NativeLogStream {
    pub fn new(stream: model::LogStream) -> Self {
        NativeLogStream { stream: Owned::new(Arc::new(Mutex::new(stream))) }
    }
}

#[pymethods]
impl NativeLogStream {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    /// The next entry; `None` at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Pending> {
        let stream = self.stream.get(py)?.clone();
        Ok(Pending::next(
            async move { stream.lock().await.next().await.transpose().map(|entry| entry.map(LogEntry::new)) },
        ))
    }
}
