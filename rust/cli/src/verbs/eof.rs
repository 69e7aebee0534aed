//! `msb eof`: closes the standard input of a job.

use clap::Args;
use microsandbox_core::model::JobCall;

use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::verbs::jobs::job_call;

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

pub async fn run(args: EofArgs, call: &Invocation) -> Outcome<()> {
    job_call(call, &args.name, JobCall::CloseInput { job: args.job }).await.map(drop)
}
