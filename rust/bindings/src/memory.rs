//! The fake backend of `microsandbox.testing`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use microsandbox_core::MicrosandboxError;
use microsandbox_fake::MemoryBackend;
use microsandbox_fake::{ScriptCall, ScriptResult};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::backend::NativeBackend;
use crate::runtime::Owned;

/// Sandboxes in memory.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeMemory {
    memory: Owned<MemoryBackend>,
}

type Scripted = (Vec<u8>, Vec<u8>, i32, f64);

#[pymethods]
impl NativeMemory {
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
    /// The next call of `operation` fails with the error of this code.
    fn fail_next(&self, py: Python<'_>, operation: String, code: &str, message: String) -> PyResult<()> {
        self.memory.get(py)?.fail_next(operation, fault(code, message)?);
        Ok(())
    }
}

/// A handler that fails is a program that fails, with the reason on its standard error.
fn answer(py: Python<'_>, handler: &Py<PyAny>, call: &ScriptCall) -> ScriptResult {
    let env: BTreeMap<_, _> = call.env.iter().cloned().collect();
    let stdin = PyBytes::new(py, &call.stdin);
    let arguments = (&call.cmd, &call.args, env, &call.cwd, &call.user, stdin);
    match handler.call1(py, arguments).and_then(|result| result.extract::<Scripted>(py)) {
        Ok((stdout, stderr, exit_code, delay)) => ScriptResult {
            stdout: stdout.into(),
            stderr: stderr.into(),
            exit_code,
            delay: Duration::try_from_secs_f64(delay).unwrap_or_default(),
        },
        Err(error) => ScriptResult {
            stderr: format!("the script of {} failed: {error}\n", call.cmd).into_bytes().into(),
            exit_code: 1,
            ..ScriptResult::default()
        },
    }
}

fn fault(code: &str, message: String) -> PyResult<MicrosandboxError> {
    let name = String::from("injected");
    Ok(match code {
        "microsandbox-error" => MicrosandboxError::Custom(message),
        "invalid-config" => MicrosandboxError::InvalidConfig(message),
        "sandbox-not-found" => MicrosandboxError::SandboxNotFound(message),
        "sandbox-already-exists" => MicrosandboxError::SandboxAlreadyExists(message),
        "sandbox-still-running" => MicrosandboxError::SandboxStillRunning(message),
        "io-error" => MicrosandboxError::Io { context: message, source: std::io::ErrorKind::Other.into() },
        "agent-lost" => MicrosandboxError::AgentLost { name, reason: message },
        "protocol-error" => MicrosandboxError::Protocol { name, what: message },
        "metrics-unavailable" => MicrosandboxError::MetricsUnavailable { name, reason: message },
        "resource-exhausted" => MicrosandboxError::ResourceExhausted { resource: name, message },
        "state-busy" => MicrosandboxError::StateBusy { path: name.into(), message },
        "path-not-found" => MicrosandboxError::PathNotFound { operation: name, path: message },
        "filesystem-error" => MicrosandboxError::Filesystem {
            operation: name,
            path: "/".into(),
            kind: "EIO".into(),
            errno: Some(5),
            message,
        },
        "exec-timeout" => MicrosandboxError::ExecTimeout { secs: 0.0, output: None },
        "invalid-state" => MicrosandboxError::InvalidState(message),
        "unsupported" => MicrosandboxError::unsupported(message, "never: this is an injected fault"),
        other => {
            let text = format!("an error of code {other:?} cannot be injected");
            return Err(PyValueError::new_err(text));
        }
    })
}
