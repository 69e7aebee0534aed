//! The fake backend of `microsandbox.testing`.

use std::sync::Arc;

use microsandbox_core::MicrosandboxError;
use microsandbox_core::error::ImageErrorKind;
use microsandbox_core::model::SandboxStatus;
use microsandbox_fake::{MemoryBackend, ScriptCall, ScriptResult};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict as _, PyBytes};

use crate::arguments::{Seconds, argument, guest_path};
use crate::backend::NativeBackend;
use crate::errors::Class;
use crate::runtime::Owned;
use crate::values;

/// Sandboxes in memory.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeMemory {
    memory: Owned<MemoryBackend>,
}

type Scripted = (Vec<u8>, Vec<u8>, i32, Py<PyAny>);

#[pymethods]
impl NativeMemory {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    #[new]
    fn new() -> Self {
        NativeMemory { memory: Owned::new(MemoryBackend::new()) }
    }
    #[getter]
    fn backend(&self, py: Python<'_>) -> PyResult<NativeBackend> {
        Ok(NativeBackend::new(Arc::new(self.memory.get(py)?.clone())))
    }
    /// `handler(cmd, args, env, cwd, user, stdin)` gives `(stdout, stderr, exit_code, delay)`.
    fn script(&self, py: Python<'_>, cmd: String, handler: Py<PyAny>) -> PyResult<()> {
        self.memory.get(py)?.script(cmd, move |call| Python::attach(|py| answer(py, &handler, call)));
        Ok(())
    }
    /// The next call of `operation` fails with an error of the class of this one.
    fn fail_next(&self, py: Python<'_>, operation: String, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let message = error.str()?.to_string();
        let fault = match Class::of_instance(error)? {
            Some(class) => fault(class, message),
            None => None,
        };
        let Some(fault) = fault else {
            let text = format!("an error of class {} cannot be injected", error.get_type().name()?);
            return Err(PyValueError::new_err(text));
        };
        self.memory.get(py)?.fail_next(operation, fault);
        Ok(())
    }
}

/// A handler that fails is a program that fails, with the reason on its standard error.
fn answer(py: Python<'_>, handler: &Py<PyAny>, call: &ScriptCall) -> ScriptResult {
    let call_it = || {
        let word = |text: &String| guest_path(py, text);
        let args = call.args.iter().map(word).collect::<PyResult<Vec<_>>>()?;
        let env = call.env.iter().map(|(key, value)| Ok((word(key)?, word(value)?))).collect::<PyResult<Vec<_>>>()?;
        let user = call.user.as_ref().map(word).transpose()?;
        let arguments =
            (word(&call.cmd)?, args, env.into_py_dict(py)?, word(&call.cwd)?, user, PyBytes::new(py, &call.stdin));
        let (stdout, stderr, exit_code, delay) = handler.call1(py, arguments)?.extract::<Scripted>(py)?;
        let delay = argument::<Seconds>(delay.bind(py), "delay")?.duration();
        Ok::<_, PyErr>(ScriptResult { stdout: stdout.into(), stderr: stderr.into(), exit_code, delay })
    };
    match call_it() {
        Ok(result) => result,
        Err(error) => ScriptResult {
            stderr: format!("the script of {} failed: {error}\n", call.cmd).into_bytes().into(),
            exit_code: 1,
            ..ScriptResult::default()
        },
    }
}

/// An error of this class; `None` for those that say more than a message can.
fn fault(class: Class, message: String) -> Option<MicrosandboxError> {
    let name = String::from("injected");
    Some(match class {
        Class::MicrosandboxError => MicrosandboxError::Custom(message),
        Class::InvalidConfigError => MicrosandboxError::InvalidConfig(message),
        Class::InvalidStateError => MicrosandboxError::InvalidState(message),
        Class::NoDefaultCommandError => MicrosandboxError::NoDefaultCommand { image: message },
        Class::SandboxNotFoundError => MicrosandboxError::SandboxNotFound(message),
        Class::SandboxAlreadyExistsError => MicrosandboxError::SandboxAlreadyExists(message),
        Class::SandboxStillRunningError => MicrosandboxError::SandboxStillRunning(message),
        Class::SandboxReplacedError => MicrosandboxError::SandboxReplaced(message),
        Class::SandboxNotRunningError => {
            MicrosandboxError::SandboxNotRunning { name: message, status: SandboxStatus::Stopped }
        }
        Class::SandboxStopTimedOutError => MicrosandboxError::KillTimeout { name: message, secs: 0.0 },
        Class::StopTimeoutError => MicrosandboxError::StopTimeout { name: message, secs: 0.0 },
        Class::ExecTimeoutError => MicrosandboxError::ExecTimeout { secs: 0.0, output: None },
        Class::OutputLimitError => MicrosandboxError::OutputLimit { limit: 0, kept: 0, dropped: 0 },
        Class::PathNotFoundError => MicrosandboxError::PathNotFound { operation: name, path: message },
        Class::FilesystemError => MicrosandboxError::Filesystem {
            operation: name,
            path: "/".into(),
            kind: "EIO".into(),
            errno: Some(5),
            message,
        },
        Class::PatchFailedError => MicrosandboxError::PatchFailed { path: "/".into(), message },
        Class::VolumeNotFoundError => MicrosandboxError::VolumeNotFound(message),
        Class::VolumeAlreadyExistsError => MicrosandboxError::VolumeAlreadyExists(message),
        Class::VolumeInUseError => MicrosandboxError::VolumeInUse { name: message, holder: name },
        Class::ImageNotFoundError => MicrosandboxError::ImageNotFound(message),
        Class::ImageInUseError => MicrosandboxError::ImageInUse { reference: message, holder: name },
        Class::ImagePullFailedError => MicrosandboxError::ImagePull { kind: ImageErrorKind::Transport, message },
        Class::MetricsDisabledError => MicrosandboxError::MetricsDisabled(message),
        Class::MetricsUnavailableError => MicrosandboxError::MetricsUnavailable { name, reason: message },
        Class::UnsupportedError => MicrosandboxError::unsupported(message, "never: this is an injected fault"),
        Class::UnsupportedOperationError => {
            MicrosandboxError::AgentTooOld { name, operation: message, said: "".into() }
        }
        Class::AgentLostError => MicrosandboxError::AgentLost { name, reason: message },
        Class::GuestStalledError => MicrosandboxError::GuestStalled { name, secs: 0.0 },
        Class::ProtocolError => MicrosandboxError::Protocol { name, what: message },
        Class::IoError => MicrosandboxError::Io { context: message, source: std::io::ErrorKind::Other.into() },
        Class::ResourceExhaustedError => MicrosandboxError::ResourceExhausted { resource: name, message },
        Class::StateError => MicrosandboxError::Database { path: name.into(), message },
        Class::StateBusyError => MicrosandboxError::StateBusy { path: name.into(), message },
        Class::StateReadOnlyError => MicrosandboxError::StateReadOnly { path: name.into(), message },
        Class::StateCorruptError => MicrosandboxError::StateCorrupt { path: name.into(), message },
        Class::StateLostError => MicrosandboxError::StateLost { path: name.into(), message },
        Class::CloudHttpError => MicrosandboxError::Http(message),
        Class::AuthError => MicrosandboxError::CloudHttp { status: 401, code: None, message },
        Class::RateLimitedError => MicrosandboxError::CloudHttp { status: 429, code: None, message },
        Class::TlsError => {
            MicrosandboxError::Tls { message, source: Box::new(std::io::Error::other("an injected fault")) }
        }
        Class::BootStartError | Class::ExecFailedError | Class::IsolationUnavailableError | Class::JobError => {
            return None;
        }
    })
}
