//! The agent's protocol, frame by frame.

use std::path::PathBuf;
use std::sync::Arc;

use microsandbox_core::agent::{AgentAddress, RawClient, RawFrame, RawStream};
use microsandbox_core::api::DEFAULT_CONNECT_TIMEOUT;
use microsandbox_core::backend::available_when;
use microsandbox_core::{MicrosandboxError, MicrosandboxResult, SharedBackend};
use microsandbox_local::LocalBackend;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tokio::sync::Mutex;

use crate::arguments::{Data, Location, Seconds, Text, argument, optional};
use crate::backend::chosen;
use crate::errors;
use crate::runtime::{Owned, Pending};
use crate::sandbox::Backend;
use crate::values;

/// A frame, for `agent.RawFrame`.
struct Frame(RawFrame);

impl<'py> IntoPyObject<'py> for Frame {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("id", self.0.id)?;
        dict.set_item("flags", self.0.flags.0)?;
        dict.set_item("body", PyBytes::new(py, &self.0.body))?;
        Ok(dict)
    }
}

async fn address(backend: SharedBackend, name: String) -> MicrosandboxResult<AgentAddress> {
    match LocalBackend::of(&backend) {
        Some(local) => local.home().agent_address(&name).await,
        None => Err(MicrosandboxError::unsupported("AgentClient", available_when::LOCAL)),
    }
}

#[pyfunction]
#[pyo3(signature = (name, timeout, backend=None))]
pub fn agent_of_sandbox(
    py: Python<'_>,
    name: &Bound<'_, PyAny>,
    timeout: &Bound<'_, PyAny>,
    backend: Backend<'_, '_>,
) -> PyResult<Pending> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    let timeout = optional::<Seconds>(timeout, "timeout")?;
    Ok(connect(timeout, address(backend, name)))
}

#[pyfunction]
pub fn agent_of_socket(path: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<Pending> {
    let Location(path) = argument(path, "path")?;
    let timeout = optional::<Seconds>(timeout, "timeout")?;
    Ok(connect(timeout, async move { AgentAddress::of_socket(&path) }))
}

/// Where the agent of a sandbox listens while it runs.
#[pyfunction]
#[pyo3(signature = (name, backend=None))]
pub fn agent_socket_path(py: Python<'_>, name: &Bound<'_, PyAny>, backend: Backend<'_, '_>) -> PyResult<PathBuf> {
    let Text(name) = argument(name, "name")?;
    let backend = chosen(py, backend)?;
    let path = microsandbox_core::model::validate_sandbox_name(&name).and_then(|()| match LocalBackend::of(&backend) {
        Some(local) => Ok(local.home().agent_socket(&name)),
        None => Err(MicrosandboxError::unsupported("AgentClient.socket_path", available_when::LOCAL)),
    });
    path.map_err(|error| errors::to_python(py, error))
}

fn connect(
    timeout: Option<Seconds>,
    address: impl Future<Output = MicrosandboxResult<AgentAddress>> + Send + 'static,
) -> Pending {
    let timeout = timeout.map_or(DEFAULT_CONNECT_TIMEOUT, |seconds| seconds.duration());
    Pending::new(async move { RawClient::connect(&address.await?, timeout).await.map(NativeAgent::new) })
}

/// A raw connection.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeAgent {
    client: Owned<Arc<RawClient>>,
}

impl NativeAgent {
    fn new(client: RawClient) -> Self {
        NativeAgent { client: Owned::new(Arc::new(client)) }
    }
}

#[pymethods]
impl NativeAgent {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    fn request(&self, py: Python<'_>, flags: u8, body: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (client, Data(body)) = (self.client.get(py)?.clone(), argument(body, "body")?);
        Ok(Pending::new(async move { client.request(flags, &body).await.map(Frame) }))
    }
    fn stream_open(&self, py: Python<'_>, flags: u8, body: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (client, Data(body)) = (self.client.get(py)?.clone(), argument(body, "body")?);
        Ok(Pending::new(async move { client.open(flags, &body).await.map(NativeAgentStream::new) }))
    }
    fn send(&self, py: Python<'_>, id: u32, flags: u8, body: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (client, Data(body)) = (self.client.get(py)?.clone(), argument(body, "body")?);
        Ok(Pending::new(async move { client.send(id, flags, &body).await }))
    }
    fn ready_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.client.get(py)?.ready()))
    }
    fn close(&self, py: Python<'_>) -> PyResult<Pending> {
        let client = self.client.get(py)?.clone();
        Ok(Pending::new(async move {
            client.close();
            Ok(())
        }))
    }
}

/// The frames of one id.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeAgentStream {
    id: u32,
    stream: Owned<Arc<Mutex<RawStream>>>,
}

impl NativeAgentStream {
    fn new(stream: RawStream) -> Self {
        NativeAgentStream { id: stream.id(), stream: Owned::new(Arc::new(Mutex::new(stream))) }
    }
}

#[pymethods]
impl NativeAgentStream {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    #[getter]
    fn id(&self) -> u32 {
        self.id
    }
    fn stream_next(&self, py: Python<'_>) -> PyResult<Pending> {
        let stream = self.stream.get(py)?.clone();
        Ok(Pending::next(async move { Ok(stream.lock().await.next().await?.map(Frame)) }))
    }
    fn stream_close(&self, py: Python<'_>) -> PyResult<Pending> {
        let stream = self.stream.get(py)?.clone();
        Ok(Pending::new(async move {
            stream.lock().await.close();
            Ok(())
        }))
    }
}
