//! Resource use.

use std::sync::Arc;

use futures::StreamExt;
use microsandbox_core::model;
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::arguments;
use crate::runtime::{Owned, Pending};
use crate::values::{self, Reduced};

/// One sample of a sandbox's resource use; counters run since boot.
///
/// Example: `now = await sb.metrics(); print(now.cpu_percent, now.memory_bytes)`
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct SandboxMetrics {
    pub sample: model::SandboxMetrics,
}

impl SandboxMetrics {
    pub fn new(sample: model::SandboxMetrics) -> Self {
        SandboxMetrics { sample }
    }
}

#[pymethods]
impl SandboxMetrics {
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        values::reduce(py, self)
    }
    /// 100 is one vCPU busy, since the previous sample (since boot for the first).
    #[getter]
    fn cpu_percent(&self) -> f64 {
        self.sample.cpu_percent
    }
    /// CPU time, nanoseconds.
    #[getter]
    fn vcpu_time_ns(&self) -> u64 {
        self.sample.vcpu_time_ns
    }
    /// Memory the guest uses, bytes.
    #[getter]
    fn memory_bytes(&self) -> u64 {
        self.sample.memory_bytes
    }
    /// Memory left to the guest, bytes.
    #[getter]
    fn memory_available_bytes(&self) -> Option<u64> {
        self.sample.memory_available_bytes
    }
    /// Host memory the sandbox occupies, bytes.
    #[getter]
    fn memory_host_resident_bytes(&self) -> Option<u64> {
        self.sample.memory_host_resident_bytes
    }
    /// Memory limit, bytes.
    #[getter]
    fn memory_limit_bytes(&self) -> u64 {
        self.sample.memory_limit_bytes
    }
    /// Bytes read from disk.
    #[getter]
    fn disk_read_bytes(&self) -> u64 {
        self.sample.disk_read_bytes
    }
    /// Bytes written to disk.
    #[getter]
    fn disk_write_bytes(&self) -> u64 {
        self.sample.disk_write_bytes
    }
    /// Bytes received.
    #[getter]
    fn net_rx_bytes(&self) -> u64 {
        self.sample.net_rx_bytes
    }
    /// Bytes sent.
    #[getter]
    fn net_tx_bytes(&self) -> u64 {
        self.sample.net_tx_bytes
    }
    /// Used bytes of the writable root.
    #[getter]
    fn upper_used_bytes(&self) -> Option<u64> {
        self.sample.upper_used_bytes
    }
    /// Free bytes of the writable root.
    #[getter]
    fn upper_free_bytes(&self) -> Option<u64> {
        self.sample.upper_free_bytes
    }
    /// Host disk space that the writable root occupies, bytes.
    #[getter]
    fn upper_host_allocated_bytes(&self) -> Option<u64> {
        self.sample.upper_host_allocated_bytes
    }
    /// Milliseconds since boot.
    #[getter]
    fn uptime_ms(&self) -> u64 {
        self.sample.uptime_ms
    }
    /// When it was taken, milliseconds since the epoch.
    #[getter]
    fn timestamp_ms(&self) -> f64 {
        arguments::millis(self.sample.timestamp)
    }
    fn __repr__(&self) -> String {
        let sample = &self.sample;
        format!("SandboxMetrics(cpu_percent={:.1}, memory_bytes={})", sample.cpu_percent, sample.memory_bytes)
    }
}

/// Samples at an interval.
#[pyclass(module = "microsandbox._microsandbox", frozen)]
pub struct NativeMetricsStream {
    stream: Owned<Arc<Mutex<model::MetricsStream>>>,
}

impl NativeMetricsStream {
    pub fn new(stream: model::MetricsStream) -> Self {
        NativeMetricsStream { stream: Owned::new(Arc::new(Mutex::new(stream))) }
    }
}

#[pymethods]
impl NativeMetricsStream {
    fn __reduce__(&self) -> PyResult<()> {
        values::refuse()
    }
    /// The next sample; `None` at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Pending> {
        let stream = self.stream.get(py)?.clone();
        Ok(Pending::next(async move {
            stream.lock().await.next().await.transpose().map(|sample| sample.map(SandboxMetrics::new))
        }))
    }
}
