//! Backend objects, and the ambient one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use microsandbox_core::backend::BackendKind;
use microsandbox_core::config::{
    CredentialStore, LocalConfig, LocalConfigOverrides, RegistryAuth, RegistryEntry, Wire,
};
use microsandbox_core::{MicrosandboxError, MicrosandboxResult, SharedBackend, model};
use microsandbox_sdk::{CloudBackend, LocalBackend, default_backend as ambient};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMapping, PyTuple};

use crate::arguments::{self, Count, Cpus, Flag, Location, Mib, Seconds, Text, Word, argument, from_here, keywords};
use crate::enums::Member;
use crate::errors;
use crate::runtime::Owned;
use crate::values::{self, Reduced};

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
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    #[getter]
    fn kind(&self, py: Python<'_>) -> PyResult<Member<BackendKind>> {
        Ok(Member(self.backend.get(py)?.kind()))
    }
    /// State directory of a local backend.
    #[getter]
    fn home(&self, py: Python<'_>) -> PyResult<Option<std::path::PathBuf>> {
        Ok(LocalBackend::of(self.backend.get(py)?).map(|local| local.config().home.clone()))
    }
    /// Configuration of a local backend, as JSON. No key and no password is part of it.
    #[getter]
    fn config_json(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let Some(config) = LocalBackend::of(self.backend.get(py)?).map(|local| local.config().clone()) else {
            return Ok(None);
        };
        let text = serde_json::to_string(&config);
        text.map(Some).map_err(|e| errors::to_python(py, MicrosandboxError::json("the configuration", e)))
    }
    /// Directories of a local backend.
    #[getter]
    fn paths(&self, py: Python<'_>) -> PyResult<Option<Vec<(&'static str, PathBuf)>>> {
        Ok(LocalBackend::of(self.backend.get(py)?).map(|local| paths_of(local.config())))
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
    /// What it is, as `default_backend_info` reports it.
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

fn paths_of(config: &LocalConfig) -> Vec<(&'static str, PathBuf)> {
    vec![
        ("home", config.home.clone()),
        ("sandboxes", config.sandboxes_dir()),
        ("volumes", config.volumes_dir()),
        ("snapshots", config.snapshots_dir()),
        ("cache", config.cache_dir()),
        ("logs", config.logs_dir()),
        ("secrets", config.secrets_dir()),
        ("database", config.database_path()),
    ]
}

keywords! {
    /// What `LocalBackend` takes.
    pub struct LocalKeywords {
        home: Location,
        isolation: Member<model::Isolation>,
        max_connections: Count,
        connect_timeout: Seconds,
        busy_timeout: Seconds,
        cpus: Cpus,
        memory: Mib,
        shell: Word,
        workdir: Word,
        log_level: Member<model::LogLevel>,
        metrics_interval: Seconds,
        disable_metrics: Flag,
        sandboxes_dir: Location,
        volumes_dir: Location,
        snapshots_dir: Location,
        cache_dir: Location,
        logs_dir: Location,
        secrets_dir: Location,
        ca_certs: Location,
        registry_hosts: RegistryHosts,
    }
}

/// Registries by host, as in the configuration file.
pub struct RegistryHosts(BTreeMap<String, RegistryEntry>);

impl<'a, 'py> FromPyObject<'a, 'py> for RegistryHosts {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let Ok(mapping) = object.cast::<PyMapping>() else {
            return arguments::refuse(&object, "a mapping of hosts to mappings");
        };
        let hosts = mapping.items()?.iter().map(|item| {
            let (host, entry): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            let Text(host) = argument(&host, "a host of registry_hosts")?;
            let HostKeywords { insecure, auth, ca_certs, token_host, for_clients } =
                argument(&entry, &format!("registry_hosts[{host:?}]"))?;
            let auth = auth.map(|auth| auth.credentials(&host)).transpose()?;
            let on = |flag: Option<Flag>| flag.is_some_and(|flag| flag.0);
            let entry = RegistryEntry {
                insecure: on(insecure),
                auth,
                for_clients: on(for_clients),
                ca_certs: ca_certs.map(|path| path.0),
                token_host: token_host.map(|text| text.0),
            };
            Ok((host, entry))
        });
        hosts.collect::<PyResult<_>>().map(RegistryHosts)
    }
}

keywords! {
    /// One registry.
    pub struct HostKeywords {
        insecure: Flag,
        auth: AuthKeywords,
        ca_certs: Location,
        token_host: Text,
        for_clients: Flag,
    }
}

keywords! {
    /// Its user, and where the password comes from.
    pub struct AuthKeywords {
        username: Text,
        store: Text,
        password_env: Text,
        secret_name: Text,
    }
}

impl AuthKeywords {
    fn credentials(self, host: &str) -> PyResult<RegistryAuth> {
        let Some(Text(username)) = self.username else {
            return Err(PyValueError::new_err(format!("registry_hosts[{host:?}]: auth needs a username")));
        };
        let sources = [self.store.is_some(), self.password_env.is_some(), self.secret_name.is_some()];
        if sources.into_iter().filter(|given| *given).count() != 1 {
            return Err(PyValueError::new_err(format!(
                "registry_hosts[{host:?}]: auth must have exactly one of store, password_env and secret_name"
            )));
        }
        let store = match self.store {
            None => None,
            Some(Text(name)) if name == "keyring" => Some(CredentialStore::Keyring),
            Some(Text(name)) => {
                return Err(PyValueError::new_err(format!(
                    "registry_hosts[{host:?}]: store is 'keyring', not {name:?}"
                )));
            }
        };
        let text = |given: Option<Text>| given.map(|text| text.0);
        Ok(RegistryAuth { username, store, password_env: text(self.password_env), secret_name: text(self.secret_name) })
    }
}

impl LocalKeywords {
    fn overrides(self) -> LocalConfigOverrides {
        let directory = |given: Option<Location>| given.map(|path| from_here(path.0));
        // Waits are whole seconds; a fraction must not become no wait at all.
        let seconds = |given: Option<Seconds>| given.map(|seconds| seconds.0.ceil() as u64);
        LocalConfigOverrides {
            home: self.home.map(|home| home.0),
            sandboxes_dir: directory(self.sandboxes_dir),
            volumes_dir: directory(self.volumes_dir),
            snapshots_dir: directory(self.snapshots_dir),
            cache_dir: directory(self.cache_dir),
            logs_dir: directory(self.logs_dir),
            secrets_dir: directory(self.secrets_dir),
            max_connections: self.max_connections.map(|count| u32::try_from(count.0).unwrap_or(u32::MAX)),
            connect_timeout_secs: seconds(self.connect_timeout),
            busy_timeout_secs: seconds(self.busy_timeout),
            default_cpus: self.cpus.map(|cpus| cpus.0),
            default_memory_mib: self.memory.map(|memory| memory.0),
            shell: self.shell.map(|text| text.0),
            workdir: self.workdir.map(|text| text.0),
            metrics_sample_interval_ms: self.metrics_interval.map(|interval| (interval.0 * 1000.0).ceil() as u64),
            disable_metrics_sample: self.disable_metrics.map(|flag| flag.0),
            ca_certs: self.ca_certs.map(|path| Some(from_here(path.0))),
            registry_hosts: self.registry_hosts.map(|hosts| hosts.0),
            log_level: self.log_level.map(|level| level.0),
        }
    }
}

/// The stored configuration with these overrides; opens nothing.
#[pyfunction]
pub fn local_backend(py: Python<'_>, options: LocalKeywords) -> PyResult<NativeBackend> {
    let isolation = options.isolation;
    let mut config = LocalConfig::load().map_err(|e| errors::to_python(py, e))?.merge(options.overrides());
    if let Some(Member(isolation)) = isolation {
        config.isolation = Some(isolation);
    }
    Ok(NativeBackend::new(Arc::new(LocalBackend::from_config(config))))
}

fn made(py: Python<'_>, backend: MicrosandboxResult<CloudBackend>) -> PyResult<NativeBackend> {
    backend.map(|backend| NativeBackend::new(backend.into())).map_err(|error| errors::to_python(py, error))
}

keywords! {
    /// What `CloudBackend` takes.
    pub struct CloudKeywords {
        url: Text,
        api_key: Text,
        wire: Text,
        request_timeout: Seconds,
        user_agent: Text,
        ca_certs: PemCerts,
    }
}

/// PEM bytes, or files that hold them.
pub struct PemCerts(Vec<Vec<u8>>);

impl<'a, 'py> FromPyObject<'a, 'py> for PemCerts {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if !object.is_instance_of::<PyList>() && !object.is_instance_of::<PyTuple>() {
            return arguments::refuse(&object, "a list of PEM bytes or paths");
        }
        let certs = object.try_iter()?.enumerate().map(|(index, item)| {
            let item = item?;
            if let Ok(pem) = item.cast::<PyBytes>() {
                return Ok(pem.as_bytes().to_vec());
            }
            let Ok(Location(path)) = item.extract::<Location>() else {
                return Err(PyTypeError::new_err(format!("{{}}[{index}] must be PEM bytes or a path")));
            };
            let read = item.py().detach(|| std::fs::read(&path));
            read.map_err(|error| errors::to_python(item.py(), MicrosandboxError::io("read", &path, error)))
        });
        certs.collect::<PyResult<_>>().map(PemCerts)
    }
}

/// A service, by address and key. Makes no request.
#[pyfunction]
pub fn cloud_backend(py: Python<'_>, options: CloudKeywords) -> PyResult<NativeBackend> {
    let mut builder = CloudBackend::builder();
    if let Some(Text(url)) = options.url {
        builder = builder.url(url);
    }
    if let Some(Text(key)) = options.api_key {
        builder = builder.api_key(key);
    }
    if let Some(Text(wire)) = options.wire {
        builder = builder.wire(Wire::parse(&wire).map_err(|error| errors::to_python(py, error))?);
    }
    if let Some(timeout) = options.request_timeout {
        builder = builder.request_timeout(timeout.duration());
    }
    if let Some(Text(agent)) = options.user_agent {
        builder = builder.user_agent(agent);
    }
    for pem in options.ca_certs.map(|certs| certs.0).unwrap_or_default() {
        builder = builder.ca_cert_pem(pem);
    }
    made(py, builder.build())
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

/// The process-wide default.
#[pyfunction]
pub fn default_backend() -> NativeBackend {
    NativeBackend::new(ambient_backend())
}

/// As `set_default_backend`; gives the one that was the default before.
#[pyfunction]
pub fn swap_default_backend(py: Python<'_>, backend: &Bound<'_, NativeBackend>) -> PyResult<NativeBackend> {
    let backend = backend.get().share(py)?;
    Ok(NativeBackend::new(py.detach(|| ambient::swap_default_backend(backend))))
}

/// Kind of the process-wide default.
#[pyfunction]
pub fn default_backend_kind() -> Member<BackendKind> {
    Member(ambient_backend().kind())
}

/// Where the default backend came from; never holds a key.
///
/// Example: `info = default_backend_info(); print(info.kind, info.source)`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct BackendInfo {
    /// `local` or `cloud`.
    #[pyo3(get)]
    pub kind: String,
    /// Address of the service; `None` for local.
    #[pyo3(get)]
    pub api_url: Option<String>,
    /// Which rung decided: `programmatic`, `MSB_BACKEND`, `MSB_PROFILE`, `active_profile`, `default` …
    #[pyo3(get)]
    pub source: String,
    /// Name of the profile, if one decided.
    #[pyo3(get)]
    pub profile: Option<String>,
}

#[pymethods]
impl BackendInfo {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
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
