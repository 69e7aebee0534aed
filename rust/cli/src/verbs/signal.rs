//! `msb signal`: a signal to a job.

use clap::Args;
use microsandbox_core::model::JobCall;

use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::verbs::jobs::job_call;

/// Arguments of `signal`.
#[derive(Debug, Args)]
pub struct SignalArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Id of the job.
    #[arg(long, value_name = "ID")]
    job: String,
    /// Number of the signal; 9 kills the job with all its descendants.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=64))]
    signal: i32,
}

pub async fn run(args: SignalArgs, call: &Invocation) -> Outcome<()> {
    job_call(call, &args.name, JobCall::Signal { job: args.job, signal: args.signal }).await.map(drop)
}
