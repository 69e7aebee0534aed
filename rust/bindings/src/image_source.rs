//! Where a root file system comes from.

use std::path::PathBuf;

use microsandbox_core::model::ImageSource;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::arguments::{Location, from_here, named, type_name, types};
use crate::enums::{DiskImageFormat, ImageSourceKind, Member, PythonEnum};
use crate::errors::invalid_config;

/// A root file system: the source, and whether its disk was shaped in a way that this build cannot.
pub struct Image {
    pub source: ImageSource,
    pub root_disk: bool,
}

impl<'a, 'py> FromPyObject<'a, 'py> for Image {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        if let Ok(text) = object.cast::<PyString>() {
            return from_text(py, &text.extract::<String>()?);
        }
        if object.hasattr("__fspath__")? {
            let Location(path) = object.extract()?;
            return Ok(Image::plain(local(path)));
        }
        let class = types(py)?.getattr("ImageSource")?;
        if !object.is_instance(&class)? {
            let text = format!("{{}} must be str, os.PathLike or ImageSource, not {}", type_name(&object));
            return Err(PyTypeError::new_err(text));
        }
        let source = object.extract::<Source>().map_err(|error| named(py, "ImageSource._type", error))?;
        source.image(py)
    }
}

impl Image {
    fn plain(source: ImageSource) -> Self {
        Image { source, root_disk: false }
    }
}

fn from_text(py: Python<'_>, text: &str) -> PyResult<Image> {
    if text.is_empty() {
        return Err(invalid_config(py, "image must not be empty"));
    }
    if text == "host" {
        return Ok(Image::plain(host(py)?));
    }
    if ImageSource::is_path(text) {
        return Ok(Image::plain(local(PathBuf::from(text))));
    }
    Ok(Image::plain(ImageSource::Oci { reference: text.into() }))
}

/// A disk image by its extension, else a directory.
fn local(path: PathBuf) -> ImageSource {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some(format @ ("qcow2" | "raw" | "vmdk")) if !path.is_dir() => {
            ImageSource::DiskImage { format: Some(format.into()), fstype: None, path }
        }
        _ => ImageSource::Bind { path: from_here(path) },
    }
}

/// This machine's system directories and the prefixes of the running interpreter.
fn host(py: Python<'_>) -> PyResult<ImageSource> {
    let sys = py.import("sys")?;
    let mut prefixes: Vec<PathBuf> = Vec::new();
    for name in ["prefix", "base_prefix", "exec_prefix", "base_exec_prefix"] {
        let prefix: PathBuf = sys.getattr(name)?.extract()?;
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    Ok(ImageSource::Host { prefixes })
}

/// The dataclass `ImageSource`.
#[derive(FromPyObject)]
struct Source {
    #[pyo3(attribute("_type"))]
    kind: Member<ImageSourceKind>,
    #[pyo3(attribute("_path"))]
    path: Option<PathBuf>,
    #[pyo3(attribute("_reference"))]
    reference: Option<String>,
    #[pyo3(attribute("_root_disk"))]
    root_disk: Option<Py<PyAny>>,
    #[pyo3(attribute("_upper_size_mib"))]
    upper_size_mib: Option<u64>,
    #[pyo3(attribute("_fstype"))]
    fstype: Option<String>,
    #[pyo3(attribute("_format"))]
    format: Option<Member<DiskImageFormat>>,
}

impl Source {
    fn image(self, py: Python<'_>) -> PyResult<Image> {
        let root_disk = self.root_disk.is_some() || self.upper_size_mib.is_some();
        let source = match self.kind.0 {
            ImageSourceKind::Host => host(py)?,
            ImageSourceKind::Bind => ImageSource::Bind { path: from_here(need(self.path, "_path")?) },
            ImageSourceKind::Disk => {
                let path = need(self.path, "_path")?;
                let format = match (self.format, local(path.clone())) {
                    (Some(Member(format)), _) => Some(format.value().into()),
                    (None, ImageSource::DiskImage { format, .. }) => format,
                    (None, ImageSource::Host { .. } | ImageSource::Oci { .. } | ImageSource::Bind { .. }) => None,
                };
                ImageSource::DiskImage { path, format, fstype: self.fstype }
            }
            ImageSourceKind::Oci => ImageSource::Oci { reference: need(self.reference, "_reference")? },
        };
        Ok(Image { source, root_disk })
    }
}

fn need<T>(field: Option<T>, name: &str) -> PyResult<T> {
    field.ok_or_else(|| PyValueError::new_err(format!("ImageSource.{name} is required for this kind")))
}
