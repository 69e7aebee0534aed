//! Programs: keywords, results, events and the handle of a running one.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use microsandbox_core::agent::Captures;
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
    exit: model::ExecExit,
    stdout: Output,
    stderr: Output,
}

/// One stream: bytes of Rust until Python asks for them, then only the object that it got.
struct Output {
    collected: Mutex<Bytes>,
    object: PyOnceLock<Py<PyBytes>>,
    kept: u64,
    total: u64,
}

impl Output {
    fn new(collected: Bytes, total: u64) -> Self {
        let kept = collected.len() as u64;
        Output { collected: Mutex::new(collected), object: PyOnceLock::new(), kept, total }
    }
    fn bytes<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        let object = self.object.get_or_init(py, || {
            let collected = std::mem::take(&mut *self.collected.lock().unwrap_or_else(PoisonError::into_inner));
            PyBytes::new(py, &collected).unbind()
        });
        object.bind(py)
    }
    fn is_truncated(&self) -> bool {
        self.total > self.kept
    }
    /// Less the parts of characters that a bound or the end of the wait cut.
    fn text<'py>(&self, py: Python<'py>, exit: &model::ExecExit) -> PyResult<Bound<'py, PyString>> {
        let bytes = self.bytes(py);
        let characters = model::whole_characters(bytes.as_bytes(), self.is_truncated(), exit.is_cut_short());
        let cut = (characters.len() < bytes.as_bytes().len()).then(|| PyBytes::new(py, characters));
        PyString::from_encoded_object(cut.as_ref().unwrap_or(bytes), Some(c"utf-8"), Some(c"strict"))
    }
}

/// The exit, what was kept of both streams, and how much there was.
pub type OutputParts<'a, 'py> = (&'a model::ExecExit, &'a Bound<'py, PyBytes>, &'a Bound<'py, PyBytes>, u64, u64);

impl ExecOutput {
    pub fn new(output: model::ExecOutput) -> Self {
        ExecOutput {
            exit: output.exit,
            stdout: Output::new(output.stdout, output.stdout_total),
            stderr: Output::new(output.stderr, output.stderr_total),
        }
    }
    pub fn parts<'py>(&self, py: Python<'py>) -> OutputParts<'_, 'py> {
        (&self.exit, self.stdout.bytes(py), self.stderr.bytes(py), self.stdout.total, self.stderr.total)
    }
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
        self.exit.code
    }
    /// Whether the exit status is 0.
    #[getter]
    fn success(&self) -> bool {
        self.exit.code == 0
    }
    /// Standard output as bytes.
    #[getter]
    fn stdout_bytes<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.stdout.bytes(py)
    }
    /// Standard error as bytes.
    #[getter]
    fn stderr_bytes<'py>(&self, py: Python<'py>) -> &Bound<'py, PyBytes> {
        self.stderr.bytes(py)
    }
    /// Standard output as UTF-8 text. Raises UnicodeDecodeError for anything else. Parts of a character that
    /// `max_output_bytes` or a timeout cut are left out.
    #[getter]
    fn stdout_text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.stdout.text(py, &self.exit)
    }
    /// Standard error as UTF-8 text, as `stdout_text`.
    #[getter]
    fn stderr_text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.stderr.text(py, &self.exit)
    }
    /// Whether the sandbox's memory limit ended a process of this run.
    #[getter]
    fn oom_killed(&self) -> bool {
        self.exit.oom_killed
    }
    /// Whether its timeout ended it.
    #[getter]
    fn timed_out(&self) -> bool {
        self.exit.timed_out
    }
    /// The signal that ended it, if one did.
    #[getter]
    fn signal(&self) -> Option<i32> {
        self.exit.signal
    }
    /// Seconds from start to exit, measured in the guest.
    #[getter]
    fn duration(&self) -> f64 {
        self.exit.duration.as_secs_f64()
    }
    /// Whether older bytes of standard output were dropped for `max_output_bytes`.
    #[getter]
    fn stdout_truncated(&self) -> bool {
        self.stdout.is_truncated()
    }
    /// Whether older bytes of standard error were dropped for `max_output_bytes`.
    #[getter]
    fn stderr_truncated(&self) -> bool {
        self.stderr.is_truncated()
    }
    /// Bytes written to standard output, kept or not.
    #[getter]
    fn stdout_total(&self) -> u64 {
        self.stdout.total
    }
    /// Bytes written to standard error, kept or not.
    #[getter]
    fn stderr_total(&self) -> u64 {
        self.stderr.total
    }
    fn __repr__(&self) -> String {
        format!(
            "ExecOutput(exit_code={}, stdout={} bytes, stderr={} bytes)",
            self.exit.code, self.stdout.total, self.stderr.total
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

/// Reads what is left of a run, within the same bounds as `exec`.
async fn collect(handle: &model::ExecHandle, limit: Option<u64>) -> MicrosandboxResult<model::ExecOutput> {
    let mut output = Captures::new(limit);
    while let Some(event) = handle.recv().await? {
        match event {
            model::ExecEvent::Stdout(data) => output.stdout(&data),
            model::ExecEvent::Stderr(data) => output.stderr(&data),
            model::ExecEvent::Exited(exit) => return output.finish(exit),
            model::ExecEvent::Failed(failure) => return Err(MicrosandboxError::ExecFailed(Box::new(failure))),
            model::ExecEvent::Started { .. } | model::ExecEvent::StdinError { .. } => {}
        }
        if let Some(error) = output.overflow() {
            return Err(error);
        }
    }
    Err(MicrosandboxError::InvalidState("the end of this run was already received".into()))
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
