//! Programs: keywords, results, events and the handle of a running one.

use std::sync::{Arc, OnceLock};

use microsandbox_core::model::{self, ExecOptions, StdinSource};
use microsandbox_core::{MicrosandboxError, MicrosandboxResult};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use tokio::sync::oneshot;

use crate::arguments::{self, Cells, Count, Data, Env, Flag, Integer, Seconds, Word, Words, argument, keywords};
use crate::enums::{ExecEventType, Member, PythonEnum, RlimitResource, StdinMode};
use crate::runtime::{Owned, Pending};
use crate::values::{self, Reduced};

keywords! {
    /// What every call that runs a program takes.
    pub struct ExecKeywords {
        args: Args,
        cwd: Word,
        user: Word,
        env: Env,
        timeout: Seconds,
        stdin: Stdin,
        stdin_data: Data,
        tty: Flag,
        rlimits: Rlimits,
        max_output_bytes: Count,
    }
}

/// Arguments of a program.
pub struct Args(Vec<String>);

impl<'a, 'py> FromPyObject<'a, 'py> for Args {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let texts = object.extract::<Words>().map_err(|_| PyTypeError::new_err("args must be a list of strings"))?;
        Ok(Args(texts.0))
    }
}

/// `Stdin`, or the bytes to send.
pub struct Stdin(StdinSource);

impl<'a, 'py> FromPyObject<'a, 'py> for Stdin {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(Data(data)) = object.extract::<Data>() {
            return Ok(Stdin(StdinSource::Bytes(data)));
        }
        let class = arguments::types(object.py())?.getattr("Stdin")?;
        if !object.is_instance(&class)? {
            let text = format!("stdin must be Stdin or bytes, not {}", arguments::type_name(&object));
            return Err(PyTypeError::new_err(text));
        }
        let mode = object.getattr("_mode")?.extract::<Member<StdinMode>>();
        match mode.map_err(|e| arguments::named(object.py(), "Stdin._mode", e))?.0 {
            StdinMode::Null => Ok(Stdin(StdinSource::Null)),
            StdinMode::Pipe => Ok(Stdin(StdinSource::Pipe)),
            StdinMode::Bytes => {
                let data = object.getattr("_data")?.extract::<Data>();
                Ok(Stdin(StdinSource::Bytes(data.map_err(|e| arguments::named(object.py(), "Stdin.bytes()", e))?.0)))
            }
        }
    }
}

/// A list of `Rlimit`.
pub struct Rlimits(pub Vec<model::Rlimit>);

impl<'a, 'py> FromPyObject<'a, 'py> for Rlimits {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if !object.is_instance_of::<PyList>() && !object.is_instance_of::<PyTuple>() {
            let text = format!("rlimits must be a list of Rlimit, not {}", arguments::type_name(&object));
            return Err(PyTypeError::new_err(text));
        }
        let class = arguments::types(object.py())?.getattr("Rlimit")?;
        object.try_iter()?.map(|item| one_rlimit(&item?, &class)).collect::<PyResult<_>>().map(Rlimits)
    }
}

fn one_rlimit(item: &Bound<'_, PyAny>, class: &Bound<'_, PyAny>) -> PyResult<model::Rlimit> {
    if !item.is_instance(class)? {
        return Err(PyTypeError::new_err(format!("rlimit must be Rlimit, not {}", arguments::type_name(item))));
    }
    let field = |name: &str| {
        let value = item.getattr(name)?.extract::<Count>();
        value.map(|count| count.0).map_err(|e| arguments::named(item.py(), &format!("Rlimit.{name}"), e))
    };
    let resource = item.getattr("resource")?.extract::<Member<RlimitResource>>();
    let resource = resource.map_err(|e| arguments::named(item.py(), "Rlimit.resource", e))?.0.value().to_owned();
    let (soft, hard) = (field("soft")?, field("hard")?);
    if soft > hard {
        return Err(PyValueError::new_err(format!("rlimit {resource}: soft {soft} is above hard {hard}")));
    }
    Ok(model::Rlimit { resource, soft, hard })
}

impl ExecKeywords {
    /// The request; refuses combinations that contradict each other.
    pub fn request(self) -> PyResult<ExecOptions> {
        let stdin = match (self.stdin, self.stdin_data) {
            (Some(_), Some(_)) => return Err(PyValueError::new_err("stdin and stdin_data exclude each other")),
            (Some(Stdin(source)), None) => source,
            (None, Some(Data(data))) => StdinSource::Bytes(data),
            (None, None) => StdinSource::Null,
        };
        Ok(ExecOptions {
            args: self.args.map(|args| args.0).unwrap_or_default(),
            cwd: self.cwd.map(|text| text.0),
            user: self.user.map(|text| text.0),
            env: self.env.map(|env| env.0.into_iter().collect()).unwrap_or_default(),
            timeout: self.timeout.map(|seconds| seconds.duration()),
            stdin,
            tty: self.tty.is_some_and(|flag| flag.0),
            rows: 24,
            cols: 80,
            rlimits: self.rlimits.map(|limits| limits.0).unwrap_or_default(),
            max_output_bytes: self.max_output_bytes.map(|count| count.0),
            detachable: false,
        })
    }
}

/// A finished run with its output.
///
/// Example: `out = await sb.exec("make"); print(out.exit_code, out.stdout_text, out.duration)`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct ExecOutput {
    pub output: model::ExecOutput,
    stdout: PyOnceLock<Py<PyBytes>>,
    stderr: PyOnceLock<Py<PyBytes>>,
}

impl ExecOutput {
    pub fn new(output: model::ExecOutput) -> Self {
        ExecOutput { output, stdout: PyOnceLock::new(), stderr: PyOnceLock::new() }
    }
}

/// `characters` is `bytes` less what was cut off at an end.
fn decode<'py>(bytes: &Bound<'py, PyBytes>, characters: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let py = bytes.py();
    let cut = (characters.len() < bytes.as_bytes().len()).then(|| PyBytes::new(py, characters));
    PyString::from_encoded_object(cut.as_ref().unwrap_or(bytes), Some(c"utf-8"), Some(c"strict"))
}

#[pymethods]
impl ExecOutput {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// What a notebook shows.
    fn _repr_html_(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        slf.py().import("microsandbox._notebook")?.call_method1("exec_output", (slf,))
    }
    /// Exit status, or 128 + signal.
    #[getter]
    fn exit_code(&self) -> i32 {
        self.output.exit.code
    }
    /// Whether the exit status is 0.
    #[getter]
    fn success(&self) -> bool {
        self.output.success()
    }
    /// Standard output as bytes.
    #[getter]
    fn stdout_bytes<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.stdout.get_or_init(py, || PyBytes::new(py, &self.output.stdout).unbind()).bind(py)
    }
    /// Standard error as bytes.
    #[getter]
    fn stderr_bytes<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.stderr.get_or_init(py, || PyBytes::new(py, &self.output.stderr).unbind()).bind(py)
    }
    /// Standard output as UTF-8 text. Raises UnicodeDecodeError for anything else. Parts of a character that
    /// `max_output_bytes` or a timeout cut are left out.
    #[getter]
    fn stdout_text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        decode(self.stdout_bytes(py), self.output.stdout_characters())
    }
    /// Standard error as UTF-8 text, as `stdout_text`.
    #[getter]
    fn stderr_text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        decode(self.stderr_bytes(py), self.output.stderr_characters())
    }
    /// Whether the sandbox's memory limit ended a process of this run.
    #[getter]
    fn oom_killed(&self) -> bool {
        self.output.exit.oom_killed
    }
    /// Whether its timeout ended it.
    #[getter]
    fn timed_out(&self) -> bool {
        self.output.exit.timed_out
    }
    /// The signal that ended it, if one did.
    #[getter]
    fn signal(&self) -> Option<i32> {
        self.output.exit.signal
    }
    /// Seconds from start to exit, measured in the guest.
    #[getter]
    fn duration(&self) -> f64 {
        self.output.exit.duration.as_secs_f64()
    }
    /// Whether older bytes of standard output were dropped for `max_output_bytes`.
    #[getter]
    fn stdout_truncated(&self) -> bool {
        self.output.stdout_truncated()
    }
    /// Whether older bytes of standard error were dropped for `max_output_bytes`.
    #[getter]
    fn stderr_truncated(&self) -> bool {
        self.output.stderr_truncated()
    }
    /// Bytes written to standard output, kept or not.
    #[getter]
    fn stdout_total(&self) -> u64 {
        self.output.stdout_total
    }
    /// Bytes written to standard error, kept or not.
    #[getter]
    fn stderr_total(&self) -> u64 {
        self.output.stderr_total
    }
    fn __repr__(&self) -> String {
        let output = &self.output;
        format!(
            "ExecOutput(exit_code={}, stdout={} bytes, stderr={} bytes)",
            output.exit.code, output.stdout_total, output.stderr_total
        )
    }
}

/// Something that happened to a running program.
///
/// Example: `print(event.event_type, event.pid, event.data, event.code)`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct ExecEvent {
    pub event: model::ExecEvent,
}

#[pymethods]
impl ExecEvent {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// What kind of event this is.
    #[getter]
    fn event_type(&self) -> Member<ExecEventType> {
        use model::ExecEvent as Event;
        Member(match self.event {
            Event::Started { .. } => ExecEventType::Started,
            Event::Stdout(_) => ExecEventType::Stdout,
            Event::Stderr(_) => ExecEventType::Stderr,
            Event::StdinError { .. } => ExecEventType::StdinError,
            Event::Exited(_) => ExecEventType::Exited,
            Event::Failed(_) => ExecEventType::Failed,
        })
    }
    /// Process id in the guest; STARTED only.
    #[getter]
    fn pid(&self) -> Option<u32> {
        use model::ExecEvent as Event;
        match self.event {
            Event::Started { pid } => Some(pid),
            Event::Stdout(_) | Event::Stderr(_) | Event::StdinError { .. } | Event::Exited(_) | Event::Failed(_) => {
                None
            }
        }
    }
    /// Output, or the error text of FAILED and STDIN_ERROR.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        use model::ExecEvent as Event;
        match &self.event {
            Event::Stdout(data) | Event::Stderr(data) => Some(PyBytes::new(py, data)),
            Event::Failed(failure) => Some(PyBytes::new(py, failure.message.as_bytes())),
            Event::StdinError { message, .. } => Some(PyBytes::new(py, message.as_bytes())),
            Event::Started { .. } | Event::Exited(_) => None,
        }
    }
    /// Exit status of EXITED; errno of FAILED and STDIN_ERROR.
    #[getter]
    fn code(&self) -> Option<i32> {
        use model::ExecEvent as Event;
        match &self.event {
            Event::Exited(exit) => Some(exit.code),
            Event::Failed(failure) => failure.errno,
            Event::StdinError { errno, .. } => *errno,
            Event::Started { .. } | Event::Stdout(_) | Event::Stderr(_) => None,
        }
    }
    fn __repr__(&self) -> String {
        use model::ExecEvent as Event;
        let kind = self.event_type().0.value().to_ascii_uppercase();
        match &self.event {
            Event::Stdout(data) | Event::Stderr(data) => format!("ExecEvent({kind}, {} bytes)", data.len()),
            Event::Started { pid } => format!("ExecEvent({kind}, pid={pid})"),
            Event::StdinError { .. } | Event::Exited(_) | Event::Failed(_) => match self.code() {
                Some(code) => format!("ExecEvent({kind}, code={code})"),
                None => format!("ExecEvent({kind})"),
            },
        }
    }
}

/// A running program.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeExec {
    handle: Owned<Arc<model::ExecHandle>>,
    limit: Option<u64>,
    id: String,
    /// While this object lives, a task reads the output and discards it.
    discarding: OnceLock<oneshot::Sender<()>>,
}

impl NativeExec {
    pub fn new(handle: model::ExecHandle, limit: Option<u64>) -> Self {
        let id = handle.id().to_owned();
        NativeExec { handle: Owned::new(Arc::new(handle)), limit, id, discarding: OnceLock::new() }
    }

    fn share(&self, py: Python<'_>) -> PyResult<Arc<model::ExecHandle>> {
        self.handle.get(py).cloned()
    }
}

#[pymethods]
impl NativeExec {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    #[getter]
    fn id(&self) -> &str {
        &self.id
    }
    fn take_stdin(&self, py: Python<'_>) -> PyResult<Option<NativeSink>> {
        Ok(self.handle.get(py)?.take_stdin().map(|sink| NativeSink { sink: Owned::new(sink) }))
    }
    fn recv(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::next(async move { Ok(handle.recv().await?.map(|event| ExecEvent { event })) }))
    }
    fn wait(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.wait().await.map(|exit| (exit.code, exit.code == 0)) }))
    }
    fn collect(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        let limit = self.limit;
        Ok(Pending::new(async move { collect(&handle, limit).await.map(ExecOutput::new) }))
    }
    fn signal(&self, py: Python<'_>, sig: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let Integer(sig) = argument(sig, "sig")?;
        if !(1..=64).contains(&sig) {
            return Err(PyValueError::new_err(format!("sig must be 1 to 64: got {sig}")));
        }
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.signal(sig).await }))
    }
    fn kill(&self, py: Python<'_>) -> PyResult<Pending> {
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.kill().await }))
    }
    fn resize(&self, py: Python<'_>, rows: &Bound<'_, PyAny>, cols: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (Cells(rows), Cells(cols)) = (argument(rows, "rows")?, argument(cols, "cols")?);
        let handle = self.share(py)?;
        Ok(Pending::new(async move { handle.resize(rows, cols).await }))
    }
    /// Discards the output as it comes, for a caller that reads it from the log: a program whose output is not taken
    /// blocks. For as long as this object lives.
    fn discard_output(&self, py: Python<'_>) -> PyResult<()> {
        let handle = self.share(py)?;
        let (here, gone) = oneshot::channel::<()>();
        if self.discarding.set(here).is_ok() {
            crate::runtime::handle()?.spawn(async move {
                let reading = async { while let Ok(Some(_)) = handle.recv().await {} };
                futures::future::select(std::pin::pin!(reading), gone).await;
            });
        }
        Ok(())
    }
}

/// Reads what is left of a run. With a limit the newest bytes are kept; without one, more than the default bound is
/// an error, because it would silently cost that much memory.
async fn collect(handle: &model::ExecHandle, limit: Option<u64>) -> MicrosandboxResult<model::ExecOutput> {
    let mut stdout = Collected::new(limit);
    let mut stderr = Collected::new(limit);
    while let Some(event) = handle.recv().await? {
        match event {
            model::ExecEvent::Stdout(data) => stdout.push(&data)?,
            model::ExecEvent::Stderr(data) => stderr.push(&data)?,
            model::ExecEvent::Exited(exit) => {
                return Ok(model::ExecOutput {
                    exit,
                    stdout_total: stdout.total,
                    stderr_total: stderr.total,
                    stdout: stdout.finish(),
                    stderr: stderr.finish(),
                });
            }
            model::ExecEvent::Failed(failure) => return Err(MicrosandboxError::ExecFailed(Box::new(failure))),
            model::ExecEvent::Started { .. } | model::ExecEvent::StdinError { .. } => {}
        }
    }
    Err(MicrosandboxError::InvalidState("the end of this run was already received".into()))
}

struct Collected {
    data: Vec<u8>,
    total: u64,
    limit: Option<usize>,
}

impl Collected {
    fn new(limit: Option<u64>) -> Self {
        Collected { data: Vec::new(), total: 0, limit: limit.map(|l| usize::try_from(l).unwrap_or(usize::MAX)) }
    }
    fn push(&mut self, data: &[u8]) -> MicrosandboxResult<()> {
        self.total += data.len() as u64;
        self.data.extend_from_slice(data);
        match self.limit {
            // Trimmed at twice the limit, so that each byte moves at most once.
            Some(limit) if self.data.len() / 2 > limit => self.trim(limit),
            Some(_) => {}
            None if self.total > model::CAPTURE_BYTES => {
                return Err(MicrosandboxError::OutputLimit {
                    limit: model::CAPTURE_BYTES,
                    kept: 0,
                    dropped: self.total,
                });
            }
            None => {}
        }
        Ok(())
    }
    fn trim(&mut self, limit: usize) {
        let surplus = self.data.len().saturating_sub(limit);
        self.data.drain(..surplus);
    }
    fn finish(mut self) -> bytes::Bytes {
        if let Some(limit) = self.limit {
            self.trim(limit);
        }
        self.data.into()
    }
}

/// Standard input of a running program.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeSink {
    sink: Owned<model::ExecSink>,
}

#[pymethods]
impl NativeSink {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let Data(data) = data.extract().map_err(|e| arguments::named(py, "data", e))?;
        let sink = self.sink.get(py)?.clone();
        Ok(Pending::new(async move { sink.write(data).await }))
    }
    fn close(&self, py: Python<'_>) -> PyResult<Pending> {
        let sink = self.sink.get(py)?.clone();
        Ok(Pending::new(async move { sink.close().await }))
    }
}
