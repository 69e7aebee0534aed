//! The image store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use microsandbox_core::SharedBackend;
use microsandbox_core::backend::ProgressFn;
use microsandbox_core::{MicrosandboxError, model};
use pyo3::prelude::*;

use crate::arguments::{self, Flag, Location, Seconds, Text, argument, optional};
use crate::backend::{NativeBackend, chosen};
use crate::enums::Member;
use crate::errors::invalid_config;
use crate::files;
use crate::runtime::{Owned, Pending};
use crate::values::{self, Reduced};

type Given<'a, 'py> = Option<&'a Bound<'py, NativeBackend>>;

/// A row of the image store.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeImage {
    info: model::ImageInfo,
    backend: Owned<SharedBackend>,
}

impl NativeImage {
    fn new(info: model::ImageInfo, backend: SharedBackend) -> Self {
        NativeImage { info, backend: Owned::new(backend) }
    }
}

fn all(infos: Vec<model::ImageInfo>, backend: &SharedBackend) -> Vec<NativeImage> {
    infos.into_iter().map(|info| NativeImage::new(info, backend.clone())).collect()
}

#[pymethods]
impl NativeImage {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    #[getter]
    fn reference(&self) -> &str {
        &self.info.reference
    }
    #[getter]
    fn size_bytes(&self) -> Option<u64> {
        self.info.size_bytes
    }
    #[getter]
    fn manifest_digest(&self) -> Option<&str> {
        self.info.manifest_digest.as_deref()
    }
    #[getter]
    fn architecture(&self) -> Option<&str> {
        self.info.architecture.as_deref()
    }
    #[getter]
    fn os(&self) -> Option<&str> {
        self.info.os.as_deref()
    }
    #[getter]
    fn layer_count(&self) -> u32 {
        self.info.layer_count
    }
    #[getter]
    fn last_used_at(&self) -> Option<f64> {
        self.info.last_used_at.map(arguments::millis)
    }
    #[getter]
    fn created_at(&self) -> Option<f64> {
        self.info.created_at.map(arguments::millis)
    }
    #[getter]
    fn backend(&self, py: Python<'_>) -> PyResult<NativeBackend> {
        Ok(NativeBackend::new(self.backend.get(py)?.clone()))
    }
}

/// An image with its configuration and layers.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeImageDetail {
    handle: Py<NativeImage>,
    config: Option<Py<ImageConfigDetail>>,
    layers: Vec<Py<ImageLayerDetail>>,
}

#[pymethods]
impl NativeImageDetail {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    #[getter]
    fn handle(&self, py: Python<'_>) -> Py<NativeImage> {
        self.handle.clone_ref(py)
    }
    #[getter]
    fn config(&self, py: Python<'_>) -> Option<Py<ImageConfigDetail>> {
        self.config.as_ref().map(|config| config.clone_ref(py))
    }
    #[getter]
    fn layers(&self, py: Python<'_>) -> Vec<Py<ImageLayerDetail>> {
        self.layers.iter().map(|layer| layer.clone_ref(py)).collect()
    }
}

struct Detail(model::ImageDetail, SharedBackend);

impl<'py> IntoPyObject<'py> for Detail {
    type Target = NativeImageDetail;
    type Output = Bound<'py, NativeImageDetail>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let Detail(detail, backend) = self;
        let layers = detail.layers.into_iter().map(|layer| Py::new(py, ImageLayerDetail { layer }));
        Bound::new(
            py,
            NativeImageDetail {
                handle: Py::new(py, NativeImage::new(detail.handle, backend))?,
                config: detail.config.map(|config| Py::new(py, ImageConfigDetail { config })).transpose()?,
                layers: layers.collect::<PyResult<_>>()?,
            },
        )
    }
}

/// The configuration of an image.
///
/// Example: `print((await Image.inspect("debian:12")).config)`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct ImageConfigDetail {
    pub config: model::ImageConfigDetail,
}

#[pymethods]
impl ImageConfigDetail {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// `sha256:…` of the configuration.
    #[getter]
    fn digest(&self) -> &str {
        &self.config.digest
    }
    /// `NAME=value`, in order.
    #[getter]
    fn env(&self) -> Vec<String> {
        self.config.env.clone()
    }
    /// Default command or arguments.
    #[getter]
    fn cmd(&self) -> Option<Vec<String>> {
        self.config.cmd.clone()
    }
    /// Program that is always run.
    #[getter]
    fn entrypoint(&self) -> Option<Vec<String>> {
        self.config.entrypoint.clone()
    }
    /// Default directory.
    #[getter]
    fn working_dir(&self) -> Option<&str> {
        self.config.working_dir.as_deref()
    }
    /// Default user.
    #[getter]
    fn user(&self) -> Option<&str> {
        self.config.user.as_deref()
    }
    /// Labels of the image.
    #[getter]
    fn labels(&self) -> Option<std::collections::BTreeMap<String, String>> {
        self.config.labels.clone()
    }
    /// Signal that asks the program to end.
    #[getter]
    fn stop_signal(&self) -> Option<&str> {
        self.config.stop_signal.as_deref()
    }
}

/// One layer of an image.
///
/// Example: `print([layer.diff_id for layer in (await Image.inspect("debian:12")).layers])`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct ImageLayerDetail {
    pub layer: model::ImageLayerDetail,
}

#[pymethods]
impl ImageLayerDetail {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// `sha256:…` of the unpacked layer.
    #[getter]
    fn diff_id(&self) -> &str {
        &self.layer.diff_id
    }
    /// `sha256:…` of the blob.
    #[getter]
    fn blob_digest(&self) -> &str {
        &self.layer.blob_digest
    }
    /// Media type of the blob.
    #[getter]
    fn media_type(&self) -> Option<&str> {
        self.layer.media_type.as_deref()
    }
    /// Size of the blob, bytes.
    #[getter]
    fn compressed_size_bytes(&self) -> Option<u64> {
        self.layer.compressed_size_bytes
    }
    /// Unpacked size, bytes.
    #[getter]
    fn erofs_size_bytes(&self) -> Option<u64> {
        self.layer.erofs_size_bytes
    }
    /// 0 is the bottom.
    #[getter]
    fn position(&self) -> u32 {
        self.layer.position
    }
}

/// What `Image.prune` removed.
///
/// Example: `print((await Image.prune()).bytes_reclaimed)`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct ImagePruneReport {
    pub report: model::ImagePruneReport,
}

#[pymethods]
impl ImagePruneReport {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// References removed.
    #[getter]
    fn image_refs_removed(&self) -> u64 {
        self.report.image_refs_removed
    }
    /// Manifests removed.
    #[getter]
    fn manifests_removed(&self) -> u64 {
        self.report.manifests_removed
    }
    /// Layers removed.
    #[getter]
    fn layers_removed(&self) -> u64 {
        self.report.layers_removed
    }
    /// Always 0: this product keeps no such files.
    #[getter]
    fn fsmeta_removed(&self) -> u64 {
        0
    }
    /// Always 0: this product keeps no such files.
    #[getter]
    fn vmdk_removed(&self) -> u64 {
        0
    }
    /// Disk space gained, bytes.
    #[getter]
    fn bytes_reclaimed(&self) -> Option<u64> {
        self.report.bytes_reclaimed
    }
    /// Images kept because something uses them.
    #[getter]
    fn skipped_in_use(&self) -> u64 {
        self.report.skipped_in_use
    }
    /// Nothing was removed: this is what would be.
    #[getter]
    fn dry_run(&self) -> bool {
        self.report.dry_run
    }
    /// Compressed layers and documents removed.
    #[getter]
    fn blobs_removed(&self) -> u64 {
        self.report.blobs_removed
    }
    /// Interrupted downloads removed.
    #[getter]
    fn parts_removed(&self) -> u64 {
        self.report.parts_removed
    }
    /// The references that were removed.
    #[getter]
    fn removed(&self) -> Vec<String> {
        self.report.removed.clone()
    }
    /// The images that were kept, each with what uses it: the name of a sandbox, or an operation and its process.
    #[getter]
    fn in_use(&self) -> Vec<(String, String)> {
        self.holders()
    }
}

impl ImagePruneReport {
    pub fn holders(&self) -> Vec<(String, String)> {
        self.report.in_use.iter().map(|image| (image.reference.clone(), image.holder.clone())).collect()
    }
}

/// The core reports layer by layer; a caller wants the sum of all of them.
fn in_sum(progress: Py<PyAny>) -> ProgressFn {
    let report = files::reporter(progress);
    let layers: Mutex<BTreeMap<usize, (u64, u64)>> = Mutex::default();
    Arc::new(move |step| {
        let mut layers = layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.insert(step.layer_index, (step.completed_bytes, step.total_bytes));
        // Before the last layer is known of, the total is not.
        let total = (layers.len() == step.layer_count).then(|| layers.values().map(|layer| layer.1).sum());
        let done = layers.values().map(|layer| layer.0).sum();
        drop(layers);
        report(done, total);
    })
}

#[pyfunction]
#[pyo3(signature = (input_path, tag, progress=None, backend=None))]
pub fn image_load(
    py: Python<'_>,
    input_path: &Bound<'_, PyAny>,
    tag: &Bound<'_, PyAny>,
    progress: Option<Py<PyAny>>,
    backend: Given<'_, '_>,
) -> PyResult<Pending> {
    let Location(path) = argument(input_path, "input_path")?;
    let tag = optional::<Text>(tag, "tag")?.map(|text| text.0);
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let infos = backend.images().load(&path, tag, progress.map(in_sum)).await?;
        Ok(all(infos, &backend))
    }))
}

#[pyfunction]
#[pyo3(signature = (backend=None))]
pub fn image_list(py: Python<'_>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let infos = backend.images().list().await?;
        Ok(all(infos, &backend))
    }))
}

#[pyfunction]
#[pyo3(signature = (reference, backend=None))]
pub fn image_get(py: Python<'_>, reference: &Bound<'_, PyAny>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let Text(reference) = argument(reference, "reference")?;
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let info = backend.images().get(&reference).await?;
        Ok(NativeImage::new(info, backend))
    }))
}

#[pyfunction]
#[pyo3(signature = (reference, backend=None))]
pub fn image_inspect(py: Python<'_>, reference: &Bound<'_, PyAny>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let Text(reference) = argument(reference, "reference")?;
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let detail = backend.images().inspect(&reference).await?;
        Ok(Detail(detail, backend))
    }))
}

#[pyfunction]
#[pyo3(signature = (reference, force, backend=None))]
pub fn image_remove(
    py: Python<'_>,
    reference: &Bound<'_, PyAny>,
    force: &Bound<'_, PyAny>,
    backend: Given<'_, '_>,
) -> PyResult<Pending> {
    let (Text(reference), Flag(force)) = (argument(reference, "reference")?, argument(force, "force")?);
    let backend = chosen(py, backend)?;
    Ok(Pending::unattended(async move { backend.images().remove(&reference, force).await }))
}

#[pyfunction]
#[pyo3(signature = (dry_run=None, older_than_seconds=None, blobs=None, dangling=None, backend=None))]
pub fn image_prune(
    py: Python<'_>,
    dry_run: Option<&Bound<'_, PyAny>>,
    older_than_seconds: Option<&Bound<'_, PyAny>>,
    blobs: Option<&Bound<'_, PyAny>>,
    dangling: Option<&Bound<'_, PyAny>>,
    backend: Given<'_, '_>,
) -> PyResult<Pending> {
    let flag = |given: Option<&Bound<'_, PyAny>>, name| {
        given.map_or(Ok(false), |given| argument::<Flag>(given, name).map(|flag| flag.0))
    };
    let older_than = match older_than_seconds {
        Some(given) => optional::<Seconds>(given, "older_than_seconds")?,
        None => None,
    };
    let older_than = older_than.map(|seconds| Duration::try_from_secs_f64(seconds.0)).transpose();
    let older_than = older_than.map_err(|_| invalid_config(py, "older_than_seconds must not be negative"))?;
    let request = model::ImagePruneRequest {
        dry_run: flag(dry_run, "dry_run")?,
        older_than,
        blobs: flag(blobs, "blobs")?,
        dangling: flag(dangling, "dangling")?,
    };
    let backend = chosen(py, backend)?;
    Ok(Pending::unattended(async move {
        let report = backend.images().prune(request).await?;
        Ok(ImagePruneReport { report })
    }))
}

#[pyfunction]
#[pyo3(signature = (references, output_path, format, backend=None))]
pub fn image_save(
    py: Python<'_>,
    references: Vec<String>,
    output_path: &Bound<'_, PyAny>,
    format: &Bound<'_, PyAny>,
    backend: Given<'_, '_>,
) -> PyResult<Pending> {
    let Location(output) = argument(output_path, "output_path")?;
    let Member(format) = argument(format, "format")?;
    let request = model::ImageSaveRequest { references, output, format };
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move { backend.images().save(request).await }))
}

/// What uses how much of the disk, as JSON.
#[pyfunction]
#[pyo3(signature = (backend=None))]
pub fn storage_usage(py: Python<'_>, backend: Given<'_, '_>) -> PyResult<Pending> {
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let usage = backend.images().usage().await?;
        serde_json::to_string(&usage).map_err(|error| MicrosandboxError::json("storage usage", error))
    }))
}
