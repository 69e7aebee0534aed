//! The extension module `microsandbox._microsandbox`: the only crate that knows Python.
//!
//! | module | holds |
//! |---|---|
//! | [`runtime`] | the tokio runtime, and `Pending`: a call that was checked but has not run yet |
//! | [`made`] | what a call makes, until its caller has it |
//! | [`errors`] | the one conversion from the core's errors to exceptions |
//! | [`enums`] | the enums of both sides, one table each |
//! | [`arguments`] | typed arguments |
//! | [`create`] | the keywords of `create`; [`image_source`], [`init`], [`mounts`], [`network`], [`patches`], [`registry`] and [`secrets`] hold one kind each |
//! | [`sandbox`], [`handle`], [`modify`], [`exec`], [`attach`], [`jobs`], [`files`], [`logs`], [`metrics`], [`image`], [`volume`], [`agent`] | one noun each |
//! | [`content`] | what was read, on its way to Python |
//! | [`values`] | results as plain data, for other processes |
//! | [`backend`], [`memory`] | backend objects, the ambient one, the fake one |
//! | [`isolation`] | reports on what separates a sandbox from its host |
//! | [`cli`] | the `msb` command |
//!
//! Functions here check their arguments in the call and return a `Pending`; the Python layer wraps it in a coroutine, or
//! waits for it in `microsandbox.sync`.

mod agent;
mod arguments;
mod attach;
mod backend;
mod cli;
mod content;
mod create;
mod enums;
mod errors;
mod exec;
mod files;
mod handle;
mod image;
mod image_source;
mod init;
mod isolation;
mod jobs;
mod logs;
mod made;
mod memory;
mod metrics;
mod modify;
mod mounts;
mod network;
mod patches;
mod registry;
mod runtime;
mod sandbox;
mod secrets;
mod values;
mod volume;

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::{PyAttributeError, PyImportError};
use pyo3::prelude::*;

/// Native half of `microsandbox`. Import the names from there; these are private except where the package documents
/// them.
#[pymodule]
mod _microsandbox {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::agent::{NativeAgent, NativeAgentStream, agent_of_sandbox, agent_of_socket, agent_socket_path};
    #[pymodule_export]
    use super::backend::{
        BackendInfo, NativeBackend, cloud_backend, cloud_backend_from_env, cloud_backend_from_profile, default_backend,
        default_backend_info, default_backend_kind, local_backend, set_default_backend, swap_default_backend,
    };
    #[pymodule_export]
    use super::cli::cli_main;
    #[pymodule_export]
    use super::exec::{ExecEvent, ExecOutput, NativeExec, NativeSink};
    #[pymodule_export]
    use super::files::{
        FsEntry, FsEvent, FsMetadata, NativeFs, NativeListStream, NativeReadStream, NativeWatch, NativeWriteSink,
    };
    #[pymodule_export]
    use super::handle::{NativeHandle, SandboxStopResult};
    #[pymodule_export]
    use super::image::{
        ImageConfigDetail, ImageLayerDetail, ImagePruneReport, NativeImage, NativeImageDetail, image_get,
        image_inspect, image_list, image_load, image_prune, image_remove, image_save, storage_usage,
    };
    #[pymodule_export]
    use super::isolation::{doctor, install_libkrunfw, resolved_libkrunfw_path, set_runtime_libkrunfw_path};
    #[pymodule_export]
    use super::jobs::NativeJobs;
    #[pymodule_export]
    use super::logs::{LogEntry, NativeLogStream};
    #[pymodule_export]
    use super::memory::NativeMemory;
    #[pymodule_export]
    use super::metrics::{NativeMetricsStream, SandboxMetrics};
    #[pymodule_export]
    use super::registry::NativePullEvents;
    #[pymodule_export]
    use super::runtime::{Pending, resolve, shutdown};
    #[pymodule_export]
    use super::sandbox::{NativeSandbox, connect_or_create, create, create_with_progress, get, list, remove, start};
    #[pymodule_export]
    use super::values::restore;
    #[pymodule_export]
    use super::version;
    #[pymodule_export]
    use super::volume::{
        NativeVolume, NativeVolumeFs, volume_create, volume_get, volume_get_default, volume_list, volume_remove,
    };

    /// Not an export, which would list it in `__all__`.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::one_interpreter(module.py())?;
        module.setattr("__getattr__", wrap_pyfunction!(super::from_the_package, module)?)
    }
}

/// Classes, threads and connections are those of one interpreter. A second one would get the first one's: objects that no
/// `isinstance` and no `except` of its own knows.
fn one_interpreter(py: Python<'_>) -> PyResult<()> {
    static FIRST: AtomicUsize = AtomicUsize::new(0);
    // Each interpreter has a module `sys` of its own, for as long as it lives.
    let own = py.import("sys")?.as_ptr() as usize;
    match FIRST.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire) {
        Err(first) if first != own => Err(PyImportError::new_err(
            "microsandbox is loaded in another interpreter of this process and works in one only: use it there, or in a \
             process of its own (multiprocessing)",
        )),
        _ => Ok(()),
    }
}

/// Names that existing programs import from here although the package's Python layer defines them.
#[pyfunction(name = "__getattr__")]
fn from_the_package<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let names = [
        "AgentClient",
        "AgentStream",
        "BackendScope",
        "ExecHandle",
        "ExecSink",
        "FsReadStream",
        "FsWriteSink",
        "ImageHandle",
        "LogStream",
        "MetricsStream",
        "PullSession",
        "Sandbox",
        "SandboxFsOps",
        "SandboxHandle",
        "Volume",
        "VolumeFs",
        "VolumeHandle",
    ];
    if names.contains(&name) {
        return py.import("microsandbox")?.getattr(name);
    }
    Err(PyAttributeError::new_err(format!("module 'microsandbox._microsandbox' has no attribute '{name}'")))
}

/// Version of this build.
///
/// Example: `print(version())`
#[pyfunction]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
