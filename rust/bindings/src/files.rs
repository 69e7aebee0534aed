//! Guest files.

use std::sync::{Arc, Mutex as PlainMutex, MutexGuard, PoisonError};

use futures::StreamExt;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::SharedBackend;
use microsandbox_core::model;
use microsandbox_core::sandbox::SandboxFs;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::Mutex;

use crate::convert::{self, Data, Location, Text};
use crate::errors;
use crate::runtime::{Owned, Pending};

/// Bytes on their way to Python.
pub struct Chunk(pub bytes::Bytes);

impl<'py> IntoPyObject<'py> for Chunk {
    type Target = PyBytes;
    type Output = Bound<'py, PyBytes>;
    type Error = std::convert::Infallible;
    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(PyBytes::new(py, &self.0))
    }
}

/// A directory entry.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct FsEntry {
    entry: model::FsEntry,
}

impl FsEntry {
    pub fn new(entry: model::FsEntry) -> Self {
        FsEntry { entry }
    }
}

#[pymethods]
impl FsEntry {
    /// Full guest path.
    #[getter]
    fn path(&self) -> &str {
        &self.entry.path
    }
    /// File, directory, symlink or other.
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::member(py, "FsEntryKind", self.entry.kind.as_str())
    }
    /// Bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.entry.size
    }
    /// Mode bits.
    #[getter]
    fn mode(&self) -> u32 {
        self.entry.mode
    }
    /// Last change, milliseconds since the epoch.
    #[getter]
    fn modified(&self) -> Option<f64> {
        self.entry.modified_ms
    }
    fn __repr__(&self) -> String {
        format!("FsEntry({:?}, {}, {} bytes)", self.entry.path, self.entry.kind.as_str(), self.entry.size)
    }
}

/// What `stat` says of a guest path.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct FsMetadata {
    metadata: model::FsMetadata,
}

impl FsMetadata {
    pub fn new(metadata: model::FsMetadata) -> Self {
        FsMetadata { metadata }
    }
}

#[pymethods]
impl FsMetadata {
    /// File, directory, symlink or other.
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::member(py, "FsEntryKind", self.metadata.kind.as_str())
    }
    /// Bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.metadata.size
    }
    /// Mode bits.
    #[getter]
    fn mode(&self) -> u32 {
        self.metadata.mode
    }
    /// Whether no write permission bit is set.
    #[getter]
    fn readonly(&self) -> bool {
        self.metadata.readonly
    }
    /// Last change, milliseconds since the epoch.
    #[getter]
    fn modified(&self) -> Option<f64> {
        self.metadata.modified_ms
    }
    /// Creation, milliseconds since the epoch, where the file system knows it.
    #[getter]
    fn created(&self) -> Option<f64> {
        self.metadata.created_ms
    }
    fn __repr__(&self) -> String {
        let metadata = &self.metadata;
        format!("FsMetadata({}, {} bytes, mode={:o})", metadata.kind.as_str(), metadata.size, metadata.mode)
    }
}

/// Guest files of one sandbox: its backend and its name.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeFs {
    backend: Owned<SharedBackend>,
    name: Arc<str>,
}

impl NativeFs {
    pub fn new(backend: SharedBackend, name: &str) -> Self {
        NativeFs { backend: Owned::new(backend), name: name.into() }
    }
    fn target(&self, py: Python<'_>) -> PyResult<(SharedBackend, Arc<str>)> {
        Ok((self.backend.get(py)?.clone(), self.name.clone()))
    }
}

fn text(object: &Bound<'_, PyAny>, name: &str) -> PyResult<String> {
    let taken = object.extract::<Text>();
    taken.map(|text| text.0).map_err(|e| convert::named(object.py(), name, e))
}

fn location(object: &Bound<'_, PyAny>, name: &str) -> PyResult<std::path::PathBuf> {
    let taken = object.extract::<Location>();
    taken.map(|path| path.0).map_err(|e| convert::named(object.py(), name, e))
}

#[pymethods]
impl NativeFs {
    fn read(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, text(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).read(&path).await.map(Chunk) }))
    }
    fn read_stream(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, text(path, "path")?);
        Ok(Pending::new(async move {
            SandboxFs::with_backend(&backend, &name).read_stream(&path).await.map(NativeReadStream::new)
        }))
    }
    fn write(&self, py: Python<'_>, path: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, text(path, "path")?);
        let Data(data) = data.extract().map_err(|e| convert::named(py, "data", e))?;
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).write(&path, data).await }))
    }
    fn write_stream(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, text(path, "path")?);
        Ok(Pending::new(async move {
            SandboxFs::with_backend(&backend, &name).write_stream(&path).await.map(NativeWriteSink::new)
        }))
    }
    fn list(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, text(path, "path")?);
        Ok(Pending::new(async move {
            let entries = SandboxFs::with_backend(&backend, &name).list(&path).await?;
            Ok(entries.into_iter().map(FsEntry::new).collect::<Vec<_>>())
        }))
    }
    fn stat(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, text(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).stat(&path).await.map(FsMetadata::new) }))
    }
    fn exists(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, text(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).exists(&path).await }))
    }
    fn mkdir(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, text(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).mkdir(&path).await }))
    }
    fn remove(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, text(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).remove(&path).await }))
    }
    fn remove_dir(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, text(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).remove_dir(&path).await }))
    }
    fn copy(&self, py: Python<'_>, src: &Bound<'_, PyAny>, dst: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), src, dst) = (self.target(py)?, text(src, "src")?, text(dst, "dst")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).copy(&src, &dst).await }))
    }
    fn rename(&self, py: Python<'_>, src: &Bound<'_, PyAny>, dst: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), src, dst) = (self.target(py)?, text(src, "src")?, text(dst, "dst")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).rename(&src, &dst).await }))
    }
    fn copy_from_host(&self, py: Python<'_>, host: &Bound<'_, PyAny>, guest: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (backend, name) = self.target(py)?;
        let (host, guest) = (location(host, "host_path")?, text(guest, "guest_path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).copy_from_host(&host, &guest).await }))
    }
    fn copy_to_host(&self, py: Python<'_>, guest: &Bound<'_, PyAny>, host: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (backend, name) = self.target(py)?;
        let (guest, host) = (text(guest, "guest_path")?, location(host, "host_path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).copy_to_host(&guest, &host).await }))
    }
}

/// A guest file being read.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeReadStream {
    stream: Owned<Arc<Mutex<model::FsReadStream>>>,
}

impl NativeReadStream {
    pub fn new(stream: model::FsReadStream) -> Self {
        NativeReadStream { stream: Owned::new(Arc::new(Mutex::new(stream))) }
    }
}

#[pymethods]
impl NativeReadStream {
    /// The next chunk; `None` at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Pending> {
        let stream = self.stream.get(py)?.clone();
        Ok(Pending::next(async move { stream.lock().await.next().await.transpose().map(|chunk| chunk.map(Chunk)) }))
    }
    /// Everything that is left.
    fn collect(&self, py: Python<'_>) -> PyResult<Pending> {
        let stream = self.stream.get(py)?.clone();
        Ok(Pending::new(async move {
            let mut stream = stream.lock().await;
            let mut all = Vec::new();
            while let Some(chunk) = stream.next().await {
                all.extend_from_slice(&chunk?);
            }
            Ok(Chunk(all.into()))
        }))
    }
}

/// A guest file being written; without its sink once it was abandoned.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeWriteSink {
    sink: Owned<PlainMutex<Option<Arc<model::FsWriteSink>>>>,
}

impl NativeWriteSink {
    pub fn new(sink: model::FsWriteSink) -> Self {
        NativeWriteSink { sink: Owned::new(PlainMutex::new(Some(Arc::new(sink)))) }
    }
    fn place(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Option<Arc<model::FsWriteSink>>>> {
        Ok(self.sink.get(py)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn open(&self, py: Python<'_>) -> PyResult<Arc<model::FsWriteSink>> {
        let given_up = || errors::to_python(py, MicrosandboxError::InvalidState("the file was given up".into()));
        self.place(py)?.clone().ok_or_else(given_up)
    }
}

#[pymethods]
impl NativeWriteSink {
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let Data(data) = data.extract().map_err(|e| convert::named(py, "data", e))?;
        let sink = self.open(py)?;
        Ok(Pending::new(async move { sink.write(data).await }))
    }
    fn close(&self, py: Python<'_>) -> PyResult<Pending> {
        let sink = self.open(py)?;
        Ok(Pending::new(async move { sink.close().await }))
    }
    /// Nothing of it appears, unless it was closed before.
    fn abandon(&self, py: Python<'_>) -> PyResult<Pending> {
        let sink = self.place(py)?.take();
        Ok(Pending::new(async move {
            drop(sink);
            Ok(())
        }))
    }
}
