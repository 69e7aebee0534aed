//! `msb exec`: a program in a sandbox that exists.

use clap::Args;
use microsandbox_core::model::{EnvVar, Rlimit, SandboxStatus};
use microsandbox_core::{MicrosandboxError, Sandbox};

use crate::flags::key_value::{parse_env, parse_rlimit};
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::progress;
use crate::terminal::session::{Program, SessionEnd, SessionFlags};

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(after_help = "\
The status is the program's own; 127: not found, 126: not executable, 1: any other failure, 130: interrupted.
A sandbox that was stopped is stopped again afterwards, unless the program goes on in the background.")]
pub struct ExecArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Program and arguments [default: the sandbox's, else a shell on a terminal].
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
    /// Environment variable; may be repeated.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_env)]
    env: Vec<EnvVar>,
    /// Directory to start in.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User to run as: name, uid or uid:gid.
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Limit of the program, like nofile=1024 or cpu=10:20; may be repeated.
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_rlimit)]
    rlimit: Vec<Rlimit>,
    /// Output as it comes. It always does; accepted because scripts say it.
    #[arg(long, hide = true)]
    stream: bool,
    /// No remarks and no progress.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    session: SessionFlags,
}

/// Runs the program and returns its status.
pub async fn run(args: ExecArgs, call: &Invocation) -> Outcome<i32> {
    let (sandbox, started) = call.interruptible(obtain(&args, call)).await?;
    let program =
        Program { command: args.command, env: args.env, workdir: args.workdir, user: args.user, rlimits: args.rlimit };
    let end = args.session.run(call, &sandbox, program).await;
    if started {
        match &end {
            Ok(SessionEnd::Running | SessionEnd::Job(_)) => sandbox.detach().await?,
            _ => stop_again(call, &sandbox).await,
        }
    }
    match end? {
        SessionEnd::Status(code) => Ok(code),
        SessionEnd::Job(id) => {
            call.console.line(&id)?;
            if !args.quiet {
                call.console.note(&format!(
                    "it goes on running; msb attach {0} --job {id} binds to it, msb logs {0} shows its output",
                    sandbox.name()
                ));
            }
            Ok(0)
        }
        SessionEnd::Running => {
            if !args.quiet {
                call.console.note(&format!("it goes on running; msb logs {} shows its output", sandbox.name()));
            }
            Ok(0)
        }
    }
}

/// The sandbox, and whether it was started for this call.
async fn obtain(args: &ExecArgs, call: &Invocation) -> Outcome<(Sandbox, bool)> {
    let handle = Sandbox::get(&call.backend, &args.name).await?;
    // A paused one is not started: connecting says what it is.
    if handle.status_snapshot().is_live() || handle.status_snapshot() == SandboxStatus::Paused {
        return Ok((handle.connect(None).await?, false));
    }
    let _progress = progress::working(&call.console, args.quiet, format!("starting {}", args.name));
    Ok((handle.start(false).await?, true))
}

async fn stop_again(call: &Invocation, sandbox: &Sandbox) {
    match sandbox.stop(None).await {
        Ok(()) | Err(MicrosandboxError::SandboxNotFound(_)) => {}
        Err(error) => call.console.note(&format!("warning: {} was not stopped again: {error}", sandbox.name())),
    }
}
