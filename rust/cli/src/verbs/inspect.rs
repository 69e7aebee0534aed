//! `msb inspect`: one sandbox in full.

use std::fmt::Write;

use clap::Args;
use microsandbox_core::model::{Isolation, IsolationReport, SandboxStatus};
use microsandbox_core::{Sandbox, SandboxHandle};
use serde::Serialize;
use serde_json::Value;

use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::tables::{Format, or_dash, print_json, table};
use crate::output::units::{ago, timestamp};
use crate::terminal::console::printable;
use crate::verbs::list;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Show this job of the sandbox instead.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Show the values of environment variables, which may be secrets.
    #[arg(long)]
    show_env: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Stands for a value in a table; in JSON it is null.
const HIDDEN: &str = "(hidden, --show-env shows it)";

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    id: &'a str,
    status: SandboxStatus,
    isolation: Option<Isolation>,
    /// One entry per mechanism; absent before the first run.
    isolation_report: Option<IsolationReport>,
    config: Value,
    last_run: Option<RunReport<'a>>,
    last_error: Option<&'a str>,
    created_at: Option<String>,
    updated_at: Option<String>,
}

#[derive(Serialize)]
struct RunReport<'a> {
    exit_code: Option<i32>,
    signal: Option<i32>,
    reason: Option<&'a str>,
    detail: Option<&'a str>,
}

pub async fn run(args: InspectArgs, call: &Invocation) -> Outcome<()> {
    if let Some(job) = args.job {
        return crate::verbs::jobs::inspect(&args.name, job, args.format, call).await;
    }
    let handle = Sandbox::get(&call.backend, &args.name).await?;
    // Absent before the first boot, and on backends without isolation reports.
    let isolation_report = handle.isolation_report().await.ok();
    let report = Report {
        name: handle.name(),
        id: handle.id(),
        status: handle.status_snapshot(),
        isolation: handle.isolation(),
        isolation_report,
        config: config(&handle, args.show_env),
        last_run: handle.last_run().map(|run| RunReport {
            exit_code: run.exit_code,
            signal: run.signal,
            reason: run.reason.as_deref(),
            detail: run.detail.as_deref(),
        }),
        last_error: handle.last_error_snapshot(),
        created_at: handle.created_at().map(timestamp),
        updated_at: handle.updated_at().map(timestamp),
    };
    match args.format {
        Format::Json => print_json(&call.console, &report),
        Format::Table => call.console.print(&page(&report, &handle, args.show_env, call)?),
    }
}

/// The configuration; without `show_env` the value of each variable of the sandbox and of its init system is null.
fn config(handle: &SandboxHandle, show_env: bool) -> Value {
    let mut config: Value = serde_json::from_str(handle.config_json()).unwrap_or_default();
    if !show_env {
        for variables in ["/env", "/init/env"] {
            config.pointer_mut(variables).map(hide_values);
        }
    }
    config
}

/// Of a list of `{"key": …, "value": …}`, or of an object of values.
fn hide_values(variables: &mut Value) {
    match variables {
        Value::Array(list) => list.iter_mut().filter_map(|entry| entry.get_mut("value")).for_each(hide),
        Value::Object(values) => values.values_mut().for_each(hide),
        other => hide(other),
    }
}

fn hide(value: &mut Value) {
    *value = Value::Null;
}

fn page(report: &Report<'_>, handle: &SandboxHandle, show_env: bool, call: &Invocation) -> Outcome<String> {
    let spec = handle.config()?;
    let limit = |secs: Option<f64>| or_dash(secs.map(|secs| format!("{secs} s")));
    let mut lines = vec![
        ("Name", report.name.to_owned()),
        ("Id", report.id.to_owned()),
        ("Status", report.status.to_string()),
        ("Isolation", or_dash(report.isolation)),
        ("Image", list::image(handle)),
        ("Digest", or_dash(spec.image_defaults.manifest_digest.as_ref())),
        ("CPUs", spec.resources.cpus.to_string()),
        ("Memory", format!("{} MiB", spec.resources.memory_mib)),
        ("Processes", format!("at most {}", spec.resources.pids)),
        ("Host name", or_dash(spec.runtime.hostname.as_ref())),
        ("Directory", or_dash(spec.runtime.workdir.as_ref().or(spec.image_defaults.workdir.as_ref()))),
        ("User", or_dash(spec.runtime.user.as_ref().or(spec.image_defaults.user.as_ref()))),
        ("Idle timeout", limit(spec.lifecycle.idle_timeout_secs)),
        ("Max duration", limit(spec.lifecycle.max_duration_secs)),
        ("Created", or_dash(handle.created_at().map(|moment| ago(moment, call.now)))),
        ("Last run", or_dash(report.last_run.as_ref().filter(|_| report.status.is_terminal()).map(describe_run))),
    ];
    lines.extend(report.last_error.map(|error| ("Last error", error.to_owned())));
    lines.extend(spec.env.iter().map(|variable| {
        let value = if show_env { variable.value.as_str() } else { HIDDEN };
        ("Variable", format!("{}={value}", variable.key))
    }));
    lines.extend(spec.labels.iter().map(|(key, value)| ("Label", format!("{key}={value}"))));
    let mut text = String::new();
    for (title, value) in lines.iter().filter(|(_, value)| value != "-") {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<14}{}", format!("{title}:"), printable(value));
    }
    if let Some(isolation) = &report.isolation_report {
        text.push('\n');
        text.push_str(&mechanisms(isolation));
    }
    Ok(text)
}

fn describe_run(run: &RunReport<'_>) -> String {
    let end = match (run.exit_code, run.signal) {
        (_, Some(signal)) => format!("killed by signal {signal}"),
        (Some(code), None) => format!("exited with status {code}"),
        (None, None) => "exited".to_owned(),
    };
    let because = run.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let detail = run.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{end}{because}{detail}")
}

/// The isolation from this machine, one mechanism per row.
fn mechanisms(report: &IsolationReport) -> String {
    table(
        &["MECHANISM", "STATE", "DETAIL"],
        report.mechanisms.iter().map(|mechanism| {
            let state = format!("{:?}", mechanism.state).to_lowercase();
            vec![mechanism.name.as_str().to_owned(), state, mechanism.reason.clone().unwrap_or_default()]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_hidden_in_each_notation() {
        let mut list = serde_json::json!([{"key": "A", "value": "secret"}, {"key": "B"}]);
        let mut object = serde_json::json!({"A": "secret"});
        for variables in [&mut list, &mut object] {
            hide_values(variables);
            assert!(!variables.to_string().contains("secret") && variables.to_string().contains("\"A\""));
        }
    }
}
