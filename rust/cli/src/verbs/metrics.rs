//! `msb metrics`: resource usage of sandboxes.

use std::collections::HashMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use microsandbox_core::model::SandboxMetrics;
use microsandbox_core::{MicrosandboxError, Sandbox, SandboxHandle};
use serde::Serialize;

use crate::flags::duration::parse_duration;
use crate::flags::selection::every;
use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::tables::{Format, or_dash, print_json, table};
use crate::output::units::human;
use crate::output::units::{span, timestamp};

/// Arguments of `metrics`.
#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Name of one sandbox [default: all running sandboxes].
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Also sandboxes that are not running.
    #[arg(short, long)]
    all: bool,
    /// Refresh the table until interrupted.
    #[arg(short, long, conflicts_with_all = ["follow", "format"])]
    watch: bool,
    /// Print JSON Lines until interrupted.
    #[arg(short, long, conflicts_with = "format")]
    follow: bool,
    /// Time between two samples.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    interval: Duration,
    /// Sort order.
    #[arg(long, value_enum, value_name = "KEY", default_value_t)]
    sort: SortKey,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum SortKey {
    #[default]
    Name,
    Cpu,
    Mem,
}

/// The state of a sandbox at the time of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Running,
    /// The sandbox runs but does not respond.
    Stalled,
    Exited,
}

/// One sandbox; counters are absent unless the sandbox is running.
#[derive(Debug, Serialize)]
struct Sample {
    name: String,
    state: State,
    cpus: Option<u8>,
    timestamp: String,
    #[serde(flatten)]
    counters: Option<Counters>,
}

#[derive(Debug, Clone, Serialize)]
struct Counters {
    cpu_percent: f64,
    vcpu_time_ns: u64,
    memory_bytes: u64,
    memory_available_bytes: Option<u64>,
    memory_host_resident_bytes: Option<u64>,
    memory_limit_bytes: u64,
    disk_read_bytes: u64,
    disk_write_bytes: u64,
    net_rx_bytes: u64,
    net_tx_bytes: u64,
    upper_used_bytes: Option<u64>,
    upper_free_bytes: Option<u64>,
    upper_host_allocated_bytes: Option<u64>,
    uptime_secs: f64,
}

impl From<&SandboxMetrics> for Counters {
    fn from(metrics: &SandboxMetrics) -> Self {
        Counters {
            cpu_percent: metrics.cpu_percent,
            vcpu_time_ns: metrics.vcpu_time_ns,
            memory_bytes: metrics.memory_bytes,
            memory_available_bytes: metrics.memory_available_bytes,
            memory_host_resident_bytes: metrics.memory_host_resident_bytes,
            memory_limit_bytes: metrics.memory_limit_bytes,
            disk_read_bytes: metrics.disk_read_bytes,
            disk_write_bytes: metrics.disk_write_bytes,
            net_rx_bytes: metrics.net_rx_bytes,
            net_tx_bytes: metrics.net_tx_bytes,
            upper_used_bytes: metrics.upper_used_bytes,
            upper_free_bytes: metrics.upper_free_bytes,
            upper_host_allocated_bytes: metrics.upper_host_allocated_bytes,
            uptime_secs: metrics.uptime_ms as f64 / 1000.0,
        }
    }
}

/// CPU time and uptime (both in nanoseconds) of the previous sample, by sandbox id. Two samples give the current usage;
/// one sample only gives the average since boot.
type Previous = HashMap<String, (u64, u64)>;

pub async fn run(args: MetricsArgs, call: &Invocation) -> Outcome<()> {
    let mut previous = Previous::new();
    loop {
        let samples = collect(&args, call, &mut previous).await?;
        show(&args, call, &samples)?;
        if !args.watch && !args.follow {
            return Ok(());
        }
        tokio::time::sleep(args.interval).await;
    }
}

async fn collect(args: &MetricsArgs, call: &Invocation, previous: &mut Previous) -> Outcome<Vec<Sample>> {
    let handles = match &args.name {
        Some(name) => vec![Sandbox::get(&call.backend, name).await?],
        None => every(call, &[]).await?,
    };
    let shown = |handle: &&SandboxHandle| args.all || args.name.is_some() || handle.status_snapshot().is_live();
    let asked = handles.iter().filter(shown).map(|handle| sample(handle, args.name.is_some()));
    let mut samples = Vec::new();
    for (result, handle) in futures::future::join_all(asked).await.into_iter().zip(handles.iter().filter(shown)) {
        let mut sample = result?;
        if let Some(counters) = &mut sample.counters {
            let now = (counters.vcpu_time_ns, (counters.uptime_secs * 1e9) as u64);
            if let Some(before) = previous.insert(handle.id().to_owned(), now)
                && now.1 > before.1
            {
                counters.cpu_percent = now.0.saturating_sub(before.0) as f64 / (now.1 - before.1) as f64 * 100.0;
            }
        }
        samples.push(sample);
    }
    let key = |sample: &Sample| match (&sample.counters, args.sort) {
        (Some(counters), SortKey::Cpu) => counters.cpu_percent,
        (Some(counters), SortKey::Mem) => counters.memory_bytes as f64,
        _ => 0.0,
    };
    samples.sort_by(|a, b| key(b).total_cmp(&key(a)).then_with(|| a.name.cmp(&b.name)));
    Ok(samples)
}

/// A failure is an error for one sandbox by name, and a state in a list of sandboxes.
async fn sample(handle: &SandboxHandle, alone: bool) -> Outcome<Sample> {
    let (state, metrics) = match handle.metrics().await {
        Ok(metrics) => (State::Running, Some(metrics)),
        Err(error) if alone => return Err(error.into()),
        Err(
            MicrosandboxError::SandboxNotRunning { .. }
            | MicrosandboxError::SandboxNotFound(_)
            | MicrosandboxError::MetricsUnavailable { .. },
        ) => (State::Exited, None),
        Err(MicrosandboxError::MetricsDisabled(_)) => (State::Running, None),
        Err(_) => (State::Stalled, None),
    };
    Ok(Sample {
        name: handle.name().to_owned(),
        state,
        cpus: handle.config().ok().map(|spec| spec.resources.cpus),
        timestamp: timestamp(metrics.as_ref().map_or_else(chrono::Utc::now, |metrics| metrics.timestamp)),
        counters: metrics.as_ref().map(Counters::from),
    })
}

fn show(args: &MetricsArgs, call: &Invocation, samples: &[Sample]) -> Outcome<()> {
    if args.follow {
        for sample in samples {
            let line = serde_json::to_string(sample)
                .map_err(|error| Failure::message(format!("cannot write the sample as JSON: {error}")))?;
            call.console.line(&line)?;
        }
        return Ok(());
    }
    if args.format == Format::Json {
        return match (&args.name, samples) {
            (Some(_), [one]) => print_json(&call.console, one),
            _ => print_json(&call.console, &samples),
        };
    }
    if samples.is_empty() && !args.watch {
        call.console.note("No running sandboxes found.");
        return Ok(());
    }
    // Cursor home, then clear to the end: a full clear would flicker.
    let clear = if args.watch && call.console.out_is_terminal { "\x1b[H\x1b[J" } else { "" };
    call.console.print(&format!("{clear}{}", rows(samples)))
}

fn rows(samples: &[Sample]) -> String {
    let header = ["NAME", "STATE", "CPU", "MEMORY", "LIMIT", "READ", "WRITTEN", "RECEIVED", "SENT", "UPTIME"];
    table(
        &header,
        samples.iter().map(|sample| {
            let counters = sample.counters.as_ref();
            let bytes = |value: fn(&Counters) -> u64| or_dash(counters.map(|c| human(value(c))));
            vec![
                sample.name.clone(),
                format!("{:?}", sample.state).to_lowercase(),
                or_dash(counters.map(|c| format!("{:.1}%", c.cpu_percent))),
                bytes(|c| c.memory_bytes),
                bytes(|c| c.memory_limit_bytes),
                bytes(|c| c.disk_read_bytes),
                bytes(|c| c.disk_write_bytes),
                bytes(|c| c.net_rx_bytes),
                bytes(|c| c.net_tx_bytes),
                or_dash(counters.map(|c| span(microsandbox_core::seconds::duration(c.uptime_secs)))),
            ]
        }),
    )
}
