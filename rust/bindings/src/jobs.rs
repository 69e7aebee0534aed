//! Programs that outlive this process.

use std::sync::Arc;

use microsandbox_core::SharedBackend;
use microsandbox_core::model::{self, JobCall};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::{Count, Integer, Text, argument, guest_path, optional};
use crate::exec::NativeExec;
use crate::runtime::{Owned, Pending};
use crate::values;

/// What is known about a job, for `jobs.JobInfo`; also the log's number of it.
pub struct JobInfo(pub model::JobInfo);

impl<'py> IntoPyObject<'py> for JobInfo {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let model::JobInfo { id, boot, session, command, tty, pid, stdin_closed, started_ms, finished_ms, exit } =
            self.0;
        let dict = PyDict::new(py);
        dict.set_item("id", id)?;
        dict.set_item("runtime_boot_id", boot)?;
        dict.set_item("session", session)?;
        let words = command.iter().map(|word| guest_path(py, word)).collect::<PyResult<Vec<_>>>()?;
        dict.set_item("command", words)?;
        dict.set_item("tty", tty)?;
        dict.set_item("pid", pid)?;
        dict.set_item("stdin_closed", stdin_closed)?;
        dict.set_item("started_at", started_ms)?;
        dict.set_item("finished_at", finished_ms)?;
        dict.set_item("exit_code", exit.as_ref().map(|exit| exit.code))?;
        dict.set_item("timed_out", exit.is_some_and(|exit| exit.timed_out))?;
        Ok(dict)
    }
}

/// The jobs of one sandbox: its backend and its name.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeJobs {
    backend: Owned<SharedBackend>,
    name: Arc<str>,
}

impl NativeJobs {
    pub fn new(backend: SharedBackend, name: &str) -> Self {
        NativeJobs { backend: Owned::new(backend), name: name.into() }
    }

    fn call(&self, py: Python<'_>, call: JobCall) -> PyResult<Pending> {
        let (backend, name) = (self.backend.get(py)?.clone(), self.name.clone());
        Ok(Pending::new(async move {
            let known = backend.sandboxes().agent(&name).job(call).await?;
            Ok(known.into_iter().map(JobInfo).collect::<Vec<_>>())
        }))
    }
}

#[pymethods]
impl NativeJobs {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    fn list(&self, py: Python<'_>) -> PyResult<Pending> {
        self.call(py, JobCall::List)
    }
    fn inspect(&self, py: Python<'_>, job: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let Text(job) = argument(job, "id")?;
        self.call(py, JobCall::Inspect { job })
    }
    fn wait(&self, py: Python<'_>, job: String) -> PyResult<Pending> {
        self.call(py, JobCall::Wait { job })
    }
    fn signal(&self, py: Python<'_>, job: String, signal: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let Integer(signal) = argument(signal, "signal")?;
        if !(1..=64).contains(&signal) {
            return Err(PyValueError::new_err(format!("signal must be 1 to 64: got {signal}")));
        }
        self.call(py, JobCall::Signal { job, signal })
    }
    fn eof(&self, py: Python<'_>, job: String) -> PyResult<Pending> {
        self.call(py, JobCall::CloseInput { job })
    }
    fn attach(&self, py: Python<'_>, job: String, replay: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let replay = optional::<Count>(replay, "replay_bytes")?.map(|count| count.0);
        let (backend, name) = (self.backend.get(py)?.clone(), self.name.clone());
        Ok(Pending::new(async move {
            backend.sandboxes().agent(&name).attach_job(job, replay).await.map(|handle| NativeExec::new(handle, None))
        }))
    }
}
