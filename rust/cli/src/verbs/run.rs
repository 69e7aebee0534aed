//! `msb run`: creates a sandbox, runs a program, cleans up.

use clap::Args;
use microsandbox_core::model::SandboxStatus;
use microsandbox_core::{MicrosandboxError, Sandbox};

use crate::app::GivenFlags;
use crate::flags::sandbox_flags::SandboxFlags;
use crate::flags::word::word;
use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::terminal::session::{Program, SessionEnd, SessionFlags};
use crate::verbs::create::create_named;

/// Flags of the run, not of the sandbox.
const OF_THE_RUN: [&str; 9] =
    ["--name", "--quiet", "--detach", "--tty", "--no-tty", "--no-stdin", "--timeout", "--detach-keys", "--timings"];

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --name the sandbox is removed when the program exits. With --name the sandbox is kept, stopped; with the name of
an existing sandbox the program runs in that sandbox. Ctrl-C is sent to the program; three times within two seconds
kills the program.

The exit status is that of the program; 127: not found, 126: not executable, 1: any other failure, 130: interrupted.

Ports, networks and secrets are not implemented in this version: their flags are refused with an error.")]
pub struct RunArgs {
    /// `host` (the programs of this machine), an image reference, or a directory.
    #[arg(value_name = "IMAGE", required_unless_present = "name")]
    image: Option<String>,
    /// Program and arguments [default: those of the image, else a shell if on a terminal].
    #[arg(last = true, value_name = "CMD", value_parser = word())]
    command: Vec<String>,
    /// Print the duration of each boot step on standard error.
    #[arg(long)]
    timings: bool,
    #[command(flatten)]
    session: SessionFlags,
    #[command(flatten)]
    flags: SandboxFlags,
}

/// The cleanup of the sandbox after the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    /// Created for this run.
    Destroy,
    /// Named, but started for this run only.
    Stop,
    /// The sandbox ran before, or shall keep running.
    Leave,
}

/// Runs the program and returns the exit status.
pub async fn run(args: RunArgs, given: GivenFlags, call: &Invocation) -> Outcome<i32> {
    let (sandbox, afterwards) = call.interruptible(obtain(&args, &given, call)).await?;
    if args.timings {
        let text = crate::output::timings::page(sandbox.boot_timings());
        call.console.note(text.as_deref().unwrap_or("timings: no sandbox was booted for this run").trim_end());
    }
    let program = Program { command: args.command.clone(), ..Program::default() };
    let idle = args.session.detach && args.command.is_empty() && sandbox.default_command().is_err();
    let end = if idle { Ok(SessionEnd::Running) } else { args.session.run(call, &sandbox, program).await };
    match end {
        Ok(SessionEnd::Running | SessionEnd::Job(_)) => {
            leave_running(call, &sandbox, args.session.detach).await?;
            Ok(0)
        }
        Ok(SessionEnd::Status(code)) => {
            clean_up(call, &sandbox, afterwards).await;
            Ok(code)
        }
        Err(failure) => {
            let gone = if args.flags.name.is_none() { Afterwards::Destroy } else { afterwards };
            clean_up(call, &sandbox, gone).await;
            Err(failure)
        }
    }
}

/// The sandbox to run in: an existing one of that name, or a new one.
async fn obtain(args: &RunArgs, given: &GivenFlags, call: &Invocation) -> Outcome<(Sandbox, Afterwards)> {
    if let Some(name) = &args.flags.name
        && !args.flags.replaces()
    {
        match Sandbox::get(&call.backend, name).await {
            Ok(handle) => return reuse(args, given, call, handle).await,
            Err(MicrosandboxError::SandboxNotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let Some(image) = &args.image else {
        let name = args.flags.name.clone().unwrap_or_default();
        return Err(Failure::hinted(
            format!("sandbox not found: {name}"),
            "to create the sandbox, give an image: msb run IMAGE --name NAME",
        ));
    };
    let mut config = args.flags.config(call, image, args.flags.name.clone().unwrap_or_default())?;
    config.spec.mounts = args.flags.mounts.mounts(call).await?;
    config.spec.lifecycle.ephemeral = args.flags.name.is_none();
    config.spec.detached = args.session.detach;
    let afterwards = match (&args.flags.name, args.session.detach) {
        (_, true) => Afterwards::Leave,
        (None, false) => Afterwards::Destroy,
        (Some(_), false) => Afterwards::Stop,
    };
    Ok((create_named(call, config, args.flags.quiet).await?, afterwards))
}

async fn reuse(
    args: &RunArgs,
    given: &GivenFlags,
    call: &Invocation,
    handle: microsandbox_core::SandboxHandle,
) -> Outcome<(Sandbox, Afterwards)> {
    let ignored: Vec<&str> = given.iter().map(String::as_str).filter(|flag| !OF_THE_RUN.contains(flag)).collect();
    if !ignored.is_empty() && !args.flags.quiet {
        call.console.note(&format!(
            "warning: sandbox {} exists and keeps its configuration; ignored: {} (--replace creates it again)",
            handle.name(),
            ignored.join(" ")
        ));
    }
    let ran = matches!(handle.status_snapshot(), SandboxStatus::Running | SandboxStatus::Draining);
    let sandbox = handle.connect_or_start(args.session.detach).await?;
    let afterwards = if ran || args.session.detach { Afterwards::Leave } else { Afterwards::Stop };
    Ok((sandbox, afterwards))
}

/// The user detached, or gave --detach: the sandbox must outlive this process.
async fn leave_running(call: &Invocation, sandbox: &Sandbox, asked: bool) -> Outcome<()> {
    if sandbox.owns_lifecycle() {
        sandbox.detach().await?;
    }
    if asked {
        return call.console.line(sandbox.name());
    }
    call.console.note(&format!("\ndetached: the program in {0} keeps running; output: msb logs {0}", sandbox.name()));
    Ok(())
}

/// Cleans up what this run created. A failure is reported but does not change the exit status.
async fn clean_up(call: &Invocation, sandbox: &Sandbox, afterwards: Afterwards) {
    let result = match afterwards {
        Afterwards::Leave => return,
        Afterwards::Destroy => sandbox.destroy(true, None).await,
        Afterwards::Stop => sandbox.stop(None).await,
    };
    match result {
        Ok(()) | Err(MicrosandboxError::SandboxNotFound(_)) => {}
        Err(error) => call.console.note(&format!("warning: sandbox {} was not cleaned up: {error}", sandbox.name())),
    }
}
