//! `msb kill`.

use clap::Args;
use microsandbox_core::model::JobCall;

use crate::flags::selection::Selection;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    #[command(flatten)]
    selection: Selection,
    /// Kill this job with all its descendants instead of the sandbox.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
}

const SIGKILL: i32 = 9;

/// Data not yet written to disk in the guest is lost. A stopped sandbox is not an error.
pub async fn run(args: KillArgs, call: &Invocation) -> Outcome<()> {
    if let Some(job) = args.job {
        let name = args.selection.only()?;
        call.backend.sandboxes().agent(name).job(JobCall::Signal { job, signal: SIGKILL }).await?;
        return Ok(());
    }
    args.selection.each(call, async |sandbox| sandbox.kill(None).await.map(|()| None)).await
}
