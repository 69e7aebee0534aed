//! The record of a sandbox in any state.

use std::sync::Arc;
use std::time::Duration;

use microsandbox_core::SandboxHandle;
use microsandbox_core::model::{self, SandboxStatus};
use pyo3::prelude::*;

use crate::arguments::{self, Flag, Seconds, argument, optional};
use crate::backend::NativeBackend;
use crate::enums::Member;
use crate::isolation::IsolationReport;
use crate::jobs::NativeJobs;
use crate::logs::{LogEntry, LogKeywords, LogStreamKeywords, NativeLogStream};
use crate::made;
use crate::metrics::SandboxMetrics;
use crate::modify::{ModifyKeywords, Plan};
use crate::runtime::{Owned, Pending};
use crate::sandbox::NativeSandbox;
use crate::values::{self, Reduced};

/// How a sandbox ended, as a wait for its end saw it.
///
/// Example: `result = await sb.wait_until_stopped(); print(result.status, result.exit_code)`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct SandboxStopResult {
    pub result: model::SandboxStopResult,
}

impl SandboxStopResult {
    pub fn new(result: model::SandboxStopResult) -> Self {
        SandboxStopResult { result }
    }
}

#[pymethods]
impl SandboxStopResult {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// Name of the sandbox.
    #[getter]
    fn name(&self) -> &str {
        &self.result.name
    }
    /// STOPPED or CRASHED.
    #[getter]
    fn status(&self) -> Member<SandboxStatus> {
        Member(self.result.status)
    }
    /// Exit status of the run, where known.
    #[getter]
    fn exit_code(&self) -> Option<i32> {
        self.result.exit_code
    }
    /// Signal that ended the run, if one did.
    #[getter]
    fn signal(&self) -> Option<i32> {
        self.result.signal
    }
    /// When the end was seen, milliseconds since the epoch.
    #[getter]
    fn observed_at(&self) -> f64 {
        arguments::millis(self.result.observed_at)
    }
    /// Where this is known from.
    #[getter]
    fn source(&self) -> Option<&str> {
        self.result.source.as_deref()
    }
    fn __repr__(&self) -> String {
        let result = &self.result;
        let code = result.exit_code.map_or_else(|| "None".into(), |code| code.to_string());
        format!("SandboxStopResult(name={:?}, status={:?}, exit_code={code})", result.name, result.status)
    }
}

/// A record, and lifecycle by name.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeHandle {
    handle: Owned<Arc<SandboxHandle>>,
}

impl NativeHandle {
    pub fn new(handle: SandboxHandle) -> Self {
        NativeHandle { handle: Owned::new(Arc::new(handle)) }
    }
    fn share(&self, py: Python<'_>) -> PyResult<Arc<SandboxHandle>> {
        self.handle.get(py).cloned()
    }
}

#[pymethods]
impl NativeHandle {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.handle.get(py)?.name())
    }
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.handle.get(py)?.id())
    }
    #[getter]
    fn status(&self, py: Python<'_>) -> PyResult<Member<SandboxStatus>> {
        Ok(Member(self.handle.get(py)?.status_snapshot()))
    }
    #[getter]
    fn config_json(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.handle.get(py)?.config_json())
    }
    #[getter]
    fn created_at(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        Ok(self.handle.get(py)?.created_at().map(arguments::millis))
    }
    #[getter]
    fn updated_at(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        Ok(self.handle.get(py)?.updated_at().map(arguments::millis))
    }
    #[getter]
    fn backend_kind(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.handle.get(py)?.backend_kind().as_str())
    }
    #[getter]
    fn last_error(&self, py: Python<'_>) -> PyResult<Option<&str>> {
        Ok(self.handle.get(py)?.last_error_snapshot())
    }
    #[getter]
    fn isolation(&self, py: Python<'_>) -> PyResult<Option<Member<model::Isolation>>> {
        Ok(self.handle.get(py)?.isolation().map(Member))
    }
    #[getter]
    fn backend(&self, py: Python<'_>) -> PyResult<NativeBackend> {
        Ok(NativeBackend::new(self.handle.get(py)?.backend().clone()))
    }

    fn refresh(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.refresh().await.map(NativeHandle::new) }))
    }
    fn connect(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let timeout = optional::<Seconds>(timeout, "timeout")?.map(|seconds| seconds.duration());
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.connect(timeout).await.map(Arc::new).map(NativeSandbox::new) }))
    }
    fn start(&self, py: Python<'_>, detached: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let Flag(detached) = argument(detached, "detached")?;
        let handle = self.share(py)?;
        Ok(made::sandbox(async move { handle.start(detached).await }))
    }
    fn connect_or_start(&self, py: Python<'_>, detached: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let Flag(detached) = argument(detached, "detached")?;
        let handle = self.share(py)?;
        Ok(made::sandbox(async move { handle.connect_or_start(detached).await }))
    }
    /// Without a timeout it waits without limit.
    fn stop(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let timeout = optional::<Seconds>(timeout, "timeout")?.map_or(Duration::MAX, |seconds| seconds.duration());
        let handle = self.share(py)?;
        Ok(Pending::unattended(async move { handle.stop(Some(timeout)).await }))
    }
    fn stop_with_timeout(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let timeout = argument::<Seconds>(timeout, "timeout")?.duration();
        let handle = self.share(py)?;
        Ok(Pending::unattended(async move { handle.stop_with_timeout(timeout).await }))
    }
    fn kill(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let timeout = optional::<Seconds>(timeout, "timeout")?.map(|seconds| seconds.duration());
        let handle = self.share(py)?;
        Ok(Pending::unattended(async move { handle.kill(timeout).await }))
    }
    fn request_stop(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::unattended(async move { handle.request_stop().await }))
    }
    fn request_kill(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::unattended(async move { handle.request_kill().await }))
    }
    fn request_drain(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::unattended(async move { handle.request_drain().await }))
    }
    fn modify(&self, py: Python<'_>, changes: ModifyKeywords) -> PyResult<Pending> {
        let (handle, asked) = (self.share(py)?, changes.request());
        Ok(Pending::unattended(async move { handle.modify(asked).await.map(Plan) }))
    }
    fn jobs(&self, py: Python<'_>) -> PyResult<NativeJobs> {
        let handle = self.handle.get(py)?;
        Ok(NativeJobs::new(handle.backend().clone(), handle.name()))
    }
    fn pause(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::unattended(async move { handle.pause().await }))
    }
    fn resume(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::unattended(async move { handle.resume().await }))
    }
    fn wait_until_stopped(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.wait_until_stopped().await.map(SandboxStopResult::new) }))
    }
    fn wait_for_status(&self, py: Python<'_>, status: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let Member(wanted) = argument::<Member<SandboxStatus>>(status, "status")?;
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.wait_for_status(wanted).await.map(NativeHandle::new) }))
    }
    fn remove(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::unattended(async move { handle.remove().await }))
    }
    fn logs(&self, py: Python<'_>, options: LogKeywords) -> PyResult<Pending> {
        let (handle, options) = (self.share(py)?, options.request());
        Ok(Pending::new(
            async move { Ok(handle.logs(options).await?.into_iter().map(LogEntry::new).collect::<Vec<_>>()) },
        ))
    }
    fn log_stream(&self, py: Python<'_>, options: LogStreamKeywords) -> PyResult<Pending> {
        let (handle, options) = (self.share(py)?, options.request());
        Ok(Pending::new(async move { handle.log_stream(options).await.map(NativeLogStream::new) }))
    }
    fn metrics(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.metrics().await.map(SandboxMetrics::new) }))
    }
    fn ping(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::new(async move { Ok(handle.ping().await?.as_secs_f64() * 1000.0) }))
    }
    fn touch(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.touch().await }))
    }
    fn isolation_report(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.isolation_report().await.map(IsolationReport) }))
    }
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let handle = self.handle.get(py)?;
        Ok(format!(
            "SandboxHandle(name={:?}, backend_kind={:?}, status={:?})",
            handle.name(),
            handle.backend_kind().as_str(),
            handle.status_snapshot().as_str()
        ))
    }
}
