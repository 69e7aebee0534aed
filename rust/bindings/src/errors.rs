//! From the core's errors to the classes of `microsandbox.errors`: the only conversion there is.

mod classes;

use std::error::Error;
use std::io;

use microsandbox_core::MicrosandboxError as E;
use microsandbox_core::error::{BootFailure, ExecFailure};
use microsandbox_core::names;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::arguments::guest_path;
use crate::enums::Member;
use crate::exec::ExecOutput;

pub use classes::{Class, resolve};

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
    fn new(py: Python<'py>, class: Class, message: &str) -> PyResult<Self> {
        Ok(Raise { error: class.of(py)?.call1((PyString::new(py, &names::shown(message)),))? })
    }
    fn with(self, field: &str, value: impl IntoPyObject<'py>) -> PyResult<Self> {
        self.error.setattr(field, value)?;
        Ok(self)
    }
    fn done(self, cause: Option<PyErr>) -> PyErr {
        let py = self.error.py();
        let error = PyErr::from_value(self.error);
        if cause.is_some() {
            error.set_cause(py, cause);
        }
        error
    }
}

/// What `error` came from, as `__cause__`: an error of the operating system is an `OSError`, one of a document a
/// `ValueError`.
fn cause_of(py: Python<'_>, error: &(dyn Error + 'static)) -> Option<PyErr> {
    let source = error.source()?;
    let exception = if let Some(error) = source.downcast_ref::<io::Error>() {
        os_error(error)
    } else if source.is::<serde_json::Error>() {
        PyValueError::new_err(source.to_string())
    } else {
        PyRuntimeError::new_err(source.to_string())
    };
    if let Some(cause) = cause_of(py, source) {
        exception.set_cause(py, Some(cause));
    }
    Some(exception)
}

/// With its errno, from which Python picks the class: `FileNotFoundError`, `PermissionError` …
fn os_error(error: &io::Error) -> PyErr {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(errno) => {
            let plain = text.strip_suffix(&format!(" (os error {errno})")).unwrap_or(&text).to_owned();
            PyOSError::new_err((errno, plain))
        }
        None => io::Error::new(error.kind(), text).into(),
    }
}

fn build(py: Python<'_>, error: E) -> PyResult<PyErr> {
    let text = error.to_string();
    let retryable = error.is_retryable();
    let cause = cause_of(py, &error);
    let plain = |class| Raise::new(py, class, &text);
    let state = |class, path: &std::path::Path| plain(class)?.with("path", path.display().to_string());
    let raised = match error {
        E::InvalidConfig(_) | E::InvalidCursor(_) => plain(Class::InvalidConfigError)?,
        E::NoDefaultCommand { image } => plain(Class::NoDefaultCommandError)?.with("image", image)?,
        E::SandboxNotFound(name) => plain(Class::SandboxNotFoundError)?.with("name", name)?,
        E::SandboxAlreadyExists(name) => plain(Class::SandboxAlreadyExistsError)?.with("name", name)?,
        E::SandboxStillRunning(name) => plain(Class::SandboxStillRunningError)?.with("name", name)?,
        E::SandboxNotRunning { name, status } => {
            plain(Class::SandboxNotRunningError)?.with("name", name)?.with("status", Member(status))?
        }
        E::SandboxReplaced(name) => plain(Class::SandboxReplacedError)?.with("name", name)?,
        E::StopTimeout { name, secs } => plain(Class::StopTimeoutError)?.with("name", name)?.with("timeout", secs)?,
        E::ExecTimeout { secs, output } => {
            let output = output.map(|output| Py::new(py, ExecOutput::new(*output))).transpose()?;
            plain(Class::ExecTimeoutError)?.with("timeout", secs)?.with("output", output)?
        }
        E::ExecFailed(failure) => exec_failed(py, &text, *failure)?,
        E::OutputLimit { limit, kept, dropped } => {
            plain(Class::OutputLimitError)?.with("limit", limit)?.with("kept", kept)?.with("dropped", dropped)?
        }
        E::Filesystem { operation, path, kind, errno, message } => plain(Class::FilesystemError)?
            .with("operation", operation)?
            .with("path", guest_path(py, &path)?)?
            .with("kind", kind)?
            .with("errno", errno)?
            .with("message", message)?,
        E::PathNotFound { operation, path } => plain(Class::PathNotFoundError)?
            .with("operation", operation)?
            .with("path", guest_path(py, &path)?)?
            .with("kind", "ENOENT")?
            .with("errno", 2)?,
        E::Job { code, message, job } => job_error(py, (code, message, job))?,
        E::PatchFailed { path, message } => {
            plain(Class::PatchFailedError)?.with("path", path)?.with("message", message)?
        }
        E::VolumeNotFound(name) => plain(Class::VolumeNotFoundError)?.with("name", name)?,
        E::VolumeAlreadyExists(name) => plain(Class::VolumeAlreadyExistsError)?.with("name", name)?,
        E::VolumeInUse { name, holder } => {
            plain(Class::VolumeInUseError)?.with("name", name)?.with("holder", holder)?
        }
        E::ImageNotFound(reference) => plain(Class::ImageNotFoundError)?.with("reference", reference)?,
        E::ImageInUse { reference, holder } => {
            plain(Class::ImageInUseError)?.with("reference", reference)?.with("holder", holder)?
        }
        E::ImagePull { kind, message: _ } => plain(Class::ImagePullFailedError)?.with("kind", kind.as_str())?,
        E::MetricsDisabled(name) => plain(Class::MetricsDisabledError)?.with("name", name)?,
        E::MetricsUnavailable { name, reason } => {
            plain(Class::MetricsUnavailableError)?.with("name", name)?.with("reason", reason)?
        }
        E::Unsupported { feature, available_when } => {
            plain(Class::UnsupportedError)?.with("operation", feature)?.with("hint", available_when)?
        }
        E::BootStart(failure) => boot_start(py, &text, *failure)?,
        E::IsolationUnavailable { demanded, reason, hint } => plain(Class::IsolationUnavailableError)?
            .with("demanded", demanded)?
            .with("reason", reason)?
            .with("hint", hint)?,
        E::Protocol { name, what } => plain(Class::ProtocolError)?.with("name", name)?.with("what", what)?,
        E::AgentLost { name, reason } => plain(Class::AgentLostError)?.with("name", name)?.with("reason", reason)?,
        E::GuestStalled { name, secs } => plain(Class::GuestStalledError)?.with("name", name)?.with("timeout", secs)?,
        E::InvalidState(_) => plain(Class::InvalidStateError)?,
        E::ResourceExhausted { resource, message: _ } => {
            plain(Class::ResourceExhaustedError)?.with("resource", resource)?
        }
        E::StateBusy { path, message: _ } => state(Class::StateBusyError, &path)?,
        E::StateReadOnly { path, message: _ } => state(Class::StateReadOnlyError, &path)?,
        E::StateCorrupt { path, message: _ } => state(Class::StateCorruptError, &path)?,
        E::StateLost { path, message: _ } => state(Class::StateLostError, &path)?,
        E::Database { path, message: _ } => state(Class::StateError, &path)?,
        E::CloudHttp { status, code, message } => plain(class_of_status(status))?
            .with("status", status)?
            .with("error_code", code)?
            .with("message", message)?,
        E::Tls { .. } => plain(Class::TlsError)?,
        E::AgentTooOld { .. } => plain(Class::UnsupportedOperationError)?,
        E::KillTimeout { name, secs } => {
            plain(Class::SandboxStopTimedOutError)?.with("name", name)?.with("timeout", secs)?
        }
        E::Http(message) | E::Unreachable { message, source: _ } => {
            plain(Class::CloudHttpError)?.with("message", message)?
        }
        E::Io { context: _, source } => plain(Class::IoError)?.with("errno", source.raw_os_error())?,
        E::Json { context: _, source: _ } | E::Runtime(_) | E::Custom(_) => plain(Class::MicrosandboxError)?,
    };
    Ok(raised.with("retryable", retryable)?.done(cause))
}

/// What refuses the key and what asks for patience have classes of their own.
fn class_of_status(status: u16) -> Class {
    match status {
        401 | 403 => Class::AuthError,
        429 => Class::RateLimitedError,
        _other => Class::CloudHttpError,
    }
}

/// Its code is the instance's own.
fn job_error<'py>(py: Python<'py>, said: (String, String, String)) -> PyResult<Raise<'py>> {
    Ok(Raise { error: Class::JobError.of(py)?.call1(said)? })
}

fn exec_failed<'py>(py: Python<'py>, text: &str, failure: ExecFailure) -> PyResult<Raise<'py>> {
    Raise::new(py, Class::ExecFailedError, text)?
        .with("kind", failure.kind)?
        .with("message", failure.message)?
        .with("errno", failure.errno)?
        .with("errno_name", failure.errno_name)?
        .with("stage", failure.stage)
}

fn boot_start<'py>(py: Python<'py>, text: &str, failure: BootFailure) -> PyResult<Raise<'py>> {
    Raise::new(py, Class::BootStartError, text)?
        .with("name", failure.name)?
        .with("stage", failure.stage.as_str())?
        .with("step", failure.step)?
        .with("errno", failure.errno)?
        .with("message", failure.message)?
        .with("hint", failure.hint)?
        .with("log_tail", failure.log_tail)
}
