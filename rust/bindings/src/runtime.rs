//! The tokio runtime behind every call, and [`Pending`], a call that was checked but has not run yet.
//!
//! The runtime is made by the first call that needs one, never at import, and belongs to one process: a forked child
//! finds no slot with its process id and makes its own. The old one is leaked there on purpose, because its worker
//! threads do not exist in the child and joining them would hang.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use microsandbox_core::model::SandboxStatus;
use microsandbox_core::{MicrosandboxError, MicrosandboxResult};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{self, ContextExt, Runtime};

use crate::enums::Member;
use crate::errors;
use crate::made::Made;
use crate::values;

/// How long a blocking wait goes without looking for Ctrl-C.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);
/// How long the exit of the interpreter waits for stops and removals that were left to finish in the background.
const EXIT_GRACE: Duration = Duration::from_secs(5);
const FORKED: &str = "this object belongs to the process that made it; after a fork, look the sandbox up again";

const NO_LOOP: &str = "no running event loop of asyncio: await this inside a coroutine of asyncio or uvloop; elsewhere, and under trio, \
    use microsandbox.sync (trio.to_thread.run_sync)";

/// One runtime of one process; a list that only grows, so that reading it takes no lock that a fork could freeze.
struct Slot {
    pid: u32,
    handle: tokio::runtime::Handle,
    closed: AtomicBool,
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
    next: OnceLock<Box<Slot>>,
}

static FIRST: OnceLock<Box<Slot>> = OnceLock::new();
static UNATTENDED: AtomicUsize = AtomicUsize::new(0);

fn slots() -> impl Iterator<Item = &'static Slot> {
    std::iter::successors(FIRST.get(), |slot| slot.next.get()).map(Box::as_ref)
}

fn current() -> Option<&'static Slot> {
    let pid = std::process::id();
    slots().find(|slot| slot.pid == pid && !slot.closed.load(Ordering::Acquire))
}

/// The handle of this process's runtime, made now if there is none.
pub fn handle() -> PyResult<tokio::runtime::Handle> {
    if let Some(slot) = current() {
        return Ok(slot.handle.clone());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("microsandbox")
        .enable_all()
        .build()
        .map_err(|e| PyRuntimeError::new_err(format!("cannot start the threads of microsandbox: {e}")))?;
    Ok(install(runtime))
}

fn install(runtime: tokio::runtime::Runtime) -> tokio::runtime::Handle {
    let handle = runtime.handle().clone();
    let mut slot = Box::new(Slot {
        pid: std::process::id(),
        handle: handle.clone(),
        closed: AtomicBool::new(false),
        runtime: Mutex::new(Some(runtime)),
        next: OnceLock::new(),
    });
    loop {
        let end = slots().last().map_or(&FIRST, |last| &last.next);
        match end.set(slot) {
            Ok(()) => break,
            // Another thread appended first: if it is for this process, two runtimes exist and the first one wins.
            Err(ours) => slot = ours,
        }
    }
    current().map_or(handle, |slot| slot.handle.clone())
}

/// Looks up what errors need, while imports are possible. Called by the Python layer when it is loaded.
#[pyfunction(name = "_resolve")]
pub fn resolve(py: Python<'_>) -> PyResult<()> {
    errors::resolve(py)?;
    Member(SandboxStatus::Running).into_pyobject(py).map(drop)
}

/// Ends the runtime before the interpreter goes, so that no worker thread asks a dying interpreter for its lock.
/// Registered with `atexit` by the Python layer; a later call makes a new runtime.
#[pyfunction(name = "_shutdown")]
pub fn shutdown(py: Python<'_>) {
    let Some(slot) = current() else { return };
    py.detach(|| {
        let deadline = Instant::now() + EXIT_GRACE;
        while UNATTENDED.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        slot.closed.store(true, Ordering::Release);
        let runtime = slot.runtime.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    });
}

/// The runtime as pyo3-async-runtimes wants it.
pub struct Reactor;

/// The outcome of a spawned task; `None` when it ran in the call.
pub struct Joined(Option<tokio::task::JoinHandle<()>>);
pub struct JoinFailure(tokio::task::JoinError);

impl generic::JoinError for JoinFailure {
    fn is_panic(&self) -> bool {
        self.0.is_panic()
    }
    fn into_panic(self) -> Box<dyn std::any::Any + Send + 'static> {
        self.0.into_panic()
    }
}

impl Future for Joined {
    type Output = Result<(), JoinFailure>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Some(task) => Pin::new(task).poll(cx).map_err(JoinFailure),
            None => Poll::Ready(Ok(())),
        }
    }
}

fn existing() -> tokio::runtime::Handle {
    // `Pending::await_` makes the runtime before it hands anything to pyo3-async-runtimes, and code that already runs
    // on it can always find it.
    current()
        .map(|slot| slot.handle.clone())
        .or_else(|| tokio::runtime::Handle::try_current().ok())
        .unwrap_or_else(|| unreachable!("the runtime was made before this task"))
}

impl Runtime for Reactor {
    type JoinError = JoinFailure;
    type JoinHandle = Joined;
    fn spawn<F: Future<Output = ()> + Send + 'static>(fut: F) -> Joined {
        Joined(Some(existing().spawn(fut)))
    }
    /// Runs in the call: what pyo3-async-runtimes hands over only reports a result to a loop. That waits for the
    /// interpreter lock at most, which costs less than waking another thread for every event of a stream.
    fn spawn_blocking<F: FnOnce() + Send + 'static>(f: F) -> Joined {
        f();
        Joined(None)
    }
}

tokio::task_local! {
    static LOCALS: RefCell<TaskLocals>;
}

impl ContextExt for Reactor {
    fn scope<F, R>(locals: TaskLocals, fut: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(LOCALS.scope(RefCell::new(locals), fut))
    }
    fn get_task_locals() -> Option<TaskLocals> {
        LOCALS.try_with(|locals| locals.borrow().clone()).ok()
    }
}

type Finish = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Py<PyAny>> + Send>;

/// A result still in Rust: turned into a Python object, or into an exception, once the GIL is held.
pub struct Outcome(Finish);

impl<'py> IntoPyObject<'py> for Outcome {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        (self.0)(py).map(|object| object.into_bound(py))
    }
}

/// One checked call. Awaiting it runs it on the event loop of the caller; `wait` runs it and blocks. Dropping it
/// unused, or cancelling the wait, drops the work.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct Pending {
    work: Mutex<Option<Work>>,
    /// What it makes, if its caller must have that or nothing may be left of it.
    made: Option<Arc<Made>>,
}

struct Work {
    future: BoxFuture<'static, Outcome>,
    /// May be finished already: look once before any thread is involved.
    likely_ready: bool,
}

impl Pending {
    /// `work` runs when the result is waited for, and is dropped when the wait is cancelled.
    pub fn new<T>(work: impl Future<Output = MicrosandboxResult<T>> + Send + 'static) -> Pending
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        Pending::from_work(work, false)
    }

    /// As [`Pending::new`], for what is often there already: the next item of a stream.
    pub fn next<T>(work: impl Future<Output = MicrosandboxResult<T>> + Send + 'static) -> Pending
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        Pending::from_work(work, true)
    }

    /// As [`Pending::new`], but keeps running when the wait is cancelled.
    pub fn unattended<T>(work: impl Future<Output = MicrosandboxResult<T>> + Send + 'static) -> Pending
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        Pending::new(async move {
            match tokio::spawn(counted(work)).await {
                Ok(result) => result,
                Err(gone) => Err(MicrosandboxError::Runtime(format!("the work was lost: {gone}"))),
            }
        })
    }

    fn from_work<T>(work: impl Future<Output = MicrosandboxResult<T>> + Send + 'static, likely_ready: bool) -> Pending
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let future = Box::pin(async move {
            let result = work.await;
            Outcome(Box::new(move |py| match result {
                Ok(value) => value.into_py_any(py),
                Err(error) => Err(errors::to_python(py, error)),
            }))
        });
        Pending { work: Mutex::new(Some(Work { future, likely_ready })), made: None }
    }

    /// As [`Pending::new`], for work whose result is in `made` until the caller has it.
    pub fn making<T>(work: impl Future<Output = MicrosandboxResult<T>> + Send + 'static, made: Arc<Made>) -> Pending
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let mut pending = Pending::new(work);
        pending.made = Some(made);
        pending
    }

    fn drop_work(&self) {
        // What the work holds may spawn its farewell when it is dropped.
        let _context = current().map(|slot| slot.handle.enter());
        self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    fn take(&self) -> PyResult<Work> {
        self.work
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
            .ok_or_else(|| PyRuntimeError::new_err("this call was already awaited"))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // What the work holds may spawn its farewell when it is dropped.
        let runtime = current();
        let _context = runtime.map(|slot| slot.handle.enter());
        self.work.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(made) = &self.made {
            made.abandon_in_background();
        }
    }
}

/// Ends its task when it is dropped.
struct Running(tokio::task::JoinHandle<Outcome>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    async fn outcome(mut self) -> Outcome {
        match (&mut self.0).await {
            Ok(outcome) => outcome,
            Err(gone) => Outcome(Box::new(move |py| {
                let text = format!("the work was lost: {gone}");
                Err(errors::to_python(py, MicrosandboxError::Runtime(text)))
            })),
        }
    }
}

struct Unattended;

impl Unattended {
    fn new() -> Self {
        UNATTENDED.fetch_add(1, Ordering::AcqRel);
        Unattended
    }
}

/// `work`, for which the exit of the interpreter waits.
fn counted<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let guard = Unattended::new();
    async move {
        let _guard = guard;
        work.await
    }
}

/// Runs `work` to its end in the background, if this process has a runtime: else there is nothing that it could be about.
pub fn spawn_unattended(work: impl Future<Output = ()> + Send + 'static) {
    if let Some(slot) = current() {
        slot.handle.spawn(counted(work));
    }
}

impl Drop for Unattended {
    fn drop(&mut self) {
        UNATTENDED.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Polls once, without a waker.
fn look(work: &mut Work, handle: &tokio::runtime::Handle) -> Option<Outcome> {
    if !work.likely_ready {
        return None;
    }
    let _context = handle.enter();
    match work.future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

#[pymethods]
impl Pending {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    fn __await__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut work = self.take()?;
        let handle = handle()?;
        if let Some(outcome) = look(&mut work, &handle) {
            let value = outcome.into_pyobject(py)?.unbind();
            return Ok(Bound::new(py, Ready(Mutex::new(Some(value))))?.into_any());
        }
        let locals = TaskLocals::with_running_loop(py).map_err(|_| PyRuntimeError::new_err(NO_LOOP))?;
        let future = work.future;
        let future =
            generic::future_into_py_with_locals::<Reactor, _, Outcome>(py, locals, async move { Ok(future.await) })?;
        future.call_method0("__await__")
    }

    /// Starts it now, on the threads of this package; the result is still to be awaited.
    fn start(&self) -> PyResult<()> {
        let work = self.take()?;
        let running = Running(handle()?.spawn(work.future));
        let work = Work { future: Box::pin(running.outcome()), likely_ready: false };
        *self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(work);
        Ok(())
    }

    /// Gives it up.
    fn cancel(&self) {
        self.drop_work();
        if let Some(made) = &self.made {
            made.abandon_in_background();
        }
    }

    /// The caller has the result: from now on it is theirs.
    fn keep(&self) {
        if let Some(made) = &self.made {
            made.keep();
        }
    }

    /// Gives it up, and what it made; to be awaited: nothing is left then.
    fn undone(&self) -> Pending {
        self.drop_work();
        let made = self.made.clone();
        Pending::unattended(async move {
            if let Some(made) = made {
                made.undone().await;
            }
            Ok(())
        })
    }

    /// Runs it here, blocking this thread only. Ctrl-C ends the wait and drops the work.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut work = self.take()?;
        let handle = handle()?;
        if let Some(outcome) = look(&mut work, &handle) {
            return Ok(outcome.into_pyobject(py)?.unbind());
        }
        loop {
            let step = py
                .detach(|| handle.block_on(async { tokio::time::timeout(SIGNAL_CHECK, &mut work.future).await.ok() }));
            if let Some(outcome) = step {
                return Ok(outcome.into_pyobject(py)?.unbind());
            }
            if let Err(interrupt) = py.check_signals() {
                // Dropping the work may talk to the reactor, so it happens inside it and without the GIL.
                py.detach(|| {
                    let _context = handle.enter();
                    drop(work);
                });
                // A second Ctrl-C ends this wait, too.
                if self.made.is_some() {
                    self.undone().wait(py)?;
                }
                return Err(interrupt);
            }
        }
    }
}

/// The iterator of a call whose result was ready.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
struct Ready(Mutex<Option<Py<PyAny>>>);

#[pymethods]
impl Ready {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }
    fn __next__(&self) -> PyResult<Py<PyAny>> {
        match self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            Some(value) => Err(PyStopIteration::new_err((value,))),
            None => Err(PyRuntimeError::new_err("this call was already awaited")),
        }
    }
}

/// A value of one process: refused, and never dropped, in a forked child, where the threads and connections behind it
/// do not exist.
pub struct Owned<T> {
    pid: u32,
    value: Option<T>,
}

impl<T> Owned<T> {
    pub fn new(value: T) -> Self {
        Owned { pid: std::process::id(), value: Some(value) }
    }

    pub fn get(&self, py: Python<'_>) -> PyResult<&T> {
        match &self.value {
            Some(value) if self.pid == std::process::id() => Ok(value),
            _ => Err(errors::to_python(py, MicrosandboxError::InvalidState(FORKED.into()))),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        let value = self.value.take();
        if self.pid == std::process::id() {
            // What is dropped may spawn its farewell.
            let runtime = current();
            let _context = runtime.map(|slot| slot.handle.enter());
            drop(value);
        } else {
            std::mem::forget(value);
        }
    }
}
