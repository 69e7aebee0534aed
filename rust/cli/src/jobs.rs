//! `msb jobs`, `msb attach`, `msb signal` and `msb eof`: programs that outlive the command that started them.

use clap::Args;
use microsandbox_core::model::{JobCall, JobInfo};
use serde::Serialize;

use crate::attach::{AttachEnd, AttachOptions, attach};
use crate::failure::Outcome;
use crate::invocation::Invocation;
use crate::output::{Format, print_json, table};
use crate::terminal::DetachKeys;

/// Arguments of `jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Ended ones, too.
    #[arg(short, long)]
    all: bool,
    /// How to write the list.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only ids, one a line.
    #[arg(short, long)]
    quiet: bool,
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
#[command(after_help = "\
The status is the job's own. Ctrl-C goes to the job; three times within two seconds ends it.")]
pub struct AttachArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Id of the job, from `msb exec -d` or `msb jobs`.
    #[arg(long, value_name = "ID")]
    job: String,
    /// Give it no input.
    #[arg(long)]
    no_stdin: bool,
    /// Keys that let go and leave the job running [default: ctrl-]].
    #[arg(long, value_name = "KEYS", value_parser = DetachKeys::parse)]
    detach_keys: Option<DetachKeys>,
}

/// Arguments of `signal`.
#[derive(Debug, Args)]
pub struct SignalArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Id of the job.
    #[arg(long, value_name = "ID")]
    job: String,
    /// Number of the signal; 9 ends its whole tree.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=64))]
    signal: i32,
}

/// Arguments of `eof`.
#[derive(Debug, Args)]
pub struct EofArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Id of the job.
    #[arg(long, value_name = "ID")]
    job: String,
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

async fn ask(call: &Invocation, name: &str, about: JobCall) -> Outcome<Vec<JobInfo>> {
    Ok(call.backend.sandboxes().agent(name).job(about).await?)
}

/// Newest first.
pub async fn list(args: JobsArgs, call: &Invocation) -> Outcome<()> {
    let mut jobs = ask(call, &args.name, JobCall::List).await?;
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

/// One job; as JSON an object of what `jobs --format json` has in its list.
pub async fn inspect(name: &str, job: String, format: Format, call: &Invocation) -> Outcome<()> {
    let known = ask(call, name, JobCall::Inspect { job }).await?;
    match (format, known.first()) {
        (Format::Json, Some(job)) => print_json(&call.console, &entry(job)),
        _ => call.console.print(&page(&known)),
    }
}

/// The number under which the log has the output of a job.
pub async fn session(name: &str, job: String, call: &Invocation) -> Outcome<Option<u64>> {
    Ok(ask(call, name, JobCall::Inspect { job }).await?.first().map(|job| job.session))
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

/// Binds this terminal to a job until it ends or the user lets go.
pub async fn attach_to(args: AttachArgs, call: &Invocation) -> Outcome<i32> {
    let known = ask(call, &args.name, JobCall::Inspect { job: args.job.clone() }).await?;
    let tty = known.first().is_some_and(|job| job.tty);
    let program = call.backend.sandboxes().agent(&args.name).attach_job(args.job, None).await?;
    let options = AttachOptions { tty, stdin: !args.no_stdin, detach_keys: args.detach_keys.unwrap_or_default() };
    match attach(&call.console, &call.signals, &program, options).await? {
        AttachEnd::Exited(exit) => Ok(exit.code),
        AttachEnd::Detached => Ok(0),
    }
}

pub async fn signal(args: SignalArgs, call: &Invocation) -> Outcome<()> {
    ask(call, &args.name, JobCall::Signal { job: args.job, signal: args.signal }).await.map(drop)
}

pub async fn eof(args: EofArgs, call: &Invocation) -> Outcome<()> {
    ask(call, &args.name, JobCall::CloseInput { job: args.job }).await.map(drop)
}
