//! `msb jobs`: programs that outlive the command that started them.

use clap::Args;
use microsandbox_core::model::{JobCall, JobInfo};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::tables::{Format, print_json, table};

/// Arguments of `jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Also jobs that have exited.
    #[arg(short, long)]
    all: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print ids only, one per line.
    #[arg(short, long)]
    quiet: bool,
}

/// One entry of `--format json`; times in milliseconds since the epoch.
#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    runtime_boot_id: &'a str,
    state: &'static str,
    command: &'a [String],
    tty: bool,
    pid: u32,
    stdin_closed: bool,
    started_at: f64,
    finished_at: Option<f64>,
    exit_code: Option<i32>,
    timed_out: bool,
}

pub async fn job_call(call: &Invocation, name: &str, request: JobCall) -> Outcome<Vec<JobInfo>> {
    Ok(call.backend.sandboxes().agent(name).job(request).await?)
}

/// Newest first.
pub async fn run(args: JobsArgs, call: &Invocation) -> Outcome<()> {
    let mut jobs = job_call(call, &args.name, JobCall::List).await?;
    jobs.retain(|job| args.all || job.exit.is_none());
    jobs.reverse();
    if args.quiet {
        return call.console.print(&jobs.iter().map(|job| format!("{}\n", job.id)).collect::<String>());
    }
    if args.format == Format::Json {
        return print_json(&call.console, &jobs.iter().map(entry).collect::<Vec<_>>());
    }
    if jobs.is_empty() {
        call.console.note("No jobs found.");
        return Ok(());
    }
    call.console.print(&page(&jobs))
}

fn page(jobs: &[JobInfo]) -> String {
    let rows = jobs.iter().map(|job| {
        let state = job.exit.as_ref().map_or_else(|| "running".to_owned(), |exit| format!("exited ({})", exit.code));
        vec![job.id.clone(), state, job.pid.to_string(), job.command.join(" ")]
    });
    table(&["ID", "STATE", "PID", "COMMAND"], rows)
}

/// One job; as JSON, one object of the array that `jobs --format json` prints.
pub async fn inspect(name: &str, job: String, format: Format, call: &Invocation) -> Outcome<()> {
    let known = job_call(call, name, JobCall::Inspect { job }).await?;
    match (format, known.first()) {
        (Format::Json, Some(job)) => print_json(&call.console, &entry(job)),
        _ => call.console.print(&page(&known)),
    }
}

/// The session number of a job's output in the log.
pub async fn session(name: &str, job: String, call: &Invocation) -> Outcome<Option<u64>> {
    Ok(job_call(call, name, JobCall::Inspect { job }).await?.first().map(|job| job.session))
}

fn entry(job: &JobInfo) -> Entry<'_> {
    Entry {
        id: &job.id,
        runtime_boot_id: &job.boot,
        state: if job.exit.is_some() { "exited" } else { "running" },
        command: &job.command,
        tty: job.tty,
        pid: job.pid,
        stdin_closed: job.stdin_closed,
        started_at: job.started_ms,
        finished_at: job.finished_ms,
        exit_code: job.exit.as_ref().map(|exit| exit.code),
        timed_out: job.exit.as_ref().is_some_and(|exit| exit.timed_out),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use microsandbox_core::model::ExecExit;

    use super::*;

    fn job(id: &str, exit: Option<ExecExit>) -> JobInfo {
        JobInfo {
            id: id.into(),
            boot: "boot".into(),
            session: 1,
            command: vec!["sleep".into(), "60".into()],
            tty: false,
            pid: 7,
            stdin_closed: true,
            started_ms: 1000.0,
            finished_ms: exit.as_ref().map(|_| 2000.0),
            exit,
        }
    }

    #[test]
    fn the_state_of_an_exited_job_has_its_code() {
        let exit = ExecExit { code: 3, duration: Duration::from_secs(1), ..ExecExit::default() };
        let expected = "\
ID   STATE        PID   COMMAND
b    running      7     sleep 60
a    exited (3)   7     sleep 60
";
        assert_eq!(page(&[job("b", None), job("a", Some(exit))]), expected);
    }
}
