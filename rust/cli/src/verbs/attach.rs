//! `msb attach`: this terminal attached to a job.

use clap::Args;
use microsandbox_core::model::JobCall;

use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::terminal::attach::{AttachEnd, AttachOptions, attach};
use crate::terminal::detach_keys::DetachKeys;
use crate::verbs::jobs::job_call;

/// Arguments of `attach`.
#[derive(Debug, Args)]
#[command(after_help = "\
The exit status is that of the job. Ctrl-C is sent to the job; three times within two seconds kills the job.")]
pub struct AttachArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Id of the job, from `msb exec -d` or `msb jobs`.
    #[arg(long, value_name = "ID")]
    job: String,
    /// Do not forward input to the job.
    #[arg(long)]
    no_stdin: bool,
    /// Keys that detach this terminal and leave the job running [default: ctrl-]].
    #[arg(long, value_name = "KEYS", value_parser = DetachKeys::parse)]
    detach_keys: Option<DetachKeys>,
}

/// Attaches this terminal to a job until the job exits or the user detaches.
pub async fn run(args: AttachArgs, call: &Invocation) -> Outcome<i32> {
    let known = job_call(call, &args.name, JobCall::Inspect { job: args.job.clone() }).await?;
    let tty = known.first().is_some_and(|job| job.tty);
    let program = call.backend.sandboxes().agent(&args.name).attach_job(args.job, None).await?;
    let options = AttachOptions { tty, stdin: !args.no_stdin, detach_keys: args.detach_keys.unwrap_or_default() };
    match attach(&call.console, &call.signals, &program, options).await? {
        AttachEnd::Exited(exit) => Ok(exit.code),
        AttachEnd::Detached => Ok(0),
    }
}
