//! What `create` takes for registries, and the steps of a pull.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use microsandbox_core::backend::PullProgressFn;
use microsandbox_core::model::{self, PullEvent};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList};
use tokio::sync::Notify;

use crate::arguments::{Location, dataclass, newtype, refuse};
use crate::runtime::{Owned, Pending};
use crate::values;

/// Largest certificate file.
const PEM_MAX: usize = 1 << 20;
/// Most steps that wait to be read; further reports of how far a layer is are left out.
const WAITING_MAX: usize = 1024;

newtype!(
    /// Credentials.
    RegistryAuth(model::RegistryAuth) = |object| {
        dataclass(object, "RegistryAuth")?;
        let text = |name: &str| object.getattr(name)?.extract::<String>();
        Ok(model::RegistryAuth { username: text("username")?, password: text("password")? })
    }
);

newtype!(
    /// PEM texts, or files with one each.
    CaCerts(Vec<Vec<u8>>) = |object| {
        let Ok(items) = object.cast::<PyList>() else { return refuse(object, "a list of PEM bytes or paths") };
        items.iter().enumerate().map(|(index, item)| pem(index, &item)).collect()
    }
);

fn pem(index: usize, item: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let pem = if let Ok(bytes) = item.cast::<PyBytes>() {
        bytes.as_bytes().to_vec()
    } else if let Ok(bytes) = item.cast::<PyByteArray>() {
        bytes.to_vec()
    } else {
        let Ok(Location(path)) = item.extract::<Location>() else {
            return Err(PyTypeError::new_err(format!("{{}}[{index}] must be PEM bytes or a path")));
        };
        let mut pem = Vec::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(PEM_MAX as u64 + 1).read_to_end(&mut pem))
            .map_err(|e| PyErr::from(std::io::Error::new(e.kind(), format!("{}: {e}", path.display()))))?;
        pem
    };
    if pem.len() > PEM_MAX {
        return Err(PyValueError::new_err(format!("{{}}[{index}] is larger than 1 MiB")));
    }
    Ok(pem)
}

/// The steps of a pull between the task that pulls and whoever reads them.
#[derive(Default)]
struct Steps {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<PullEvent>,
    ended: bool,
}

impl Steps {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> Option<PullEvent> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look: a change between the look and the wait would be missed.
            changed.as_mut().enable();
            {
                let mut waiting = self.waiting();
                if let Some(event) = waiting.events.pop_front() {
                    return Some(event);
                }
                if waiting.ended {
                    return None;
                }
            }
            changed.await;
        }
    }
}

/// The pulling end: when it is dropped there are no more steps.
struct Reporter(Arc<Steps>);

impl Reporter {
    fn report(&self, event: PullEvent) {
        let mut waiting = self.0.waiting();
        if waiting.events.len() >= WAITING_MAX && is_amount(&event) {
            return;
        }
        // Of the amounts of one layer that are not read yet, the newest is enough.
        if is_amount(&event)
            && let Some(last) = waiting.events.back_mut()
            && is_amount(last)
            && layer(last) == layer(&event)
            && std::mem::discriminant(last) == std::mem::discriminant(&event)
        {
            *last = event;
        } else {
            waiting.events.push_back(event);
        }
        drop(waiting);
        self.0.changed.notify_waiters();
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.0.waiting().ended = true;
        self.0.changed.notify_waiters();
    }
}

fn is_amount(event: &PullEvent) -> bool {
    matches!(event, PullEvent::LayerDownloadProgress { .. } | PullEvent::LayerMaterializeProgress { .. })
}

fn layer(event: &PullEvent) -> Option<usize> {
    match event {
        PullEvent::LayerDownloadProgress { layer_index, .. }
        | PullEvent::LayerMaterializeProgress { layer_index, .. } => Some(*layer_index),
        _ => None,
    }
}

/// Steps of a pull, as they come.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativePullEvents {
    steps: Owned<Arc<Steps>>,
}

#[pymethods]
impl NativePullEvents {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    /// The fields of the next step that it has; `None` at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Pending> {
        let steps = self.steps.get(py)?.clone();
        Ok(Pending::next(async move { Ok(steps.next().await.map(Step)) }))
    }
}

/// The two ends.
pub fn steps() -> (PullProgressFn, NativePullEvents) {
    let steps = Arc::new(Steps::default());
    let reporter = Reporter(steps.clone());
    (Arc::new(move |event| reporter.report(event)), NativePullEvents { steps: Owned::new(steps) })
}

struct Step(PullEvent);

impl<'py> IntoPyObject<'py> for Step {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let fields = PyDict::new(py);
        let kind = |kind: &str| fields.set_item("event_type", kind);
        match self.0 {
            PullEvent::Resolving { reference } => {
                kind("resolving")?;
                fields.set_item("reference", reference)?;
            }
            PullEvent::Resolved { reference, manifest_digest, layer_count, total_download_bytes } => {
                kind("resolved")?;
                fields.set_item("reference", reference)?;
                fields.set_item("manifest_digest", manifest_digest)?;
                fields.set_item("layer_count", layer_count)?;
                fields.set_item("total_download_bytes", total_download_bytes)?;
            }
            PullEvent::LayerDownloadProgress { layer_index, digest, downloaded_bytes, total_bytes } => {
                kind("layer_download_progress")?;
                fields.set_item("layer_index", layer_index)?;
                fields.set_item("digest", digest)?;
                fields.set_item("downloaded_bytes", downloaded_bytes)?;
                fields.set_item("total_bytes", total_bytes)?;
            }
            PullEvent::LayerDownloadComplete { layer_index, digest, downloaded_bytes } => {
                kind("layer_download_complete")?;
                fields.set_item("layer_index", layer_index)?;
                fields.set_item("digest", digest)?;
                fields.set_item("downloaded_bytes", downloaded_bytes)?;
            }
            PullEvent::LayerMaterializeStarted { layer_index, diff_id } => {
                kind("layer_materialize_started")?;
                fields.set_item("layer_index", layer_index)?;
                fields.set_item("diff_id", diff_id)?;
            }
            PullEvent::LayerMaterializeProgress { layer_index, diff_id, bytes_read, total_bytes } => {
                kind("layer_materialize_progress")?;
                fields.set_item("layer_index", layer_index)?;
                fields.set_item("diff_id", diff_id)?;
                fields.set_item("bytes_read", bytes_read)?;
                fields.set_item("total_bytes", total_bytes)?;
            }
            PullEvent::LayerMaterializeComplete { layer_index, diff_id } => {
                kind("layer_materialize_complete")?;
                fields.set_item("layer_index", layer_index)?;
                fields.set_item("diff_id", diff_id)?;
            }
            PullEvent::Complete { reference, layer_count } => {
                kind("complete")?;
                fields.set_item("reference", reference)?;
                fields.set_item("layer_count", layer_count)?;
            }
        }
        Ok(fields)
    }
}
