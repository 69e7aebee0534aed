//! `msb exec`: a program in an existing sandbox.

use clap::Args;
use microsandbox_core::model::{Rlimit, SandboxStatus};
use microsandbox_core::{MicrosandboxError, Sandbox};

use crate::flags::environment::EnvFlags;
use crate::flags::key_value::parse_rlimit;
use crate::flags::word::word;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::progress;
use crate::terminal::session::{Program, SessionEnd, SessionFlags};

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(after_help = "\
The exit status is that of the program; 127: not found, 126: not executable, 1: any other failure, 130: interrupted.
A sandbox that was stopped before is stopped again afterwards, unless the program runs in the background.")]
pub struct ExecArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Program and arguments [default: those of the sandbox, else a shell if on a terminal].
    #[arg(last = true, value_name = "CMD", value_parser = word())]
    command: Vec<String>,
    #[command(flatten)]
    env: EnvFlags,
    /// Working directory of the program.
    #[arg(short, long, value_name = "DIR", value_parser = word())]
    workdir: Option<String>,
    /// User of the program: name, uid or uid:gid.
    #[arg(short, long, value_name = "USER", value_parser = word())]
    user: Option<String>,
    /// Resource limit of the program, like nofile=1024 or cpu=10:20; may be repeated.
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_rlimit)]
    rlimit: Vec<Rlimit>,
    /// Stream the output. This is always done; the flag is accepted because existing scripts use it.
    #[arg(long, hide = true)]
    stream: bool,
    /// Print no remarks and no progress.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    session: SessionFlags,
}

/// Runs the program and returns the exit status.
pub async fn run(args: ExecArgs, call: &Invocation) -> Outcome<i32> {
    let env = args.env.variables(&call.console)?;
    let (sandbox, started) = call.interruptible(obtain(&args, call)).await?;
    let program = Program { command: args.command, env, workdir: args.workdir, user: args.user, rlimits: args.rlimit };
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
                    "the program runs in the background; attach: msb attach {0} --job {id}; output: msb logs {0}",
                    sandbox.name()
                ));
            }
            Ok(0)
        }
        SessionEnd::Running => {
            if !args.quiet {
                call.console.note(&format!("the program keeps running; output: msb logs {}", sandbox.name()));
            }
            Ok(0)
        }
    }
}

/// The sandbox, and whether this call started it.
async fn obtain(args: &ExecArgs, call: &Invocation) -> Outcome<(Sandbox, bool)> {
    let handle = Sandbox::get(&call.backend, &args.name).await?;
    // A paused sandbox is not started: connecting returns the error for it.
    if handle.status_snapshot().is_live() || handle.status_snapshot() == SandboxStatus::Paused {
        return Ok((handle.connect(None).await?, false));
    }
    let _progress = progress::working(&call.console, args.quiet, format!("starting {}", args.name));
    Ok((handle.start(false).await?, true))
}

async fn stop_again(call: &Invocation, sandbox: &Sandbox) {
    match sandbox.stop(None).await {
        Ok(()) | Err(MicrosandboxError::SandboxNotFound(_)) => {}
        Err(error) => call.console.note(&format!("warning: sandbox {} was not stopped again: {error}", sandbox.name())),
    }
}
