//! Guest files.

use std::sync::{Arc, Mutex as PlainMutex, MutexGuard, PoisonError};

use futures::StreamExt;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::SharedBackend;
use microsandbox_core::api::SandboxFs;
use microsandbox_core::model;
use microsandbox_core::names;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::{Mutex, oneshot};

use crate::arguments::{self, Count, Data, GuestPath, Location};
use crate::content::{Content, TextContent};
use crate::enums::Member;
use crate::errors;
use crate::runtime::{Owned, Pending};
use crate::values::{self, Reduced};

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

/// A path on its way to Python.
struct Inside(String);

impl<'py> IntoPyObject<'py> for Inside {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        arguments::guest_path(py, &self.0)
    }
}

/// A directory entry.
///
/// Example: `print([(entry.path, entry.size) for entry in await sb.fs.list("/etc")])`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct FsEntry {
    pub entry: model::FsEntry,
}

impl FsEntry {
    pub fn new(entry: model::FsEntry) -> Self {
        FsEntry { entry }
    }
}

#[pymethods]
impl FsEntry {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// Full guest path.
    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        arguments::guest_path(py, &self.entry.path)
    }
    /// File, directory, symlink or other.
    #[getter]
    fn kind(&self) -> Member<model::FsEntryKind> {
        Member(self.entry.kind)
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
        format!(
            "FsEntry({:?}, {}, {} bytes)",
            names::shown(&self.entry.path),
            self.entry.kind.as_str(),
            self.entry.size
        )
    }
}

/// What `stat` says of a guest path.
///
/// Example: `meta = await sb.fs.stat("/etc/passwd"); print(meta.size, oct(meta.mode))`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct FsMetadata {
    pub metadata: model::FsMetadata,
}

impl FsMetadata {
    pub fn new(metadata: model::FsMetadata) -> Self {
        FsMetadata { metadata }
    }
}

#[pymethods]
impl FsMetadata {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// File, directory, symlink or other.
    #[getter]
    fn kind(&self) -> Member<model::FsEntryKind> {
        Member(self.metadata.kind)
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
    /// Owner, as a number of the guest's.
    #[getter]
    fn uid(&self) -> u32 {
        self.metadata.uid
    }
    /// Group, as a number of the guest's.
    #[getter]
    fn gid(&self) -> u32 {
        self.metadata.gid
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

fn inside(object: &Bound<'_, PyAny>, name: &str) -> PyResult<String> {
    let taken = object.extract::<GuestPath>();
    taken.map(|path| path.0).map_err(|e| arguments::named(object.py(), name, e))
}

/// `max_bytes`: how large a file may be that is read as a whole.
pub fn bound(object: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    Ok(arguments::optional::<Count>(object, "max_bytes")?.map(|count| count.0))
}

fn location(object: &Bound<'_, PyAny>, name: &str) -> PyResult<std::path::PathBuf> {
    let taken = object.extract::<Location>();
    taken.map(|path| path.0).map_err(|e| arguments::named(object.py(), name, e))
}

#[pymethods]
impl NativeFs {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    fn read(&self, py: Python<'_>, path: &Bound<'_, PyAny>, most: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path, most) = (self.target(py)?, inside(path, "path")?, bound(most)?);
        Ok(Pending::new(async move {
            let files = SandboxFs::with_backend(&backend, &name);
            Content::gather(&mut files.read_pieces(&path).await?, &path, most).await
        }))
    }
    fn read_text(&self, py: Python<'_>, path: &Bound<'_, PyAny>, most: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path, most) = (self.target(py)?, inside(path, "path")?, bound(most)?);
        Ok(Pending::new(async move {
            let files = SandboxFs::with_backend(&backend, &name);
            let content = Content::gather(&mut files.read_pieces(&path).await?, &path, most).await?;
            Ok(TextContent { content, path, allowed: most.is_some() })
        }))
    }
    fn read_stream(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            let stream = SandboxFs::with_backend(&backend, &name).read_stream(&path).await?;
            Ok(NativeReadStream::new(stream, path))
        }))
    }
    fn write(&self, py: Python<'_>, path: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        let Data(data) = data.extract().map_err(|e| arguments::named(py, "data", e))?;
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).write(&path, data).await }))
    }
    fn write_stream(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            SandboxFs::with_backend(&backend, &name).write_stream(&path).await.map(NativeWriteSink::new)
        }))
    }
    fn list(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            let entries = SandboxFs::with_backend(&backend, &name).list(&path).await?;
            Ok(entries.into_iter().map(FsEntry::new).collect::<Vec<_>>())
        }))
    }
    fn list_stream(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            SandboxFs::with_backend(&backend, &name).list_stream(&path).await.map(NativeListStream::new)
        }))
    }
    fn stat(&self, py: Python<'_>, path: &Bound<'_, PyAny>, follow: bool) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            SandboxFs::with_backend(&backend, &name).stat(&path, follow).await.map(FsMetadata::new)
        }))
    }
    fn set(&self, py: Python<'_>, path: &Bound<'_, PyAny>, attributes: Attributes) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        let attributes = attributes.into();
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).set(&path, attributes).await }))
    }
    fn symlink(&self, py: Python<'_>, target: &Bound<'_, PyAny>, link: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), target, link) = (self.target(py)?, inside(target, "target")?, inside(link, "link")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).symlink(&target, &link).await }))
    }
    fn readlink(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).readlink(&path).await.map(Inside) }))
    }
    fn realpath(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).realpath(&path).await.map(Inside) }))
    }
    fn read_tar(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            let stream = SandboxFs::with_backend(&backend, &name).read_tar(&path).await?;
            Ok(NativeReadStream::new(stream, path))
        }))
    }
    fn write_tar(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            SandboxFs::with_backend(&backend, &name).write_tar(&path).await.map(NativeWriteSink::new)
        }))
    }
    fn watch(&self, py: Python<'_>, path: &Bound<'_, PyAny>, recursive: bool) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move {
            SandboxFs::with_backend(&backend, &name).watch(&path, recursive).await.map(NativeWatch::new)
        }))
    }
    fn exists(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).exists(&path).await }))
    }
    fn mkdir(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).mkdir(&path).await }))
    }
    fn remove(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).remove(&path, false).await }))
    }
    fn remove_dir(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), path) = (self.target(py)?, inside(path, "path")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).remove(&path, true).await }))
    }
    fn copy(&self, py: Python<'_>, src: &Bound<'_, PyAny>, dst: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), src, dst) = (self.target(py)?, inside(src, "src")?, inside(dst, "dst")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).copy(&src, &dst).await }))
    }
    fn rename(&self, py: Python<'_>, src: &Bound<'_, PyAny>, dst: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let ((backend, name), src, dst) = (self.target(py)?, inside(src, "src")?, inside(dst, "dst")?);
        Ok(Pending::new(async move { SandboxFs::with_backend(&backend, &name).rename(&src, &dst).await }))
    }
    fn copy_from_host(
        &self,
        py: Python<'_>,
        host: &Bound<'_, PyAny>,
        guest: &Bound<'_, PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Pending> {
        let (backend, name) = self.target(py)?;
        let (host, guest, progress) =
            (location(host, "host_path")?, inside(guest, "guest_path")?, progress.map(reporter));
        Ok(Pending::new(async move {
            SandboxFs::with_backend(&backend, &name).copy_from_host(&host, &guest, progress).await
        }))
    }
    fn copy_to_host(
        &self,
        py: Python<'_>,
        guest: &Bound<'_, PyAny>,
        host: &Bound<'_, PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Pending> {
        let (backend, name) = self.target(py)?;
        let (guest, host, progress) =
            (inside(guest, "guest_path")?, location(host, "host_path")?, progress.map(reporter));
        Ok(Pending::new(
            async move { SandboxFs::with_backend(&backend, &name).copy_to_host(&guest, &host, progress).await },
        ))
    }
}

/// Calls `progress(done, total)`. What it raises is reported as Python reports exceptions that cannot be raised.
pub fn reporter(progress: Py<PyAny>) -> model::TransferProgress {
    Arc::new(move |done, total| {
        // At the end of the interpreter there is nothing left to call.
        Python::try_attach(|py| {
            if let Err(error) = progress.call1(py, (done, total)) {
                error.write_unraisable(py, Some(progress.bind(py)));
            }
        });
    })
}

/// What `set` changes: the keywords that the Python layer gives.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Attributes {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    accessed: Option<i64>,
    modified: Option<i64>,
    of_link: bool,
}

impl From<Attributes> for model::FsAttributes {
    fn from(given: Attributes) -> Self {
        let Attributes { mode, uid, gid, size, accessed, modified, of_link } = given;
        model::FsAttributes { mode, uid, gid, size, accessed, modified, modified_nanos: None, of_link }
    }
}

/// A change of a watched guest file.
///
/// Example: `async for change in watch: print(change.kind, change.path, change.moved_from)`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct FsEvent {
    pub event: model::FsEvent,
}

#[pymethods]
impl FsEvent {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// What happened.
    #[getter]
    fn kind(&self) -> Member<model::FsEventKind> {
        Member(self.event.kind)
    }
    /// Full guest path; of a move the new one; empty for an overflow.
    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        arguments::guest_path(py, &self.event.path)
    }
    /// The old path of a move.
    #[getter]
    fn moved_from<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.event.from.as_ref().map(|path| arguments::guest_path(py, path)).transpose()
    }
    /// Whether it is a directory.
    #[getter]
    fn is_dir(&self) -> bool {
        self.event.is_dir
    }
    fn __repr__(&self) -> String {
        format!("FsEvent({}, {:?})", self.event.kind.as_str(), names::shown(&self.event.path))
    }
}

/// An active watch.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeWatch {
    stream: Owned<Arc<Mutex<model::FsWatchStream>>>,
    /// Gone once it was closed.
    open: Owned<PlainMutex<Option<oneshot::Sender<()>>>>,
}

impl NativeWatch {
    pub fn new(stream: model::FsWatchStream) -> Self {
        let (open, closed) = oneshot::channel();
        let stream: model::FsWatchStream = Box::pin(stream.take_until(closed));
        NativeWatch { stream: Owned::new(Arc::new(Mutex::new(stream))), open: Owned::new(PlainMutex::new(Some(open))) }
    }
}

#[pymethods]
impl NativeWatch {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    /// The next change; `None` at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Pending> {
        let stream = self.stream.get(py)?.clone();
        Ok(Pending::next(
            async move { Ok(stream.lock().await.next().await.transpose()?.map(|event| FsEvent { event })) },
        ))
    }
    /// Closes the watch, also for a task that waits in `next`. Idempotent.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.open.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}

/// A guest file being read.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeReadStream {
    stream: Owned<Arc<Mutex<model::FsReadStream>>>,
    /// For errors.
    path: String,
}

impl NativeReadStream {
    pub fn new(stream: model::FsReadStream, path: String) -> Self {
        NativeReadStream { stream: Owned::new(Arc::new(Mutex::new(stream))), path }
    }
}

#[pymethods]
impl NativeReadStream {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    /// The next chunk; `None` at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Pending> {
        let stream = self.stream.get(py)?.clone();
        Ok(Pending::next(async move { stream.lock().await.next().await.transpose().map(|chunk| chunk.map(Chunk)) }))
    }
    /// Everything that is left.
    fn collect(&self, py: Python<'_>, most: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (stream, path, most) = (self.stream.get(py)?.clone(), self.path.clone(), bound(most)?);
        Ok(Pending::new(async move { Content::gather(&mut *stream.lock().await, &path, most).await }))
    }
}

/// A directory being listed.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeListStream {
    pages: Owned<Arc<Mutex<model::FsListStream>>>,
}

impl NativeListStream {
    pub fn new(pages: model::FsListStream) -> Self {
        NativeListStream { pages: Owned::new(Arc::new(Mutex::new(pages))) }
    }
}

#[pymethods]
impl NativeListStream {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    /// The next entries; `None` at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Pending> {
        let pages = self.pages.get(py)?.clone();
        Ok(Pending::next(async move {
            let page = pages.lock().await.next().await.transpose()?;
            Ok(page.map(|page| page.into_iter().map(FsEntry::new).collect::<Vec<_>>()))
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
        let abandoned = || errors::to_python(py, MicrosandboxError::InvalidState("the write was abandoned".into()));
        self.place(py)?.clone().ok_or_else(abandoned)
    }
}

#[pymethods]
impl NativeWriteSink {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let Data(data) = data.extract().map_err(|e| arguments::named(py, "data", e))?;
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
