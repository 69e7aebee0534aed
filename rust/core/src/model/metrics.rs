//! Resource use of a running sandbox.

use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use serde::Serialize;

use crate::error::MicrosandboxResult;

/// One sample; counters run since boot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SandboxMetrics {
    /// 100 is one CPU busy, since the previous sample (or since boot for the first).
    pub cpu_percent: f64,
    pub vcpu_time_ns: u64,
    pub memory_bytes: u64,
    pub memory_available_bytes: Option<u64>,
    pub memory_host_resident_bytes: Option<u64>,
    pub memory_limit_bytes: u64,
    pub disk_read_bytes: u64,
    pub disk_write_bytes: u64,
    pub net_rx_bytes: u64,
    pub net_tx_bytes: u64,
    pub upper_used_bytes: Option<u64>,
    pub upper_free_bytes: Option<u64>,
    pub upper_host_allocated_bytes: Option<u64>,
    pub uptime_ms: u64,
    pub timestamp: DateTime<Utc>,
}

pub type MetricsStream = BoxStream<'static, MicrosandboxResult<SandboxMetrics>>;
