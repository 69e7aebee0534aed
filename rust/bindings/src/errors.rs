//! From the core's errors to the classes of `microsandbox.errors`: the only conversion there is.

use microsandbox_core::MicrosandboxError as E;
use microsandbox_core::error::{BootFailure, ExecFailure};
use microsandbox_core::names;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use crate::convert::guest_path;
use crate::exec::ExecOutput;

/// The exception for `error`, with its fields as attributes. Never fails: what cannot be built is itself the exception.
pub fn to_python(py: Python<'_>, error: E) -> PyErr {
    build(py, error).unwrap_or_else(|failure| failure)
}

/// An `InvalidConfigError` (which is a `ValueError`).
pub fn invalid_config(py: Python<'_>, message: impl Into<String>) -> PyErr {
    to_python(py, E::InvalidConfig(message.into()))
}

struct Raise<'py> {
    error: Bound<'py, PyAny>,
}

impl<'py> Raise<'py> {
    fn new(py: Python<'py>, class: &str, message: &str) -> PyResult<Self> {
        let class = py.import("microsandbox.errors")?.getattr(class)?.cast_into::<PyType>()?;
        Ok(Raise { error: class.call1((PyString::new(py, &names::shown(message)),))? })
    }
    fn with(self, field: &str, value: impl IntoPyObject<'py>) -> PyResult<Self> {
        self.error.setattr(field, value)?;
        Ok(self)
    }
    fn done(self) -> PyResult<PyErr> {
        Ok(PyErr::from_value(self.error))
    }
}

fn build(py: Python<'_>, error: E) -> PyResult<PyErr> {
    let text = error.to_string();
    let retryable = error.is_retryable();
    let plain = |class| Raise::new(py, class, &text);
    let state = |class, path: &std::path::Path| plain(class)?.with("path", path.display().to_string());
    let raised = match error {
        E::InvalidConfig(_) | E::InvalidCursor(_) => plain("InvalidConfigError")?,
        E::NoDefaultCommand { image } => plain("NoDefaultCommandError")?.with("image", image)?,
        E::SandboxNotFound(name) => plain("SandboxNotFoundError")?.with("name", name)?,
        E::SandboxAlreadyExists(name) => plain("SandboxAlreadyExistsError")?.with("name", name)?,
        E::SandboxStillRunning(name) => plain("SandboxStillRunningError")?.with("name", name)?,
        E::SandboxNotRunning { name, status } => plain("SandboxNotRunningError")?
            .with("name", name)?
            .with("status", crate::convert::member(py, "SandboxStatus", &status.as_str().to_lowercase())?)?,
        E::SandboxReplaced(name) => plain("SandboxReplacedError")?.with("name", name)?,
        E::StopTimeout { name, secs } => plain("StopTimeoutError")?.with("name", name)?.with("timeout", secs)?,
        E::ExecTimeout { secs, output } => {
            let output = output.map(|output| Py::new(py, ExecOutput::new(*output))).transpose()?;
            plain("ExecTimeoutError")?.with("timeout", secs)?.with("output", output)?
        }
        E::ExecFailed(failure) => exec_failed(py, &text, *failure)?,
        E::OutputLimit { limit, kept, dropped } => {
            plain("OutputLimitError")?.with("limit", limit)?.with("kept", kept)?.with("dropped", dropped)?
        }
        E::Filesystem { operation, path, kind, errno, message } => plain("FilesystemError")?
            .with("operation", operation)?
            .with("path", guest_path(py, &path)?)?
            .with("kind", kind)?
            .with("errno", errno)?
            .with("message", message)?,
        E::PathNotFound { operation, path } => plain("PathNotFoundError")?
            .with("operation", operation)?
            .with("path", guest_path(py, &path)?)?
            .with("kind", "ENOENT")?
            .with("errno", 2)?,
        E::Job { code, message, job } => job_error(py, (code, message, job))?,
        E::PatchFailed { path, message } => plain("PatchFailedError")?.with("path", path)?.with("message", message)?,
        E::VolumeNotFound(name) => plain("VolumeNotFoundError")?.with("name", name)?,
        E::VolumeAlreadyExists(name) => plain("VolumeAlreadyExistsError")?.with("name", name)?,
        E::VolumeInUse { name, holder } => plain("VolumeInUseError")?.with("name", name)?.with("holder", holder)?,
        E::ImageNotFound(reference) => plain("ImageNotFoundError")?.with("reference", reference)?,
        E::ImageInUse { reference, holder } => {
            plain("ImageInUseError")?.with("reference", reference)?.with("holder", holder)?
        }
        E::ImagePull { kind, message: _ } => plain("ImagePullFailedError")?.with("kind", kind.as_str())?,
        E::MetricsDisabled(name) => plain("MetricsDisabledError")?.with("name", name)?,
        E::MetricsUnavailable { name, reason } => {
            plain("MetricsUnavailableError")?.with("name", name)?.with("reason", reason)?
        }
        E::Unsupported { feature, available_when } => {
            plain("UnsupportedError")?.with("operation", feature)?.with("hint", available_when)?
        }
        E::BootStart(failure) => boot_start(py, &text, *failure)?,
        E::IsolationUnavailable { demanded, reason, hint } => plain("IsolationUnavailableError")?
            .with("demanded", demanded)?
            .with("reason", reason)?
            .with("hint", hint)?,
        E::Protocol { name, what } => plain("ProtocolError")?.with("name", name)?.with("what", what)?,
        E::AgentLost { name, reason } => plain("AgentLostError")?.with("name", name)?.with("reason", reason)?,
        E::GuestStalled { name, secs } => plain("GuestStalledError")?.with("name", name)?.with("timeout", secs)?,
        E::InvalidState(_) => plain("InvalidStateError")?,
        E::ResourceExhausted { resource, message: _ } => plain("ResourceExhaustedError")?.with("resource", resource)?,
        E::StateBusy { path, message: _ } => state("StateBusyError", &path)?,
        E::StateReadOnly { path, message: _ } => state("StateReadOnlyError", &path)?,
        E::StateCorrupt { path, message: _ } => state("StateCorruptError", &path)?,
        E::StateLost { path, message: _ } => state("StateLostError", &path)?,
        E::Database { path, message: _ } => state("StateError", &path)?,
        E::CloudHttp { status, code, message } => {
            plain("CloudHttpError")?.with("status", status)?.with("error_code", code)?.with("message", message)?
        }
        E::Http(message) => plain("CloudHttpError")?.with("message", message)?,
        E::Io { context: _, source } => plain("IoError")?.with("errno", source.raw_os_error())?,
        E::Json { context: _, source: _ } | E::Runtime(_) | E::Custom(_) => plain("MicrosandboxError")?,
    };
    raised.with("retryable", retryable)?.done()
}

/// Its code is the instance's own.
fn job_error<'py>(py: Python<'py>, said: (String, String, String)) -> PyResult<Raise<'py>> {
    let class = py.import("microsandbox.errors")?.getattr("JobError")?;
    Ok(Raise { error: class.call1(said)? })
}

fn exec_failed<'py>(py: Python<'py>, text: &str, failure: ExecFailure) -> PyResult<Raise<'py>> {
    Raise::new(py, "ExecFailedError", text)?
        .with("kind", failure.kind)?
        .with("message", failure.message)?
        .with("errno", failure.errno)?
        .with("errno_name", failure.errno_name)?
        .with("stage", failure.stage)
}

fn boot_start<'py>(py: Python<'py>, text: &str, failure: BootFailure) -> PyResult<Raise<'py>> {
    Raise::new(py, "BootStartError", text)?
        .with("name", failure.name)?
        .with("stage", failure.stage.as_str())?
        .with("step", failure.step)?
        .with("errno", failure.errno)?
        .with("message", failure.message)?
        .with("hint", failure.hint)?
        .with("log_tail", failure.log_tail)
}
