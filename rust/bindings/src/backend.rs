//! Backend objects, and the ambient one.

use std::sync::{Arc, Mutex, OnceLock};

use microsandbox_core::config::Wire;
use microsandbox_core::config::{LocalConfig, LocalConfigOverrides};
use microsandbox_core::{MicrosandboxResult, SharedBackend};
use microsandbox_sdk::{CloudBackend, LocalBackend, default_backend as ambient};
use pyo3::prelude::*;

use crate::convert::{self, Count, Cpus, Isolation, Location, Mib, Text};
use crate::errors;
use crate::runtime::Owned;

/// Any backend.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeBackend {
    backend: Owned<SharedBackend>,
}

impl NativeBackend {
    pub fn new(backend: SharedBackend) -> Self {
        NativeBackend { backend: Owned::new(backend) }
    }
    pub fn share(&self, py: Python<'_>) -> PyResult<SharedBackend> {
        self.backend.get(py).cloned()
    }
}

#[pymethods]
impl NativeBackend {
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::member(py, "BackendKind", self.backend.get(py)?.kind().as_str())
    }
    /// State directory of a local backend.
    #[getter]
    fn home(&self, py: Python<'_>) -> PyResult<Option<std::path::PathBuf>> {
        Ok(LocalBackend::of(self.backend.get(py)?).map(|local| local.config().home.clone()))
    }
    /// Address of a cloud backend.
    #[getter]
    fn url(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.backend.get(py)?.remote_address().map(|remote| remote.url))
    }
    /// Dialect of a cloud backend.
    #[getter]
    fn wire(&self, py: Python<'_>) -> PyResult<Option<&'static str>> {
        Ok(self.backend.get(py)?.remote_address().map(|remote| remote.wire.as_str()))
    }
    /// What it is, as `default_backend_info` tells it.
    #[getter]
    fn info(&self, py: Python<'_>) -> PyResult<BackendInfo> {
        Ok(BackendInfo::from(ambient::BackendInfo::programmatic(self.backend.get(py)?)))
    }
}

/// The backend that a call was given, else the ambient one of this process.
pub fn chosen(py: Python<'_>, given: Option<&Bound<'_, NativeBackend>>) -> PyResult<SharedBackend> {
    match given {
        Some(backend) => backend.get().share(py),
        None => Ok(ambient_backend()),
    }
}

/// The process default. What the configuration chose in a parent holds the parent's connections, so a forked child
/// chooses again; what a program set stays set, and refuses in the child.
fn ambient_backend() -> SharedBackend {
    static FIRST: OnceLock<u32> = OnceLock::new();
    static CHILDS: Mutex<Option<(u32, SharedBackend)>> = Mutex::new(None);
    let pid = std::process::id();
    if *FIRST.get_or_init(std::process::id) == pid || ambient::default_backend_info().source == "programmatic" {
        return ambient::default_backend();
    }
    let mut own = CHILDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((owner, backend)) = own.as_ref()
        && *owner == pid
    {
        return backend.clone();
    }
    let Ok(backend) = ambient::resolve_default_backend() else { return ambient::default_backend() };
    // The one it replaces belongs to a parent: dropping it here would touch connections that are not ours.
    std::mem::forget(own.replace((pid, backend.clone())));
    backend
}

convert::keywords! {
    /// What `LocalBackend` takes.
    pub struct LocalKeywords {
        home: Location,
        isolation: Isolation,
        max_connections: Count,
        cpus: Cpus,
        memory: Mib,
        shell: Text,
        workdir: Text,
    }
}

/// The stored configuration with these overrides; opens nothing.
#[pyfunction]
pub fn local_backend(py: Python<'_>, options: LocalKeywords) -> PyResult<NativeBackend> {
    let overrides = LocalConfigOverrides {
        home: options.home.map(|home| home.0),
        max_connections: options.max_connections.map(|count| u32::try_from(count.0).unwrap_or(u32::MAX)),
        default_cpus: options.cpus.map(|cpus| cpus.0),
        default_memory_mib: options.memory.map(|memory| memory.0),
        shell: options.shell.map(|text| text.0),
        workdir: options.workdir.map(|text| text.0),
        ..LocalConfigOverrides::default()
    };
    let mut config = LocalConfig::load().map_err(|e| errors::to_python(py, e))?.merge(overrides);
    if let Some(isolation) = options.isolation {
        config.isolation = microsandbox_core::model::Isolation::parse(&isolation.0);
    }
    Ok(NativeBackend::new(Arc::new(LocalBackend::from_config(config))))
}

fn made(py: Python<'_>, backend: MicrosandboxResult<CloudBackend>) -> PyResult<NativeBackend> {
    backend.map(|backend| NativeBackend::new(backend.into())).map_err(|error| errors::to_python(py, error))
}

/// A service, by address and key. Makes no request.
#[pyfunction]
pub fn cloud_backend(py: Python<'_>, url: &str, api_key: &str, wire: &str) -> PyResult<NativeBackend> {
    let wire = Wire::parse(wire).map_err(|error| errors::to_python(py, error))?;
    made(py, CloudBackend::builder().url(url).api_key(api_key).wire(wire).build())
}

/// `MSB_API_KEY` and `MSB_API_URL`.
#[pyfunction]
pub fn cloud_backend_from_env(py: Python<'_>) -> PyResult<NativeBackend> {
    made(py, CloudBackend::from_env())
}

/// A cloud profile of the configuration file, read without holding other threads up.
#[pyfunction]
pub fn cloud_backend_from_profile(py: Python<'_>, name: &str) -> PyResult<NativeBackend> {
    made(py, py.detach(|| CloudBackend::from_profile(name)))
}

/// Installs a process-wide default.
#[pyfunction]
pub fn set_default_backend(py: Python<'_>, backend: &Bound<'_, NativeBackend>) -> PyResult<()> {
    ambient::set_default_backend(backend.get().share(py)?);
    Ok(())
}

/// Kind of the process-wide default.
#[pyfunction]
pub fn default_backend_kind(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    convert::member(py, "BackendKind", ambient_backend().kind().as_str())
}

/// Where the default backend came from; never holds a key.
///
/// Example: `info = default_backend_info(); print(info.kind, info.source)`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct BackendInfo {
    /// `local` or `cloud`.
    #[pyo3(get)]
    kind: String,
    /// Address of the service; `None` for local.
    #[pyo3(get)]
    api_url: Option<String>,
    /// Which rung decided: `programmatic`, `MSB_BACKEND`, `MSB_PROFILE`, `active_profile`, `default` …
    #[pyo3(get)]
    source: String,
    /// Name of the profile, if one decided.
    #[pyo3(get)]
    profile: Option<String>,
}

#[pymethods]
impl BackendInfo {
    fn __repr__(&self) -> String {
        format!("BackendInfo(kind={:?}, source={:?})", self.kind, self.source)
    }
}

#[pyfunction]
pub fn default_backend_info() -> BackendInfo {
    ambient::default_backend_info().into()
}

impl From<ambient::BackendInfo> for BackendInfo {
    fn from(info: ambient::BackendInfo) -> Self {
        BackendInfo {
            kind: info.kind.as_str().into(),
            api_url: info.api_url,
            source: info.source.to_string(),
            profile: info.profile,
        }
    }
}
