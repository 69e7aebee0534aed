//! A live sandbox.

use std::sync::Arc;
use std::time::Duration;

use microsandbox_core::backend::ListQuery;
use microsandbox_core::config::SandboxDefaults;
use microsandbox_core::model;
use microsandbox_core::{Sandbox, SharedBackend};
use microsandbox_local::LocalBackend;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::arguments::{Flag, Integer, Seconds, StrMap, Text, Word, argument, optional};
use crate::backend::{NativeBackend, chosen};
use crate::create::CreateKeywords;
use crate::enums::Member;
use crate::errors;
use crate::exec::{ExecKeywords, ExecOutput, NativeExec};
use crate::files::NativeFs;
use crate::handle::{NativeHandle, SandboxStopResult};
use crate::isolation::{IsolationReport, boot_steps};
use crate::jobs::{JobInfo, NativeJobs};
use crate::logs::{LogEntry, LogKeywords, LogStreamKeywords, NativeLogStream};
use crate::made;
use crate::metrics::{NativeMetricsStream, SandboxMetrics};
use crate::registry::{self, NativePullEvents};
use crate::runtime::{Owned, Pending};
use crate::values;

pub type Backend<'a, 'py> = Option<&'a Bound<'py, NativeBackend>>;

/// What a sandbox of this backend gets when nothing is said.
fn defaults(backend: &SharedBackend) -> SandboxDefaults {
    LocalBackend::of(backend).map(|local| local.config().sandbox_defaults.clone()).unwrap_or_default()
}

#[pyfunction]
#[pyo3(signature = (name, options, backend=None))]
pub fn create(
    py: Python<'_>,
    name: &Bound<'_, PyAny>,
    options: CreateKeywords,
    backend: Backend<'_, '_>,
) -> PyResult<Pending> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    let config = options.request(py, name, &defaults(&backend))?;
    Ok(made::sandbox(async move { Sandbox::create(&backend, config).await }))
}

/// As [`create`], and the steps of the pull of its image.
#[pyfunction]
#[pyo3(signature = (name, options, backend=None))]
pub fn create_with_progress(
    py: Python<'_>,
    name: &Bound<'_, PyAny>,
    options: CreateKeywords,
    backend: Backend<'_, '_>,
) -> PyResult<(Pending, NativePullEvents)> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    let config = options.request(py, name, &defaults(&backend))?;
    let (report, events) = registry::steps();
    let work = async move { Sandbox::create_with_progress(&backend, config, Some(report)).await };
    Ok((made::sandbox(work), events))
}

#[pyfunction]
#[pyo3(signature = (name, options, backend=None))]
pub fn connect_or_create(
    py: Python<'_>,
    name: &Bound<'_, PyAny>,
    options: CreateKeywords,
    backend: Backend<'_, '_>,
) -> PyResult<Pending> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    let config = options.request(py, name, &defaults(&backend))?;
    Ok(made::sandbox(async move { Sandbox::connect_or_create(&backend, config).await }))
}

#[pyfunction]
#[pyo3(signature = (name, detached, backend=None))]
pub fn start(
    py: Python<'_>,
    name: &Bound<'_, PyAny>,
    detached: &Bound<'_, PyAny>,
    backend: Backend<'_, '_>,
) -> PyResult<Pending> {
    let (Text(name), Flag(detached)) = (argument(name, "name")?, argument(detached, "detached")?);
    let backend = chosen(py, backend)?;
    Ok(made::sandbox(async move { Sandbox::start(&backend, &name, detached).await }))
}

#[pyfunction]
#[pyo3(signature = (name, backend=None))]
pub fn get(py: Python<'_>, name: &Bound<'_, PyAny>, backend: Backend<'_, '_>) -> PyResult<Pending> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move { Sandbox::get(&backend, &name).await.map(NativeHandle::new) }))
}

#[pyfunction]
#[pyo3(signature = (cursor, limit, labels, backend=None))]
pub fn list(
    py: Python<'_>,
    cursor: &Bound<'_, PyAny>,
    limit: &Bound<'_, PyAny>,
    labels: &Bound<'_, PyAny>,
    backend: Backend<'_, '_>,
) -> PyResult<Pending> {
    let limit = match optional::<Integer>(limit, "limit")? {
        Some(Integer(limit)) if !(1..=100).contains(&limit) => {
            return Err(crate::errors::invalid_config(py, format!("limit must be 1 to 100: got {limit}")));
        }
        limit => limit.map(|limit| limit.0 as u32),
    };
    let query = ListQuery {
        cursor: optional::<Text>(cursor, "cursor")?.map(|text| text.0),
        limit,
        labels: optional::<StrMap>(labels, "labels")?.map(|map| map.0).unwrap_or_default(),
        ..ListQuery::default()
    };
    let backend = chosen(py, backend)?;
    Ok(Pending::new(async move {
        let page = Sandbox::list(&backend, query).await?;
        Ok((page.sandboxes.into_iter().map(NativeHandle::new).collect::<Vec<_>>(), page.next_cursor))
    }))
}

#[pyfunction]
#[pyo3(signature = (name, backend=None))]
pub fn remove(py: Python<'_>, name: &Bound<'_, PyAny>, backend: Backend<'_, '_>) -> PyResult<Pending> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    Ok(Pending::unattended(async move { Sandbox::remove(&backend, &name).await }))
}

/// A running sandbox.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeSandbox {
    sandbox: Owned<Arc<Sandbox>>,
}

impl NativeSandbox {
    pub fn new(sandbox: Arc<Sandbox>) -> Self {
        NativeSandbox { sandbox: Owned::new(sandbox) }
    }

    fn share(&self, py: Python<'_>) -> PyResult<Arc<Sandbox>> {
        self.sandbox.get(py).cloned()
    }

    fn run(&self, py: Python<'_>, cmd: impl FnOnce(&Sandbox) -> Command, options: ExecKeywords) -> PyResult<Pending> {
        let mut options = options.request()?;
        if options.stdin == microsandbox_core::model::StdinSource::Pipe {
            let text = "Stdin.pipe() needs a streaming call: nothing could write to it while exec waits";
            return Err(pyo3::exceptions::PyValueError::new_err(text));
        }
        let sandbox = self.share(py)?;
        let command = cmd(&sandbox);
        Ok(Pending::new(async move {
            let (cmd, args) = command?;
            options.args = args.unwrap_or(options.args);
            sandbox.exec(cmd, options).await.map(ExecOutput::new)
        }))
    }

    fn run_stream(
        &self,
        py: Python<'_>,
        cmd: impl FnOnce(&Sandbox) -> Command,
        options: ExecKeywords,
    ) -> PyResult<Pending> {
        let mut options = options.request()?;
        let sandbox = self.share(py)?;
        let command = cmd(&sandbox);
        Ok(Pending::new(async move {
            let (cmd, args) = command?;
            options.args = args.unwrap_or(options.args);
            let limit = options.max_output_bytes;
            Ok(NativeExec::new(sandbox.exec_stream(cmd, options).await?, limit))
        }))
    }
}

/// A program, and its arguments unless those of the request count.
type Command = microsandbox_core::MicrosandboxResult<(String, Option<Vec<String>>)>;

fn shell_of(script: String) -> impl FnOnce(&Sandbox) -> Command {
    move |sandbox| {
        let (cmd, args) = sandbox.shell_command(script);
        Ok((cmd, Some(args)))
    }
}

fn default_of(sandbox: &Sandbox) -> Command {
    sandbox.default_command().map(|(cmd, args)| (cmd, Some(args)))
}

#[pymethods]
impl NativeSandbox {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.sandbox.get(py)?.name())
    }
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.sandbox.get(py)?.id())
    }
    /// Empty where this object did not boot it.
    #[getter]
    fn boot_timings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        boot_steps(py, self.sandbox.get(py)?.boot_timings())
    }
    #[getter]
    fn owns_lifecycle(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.sandbox.get(py)?.owns_lifecycle())
    }
    #[getter]
    fn backend_kind(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.sandbox.get(py)?.backend_kind().as_str())
    }
    #[getter]
    fn isolation(&self, py: Python<'_>) -> PyResult<Option<Member<model::Isolation>>> {
        Ok(self.sandbox.get(py)?.isolation().map(Member))
    }
    #[getter]
    fn asked_isolation(&self, py: Python<'_>) -> PyResult<Member<model::Isolation>> {
        Ok(Member(self.sandbox.get(py)?.spec().isolation))
    }
    #[getter]
    fn backend(&self, py: Python<'_>) -> PyResult<NativeBackend> {
        Ok(NativeBackend::new(self.sandbox.get(py)?.backend().clone()))
    }
    fn fs(&self, py: Python<'_>) -> PyResult<NativeFs> {
        let sandbox = self.sandbox.get(py)?;
        Ok(NativeFs::new(sandbox.backend().clone(), sandbox.name()))
    }

    fn exec(&self, py: Python<'_>, cmd: &Bound<'_, PyAny>, options: ExecKeywords) -> PyResult<Pending> {
        let Word(cmd) = argument(cmd, "cmd")?;
        self.run(py, |_| Ok((cmd, None)), options)
    }
    fn exec_stream(&self, py: Python<'_>, cmd: &Bound<'_, PyAny>, options: ExecKeywords) -> PyResult<Pending> {
        let Word(cmd) = argument(cmd, "cmd")?;
        self.run_stream(py, |_| Ok((cmd, None)), options)
    }
    fn shell(&self, py: Python<'_>, script: &Bound<'_, PyAny>, options: ExecKeywords) -> PyResult<Pending> {
        let Word(script) = argument(script, "script")?;
        self.run(py, shell_of(script), options)
    }
    fn shell_stream(&self, py: Python<'_>, script: &Bound<'_, PyAny>, options: ExecKeywords) -> PyResult<Pending> {
        let Word(script) = argument(script, "script")?;
        self.run_stream(py, shell_of(script), options)
    }
    fn exec_default(&self, py: Python<'_>, options: ExecKeywords) -> PyResult<Pending> {
        self.run(py, default_of, options)
    }
    fn exec_default_stream(&self, py: Python<'_>, options: ExecKeywords) -> PyResult<Pending> {
        self.run_stream(py, default_of, options)
    }

    fn exec_detached(&self, py: Python<'_>, cmd: &Bound<'_, PyAny>, options: ExecKeywords) -> PyResult<Pending> {
        let (Word(cmd), options, sandbox) = (argument(cmd, "cmd")?, options.request()?, self.share(py)?);
        Ok(Pending::new(async move { sandbox.exec_detached(cmd, options).await.map(JobInfo) }))
    }
    fn jobs(&self, py: Python<'_>) -> PyResult<NativeJobs> {
        let sandbox = self.sandbox.get(py)?;
        Ok(NativeJobs::new(sandbox.backend().clone(), sandbox.name()))
    }
    /// Binds this terminal to a program: of this name, else the default command.
    fn attach(
        &self,
        py: Python<'_>,
        cmd: &Bound<'_, PyAny>,
        options: ExecKeywords,
        detach_keys: &Bound<'_, PyAny>,
    ) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        let command = match optional::<Word>(cmd, "cmd")? {
            Some(Word(cmd)) => (cmd, None),
            None => {
                let (cmd, args) = sandbox.default_command().map_err(|error| errors::to_python(py, error))?;
                (cmd, Some(args))
            }
        };
        crate::attach::attach(py, sandbox, command, options.request()?, detach_keys)
    }
    /// The same with the sandbox's shell.
    fn attach_shell(&self, py: Python<'_>, options: ExecKeywords, detach_keys: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        let command = (sandbox.shell().to_owned(), None);
        crate::attach::attach(py, sandbox, command, options.request()?, detach_keys)
    }

    fn logs(&self, py: Python<'_>, options: LogKeywords) -> PyResult<Pending> {
        let (sandbox, options) = (self.share(py)?, options.request());
        Ok(Pending::new(
            async move { Ok(sandbox.logs(options).await?.into_iter().map(LogEntry::new).collect::<Vec<_>>()) },
        ))
    }
    fn log_stream(&self, py: Python<'_>, options: LogStreamKeywords) -> PyResult<Pending> {
        let (sandbox, options) = (self.share(py)?, options.request());
        Ok(Pending::new(async move { sandbox.log_stream(options).await.map(NativeLogStream::new) }))
    }
    fn metrics(&self, py: Python<'_>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        Ok(Pending::new(async move { sandbox.metrics().await.map(SandboxMetrics::new) }))
    }
    fn metrics_stream(&self, py: Python<'_>, interval: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let interval = argument::<Seconds>(interval, "interval")?.duration();
        let sandbox = self.share(py)?;
        Ok(Pending::new(async move { Ok(NativeMetricsStream::new(sandbox.metrics_stream(interval))) }))
    }
    fn isolation_report(&self, py: Python<'_>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        Ok(Pending::new(async move { sandbox.isolation_report().await.map(IsolationReport) }))
    }

    /// The record, read now.
    fn handle(&self, py: Python<'_>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        Ok(Pending::new(async move { sandbox.handle().await.map(NativeHandle::new) }))
    }
    fn ping(&self, py: Python<'_>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        Ok(Pending::new(async move { Ok(sandbox.ping().await?.as_secs_f64() * 1000.0) }))
    }
    fn touch(&self, py: Python<'_>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        Ok(Pending::new(async move { sandbox.touch().await }))
    }
    /// Without a timeout it waits without limit.
    fn stop(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let timeout = optional::<Seconds>(timeout, "timeout")?.map_or(Duration::MAX, |seconds| seconds.duration());
        let sandbox = self.share(py)?;
        Ok(Pending::unattended(async move { sandbox.stop(Some(timeout)).await }))
    }
    fn stop_with_timeout(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let timeout = argument::<Seconds>(timeout, "timeout")?.duration();
        let sandbox = self.share(py)?;
        Ok(Pending::unattended(async move { sandbox.stop_with_timeout(timeout).await }))
    }
    fn kill(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let timeout = optional::<Seconds>(timeout, "timeout")?.map(|seconds| seconds.duration());
        let sandbox = self.share(py)?;
        Ok(Pending::unattended(async move { sandbox.kill(timeout).await }))
    }
    fn destroy(&self, py: Python<'_>, force: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let Flag(force) = argument(force, "force")?;
        let timeout = optional::<Seconds>(timeout, "timeout")?.map(|seconds| seconds.duration());
        let sandbox = self.share(py)?;
        Ok(Pending::unattended(async move { sandbox.destroy(force, timeout).await }))
    }
    fn request_stop(&self, py: Python<'_>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        Ok(Pending::unattended(async move { sandbox.request_stop().await }))
    }
    fn request_kill(&self, py: Python<'_>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        Ok(Pending::unattended(async move { sandbox.request_kill().await }))
    }
    fn request_drain(&self, py: Python<'_>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        Ok(Pending::unattended(async move { sandbox.request_drain().await }))
    }
    fn wait_until_stopped(&self, py: Python<'_>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        Ok(Pending::new(async move { sandbox.wait_until_stopped().await.map(SandboxStopResult::new) }))
    }
    fn detach(&self, py: Python<'_>) -> PyResult<Pending> {
        let sandbox = self.share(py)?;
        Ok(Pending::unattended(async move { sandbox.detach().await }))
    }
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let sandbox = self.sandbox.get(py)?;
        Ok(format!("Sandbox(name={:?}, backend_kind={:?})", sandbox.name(), sandbox.backend_kind().as_str()))
    }
}
