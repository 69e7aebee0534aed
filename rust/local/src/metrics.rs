//! Resource use of a running local sandbox: the host's own figures where its control groups give them, the guest's
//! report for the rest.
//!
//! Around a microVM the control groups hold the monitor: its processor time is the guest's, its input and output are
//! those of the root file system, and its memory is what the host has given (`memory_host_resident_bytes`). How much of
//! that is used *inside* only the guest knows, so `memory_bytes` and the available memory are the guest's report,
//! capped at the memory it was given. The limit is that memory too, because the group's own limit leaves room for the
//! monitor.

use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use futures::stream;
use microsandbox_contract::{Identity, IsolationDriver};
use microsandbox_protocol::message::Stats;

use microsandbox_cgroups::usage::{self, Usage};
use microsandbox_core::agent::{AgentAddress, AgentClient};
use microsandbox_core::api::DEFAULT_CONNECT_TIMEOUT;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{MetricsStream, SandboxMetrics, SandboxSpec};

use crate::upper::Upper;

/// Shortest pause between samples: each costs a round trip.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// A running sandbox that is measured.
pub struct Measured {
    pub address: AgentAddress,
    pub spec: SandboxSpec,
    pub identity: Identity,
    pub sandbox_dir: PathBuf,
}

/// One sample. `previous`, of the same run, makes `cpu_percent` the load since then instead of since boot.
pub async fn sample(
    measured: &Measured,
    upper: &mut Upper,
    previous: Option<&SandboxMetrics>,
) -> MicrosandboxResult<SandboxMetrics> {
    let Measured { address, spec, identity, sandbox_dir } = measured;
    enabled(spec)?;
    let stats = match AgentClient::connect(address, DEFAULT_CONNECT_TIMEOUT).await {
        Ok(mut client) => client.stats().await,
        Err(error) => Err(error),
    };
    let stats = stats.map_err(|error| match error {
        MicrosandboxError::AgentLost { reason, .. } => unavailable(&spec.name, &reason),
        other => other,
    })?;
    let usage = usage::read(&identity.cgroups);
    let used = upper.used_bytes(sandbox_dir).await;
    Ok(SandboxMetrics { upper_used_bytes: used, ..combine(spec, identity, &stats, &usage, previous) })
}

/// A sample now and one every `interval`, until the sandbox is gone. Absent identity or address: the first item says
/// why there is none.
pub fn stream(
    address: MicrosandboxResult<AgentAddress>,
    spec: SandboxSpec,
    identity: Option<Identity>,
    sandbox_dir: PathBuf,
    interval: Duration,
) -> MetricsStream {
    let name = spec.name.clone();
    let ready = enabled(&spec).and_then(|()| match (address, identity) {
        (Ok(address), Some(identity)) => Ok((address, identity)),
        (Err(MicrosandboxError::SandboxNotRunning { .. }), _) | (_, None) => {
            Err(unavailable(&name, "the sandbox is not running"))
        }
        (Err(error), _) => Err(error),
    });
    let (address, identity) = match ready {
        Ok(ready) => ready,
        Err(error) => return Box::pin(stream::iter([Err(error)])),
    };
    let mut ticks = tokio::time::interval(interval.max(INTERVAL_MIN));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let measured = Measured { address, spec, identity, sandbox_dir };
    let sampler = Sampler { measured, upper: Upper::default(), ticks, previous: None };
    Box::pin(stream::unfold(Some(sampler), |sampler| async move { sampler?.next().await }))
}

struct Sampler {
    measured: Measured,
    upper: Upper,
    ticks: tokio::time::Interval,
    previous: Option<SandboxMetrics>,
}

impl Sampler {
    async fn next(mut self) -> Option<(MicrosandboxResult<SandboxMetrics>, Option<Sampler>)> {
        self.ticks.tick().await;
        match sample(&self.measured, &mut self.upper, self.previous.as_ref()).await {
            Ok(metrics) => {
                self.previous = Some(metrics.clone());
                Some((Ok(metrics), Some(self)))
            }
            // It ended between two samples: so does the stream.
            Err(MicrosandboxError::MetricsUnavailable { .. }) if self.previous.is_some() => None,
            Err(error) => Some((Err(error), None)),
        }
    }
}

fn enabled(spec: &SandboxSpec) -> MicrosandboxResult<()> {
    match spec.metrics.effective_interval_ms() {
        Some(_) => Ok(()),
        None => Err(MicrosandboxError::MetricsDisabled(spec.name.clone())),
    }
}

/// The text programs look for when a sandbox does not run.
pub(crate) fn unavailable(name: &str, why: &str) -> MicrosandboxError {
    MicrosandboxError::MetricsUnavailable { name: name.into(), reason: format!("no live metrics slot ({why})") }
}

fn combine(
    spec: &SandboxSpec,
    identity: &Identity,
    stats: &Stats,
    usage: &Usage,
    previous: Option<&SandboxMetrics>,
) -> SandboxMetrics {
    let timestamp = Utc::now();
    let limit = u64::from(spec.resources.memory_mib) << 20;
    let (memory_limit_bytes, memory_bytes) = match identity.driver {
        IsolationDriver::Container => {
            let real = usage.memory_limit.map_or(limit, |real| real.min(limit.max(1)));
            (real, usage.memory_working_set.unwrap_or(stats.memory_bytes))
        }
        // A driver of another version: what its guest reports is all that is known.
        IsolationDriver::Microvm | IsolationDriver::Memory | IsolationDriver::Unknown => {
            (limit, stats.memory_bytes.min(limit))
        }
    };
    let memory_available_bytes = match (identity.driver, stats.memory_available_bytes) {
        (IsolationDriver::Microvm, Some(available)) => available.min(limit),
        _ => memory_limit_bytes.saturating_sub(memory_bytes),
    };
    let started = i64::try_from(identity.started_at_ms).unwrap_or(i64::MAX);
    let uptime_ms = u64::try_from(timestamp.timestamp_millis().saturating_sub(started)).unwrap_or(0);
    let vcpu_time_ns = usage.cpu_ns.unwrap_or(stats.cpu_ns);
    let (io_read, io_write) = usage.io.unwrap_or((stats.disk_read_bytes, stats.disk_write_bytes));
    let (busy_ns, wall_ns) = match previous {
        Some(before) => {
            let wall = (timestamp - before.timestamp).num_nanoseconds().unwrap_or(0);
            (vcpu_time_ns.saturating_sub(before.vcpu_time_ns), wall as f64)
        }
        None => (vcpu_time_ns, uptime_ms as f64 * 1e6),
    };
    SandboxMetrics {
        cpu_percent: if wall_ns > 0.0 { busy_ns as f64 / wall_ns * 100.0 } else { 0.0 },
        vcpu_time_ns,
        memory_bytes,
        memory_available_bytes: Some(memory_available_bytes),
        memory_host_resident_bytes: usage.memory_charged,
        memory_limit_bytes,
        disk_read_bytes: io_read,
        disk_write_bytes: io_write,
        net_rx_bytes: stats.net_rx_bytes,
        net_tx_bytes: stats.net_tx_bytes,
        // Counted on this machine: the guest sees the use of the whole file system that holds the layer.
        upper_used_bytes: None,
        upper_free_bytes: stats.root_free_bytes,
        upper_host_allocated_bytes: None,
        uptime_ms,
        timestamp,
    }
}

#[cfg(test)]
mod tests {
    use microsandbox_contract::{IsolationReport, ProcessIdentity};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn of(driver: IsolationDriver) -> SandboxMetrics {
        let process = ProcessIdentity { pid: 1, start_time: 1, boot_id: "b".into() };
        let identity = Identity {
            runtime: process.clone(),
            init: process,
            driver,
            cgroups: Vec::new(),
            started_at_ms: 0,
            isolation: IsolationReport::default(),
        };
        let stats =
            Stats { memory_bytes: 40 * MIB, memory_available_bytes: Some(400 * MIB), cpu_ns: 1, ..Stats::default() };
        let usage = Usage {
            cpu_ns: Some(7),
            memory_charged: Some(300 * MIB),
            memory_working_set: Some(290 * MIB),
            memory_limit: Some(700 * MIB),
            io: None,
        };
        combine(&SandboxSpec::default(), &identity, &stats, &usage, None)
    }

    #[test]
    fn a_container_is_measured_by_the_host() {
        let metrics = of(IsolationDriver::Container);
        assert_eq!((metrics.memory_bytes, metrics.memory_limit_bytes), (290 * MIB, 512 * MIB));
        assert_eq!(metrics.memory_available_bytes, Some(222 * MIB));
    }

    #[test]
    fn used_memory_is_the_guests_claim_held_memory_the_hosts() {
        let metrics = of(IsolationDriver::Microvm);
        assert_eq!((metrics.memory_bytes, metrics.memory_limit_bytes), (40 * MIB, 512 * MIB));
        assert_eq!(metrics.memory_available_bytes, Some(400 * MIB));
        assert_eq!((metrics.memory_host_resident_bytes, metrics.vcpu_time_ns), (Some(300 * MIB), 7));
    }
}
