//! `msb kill`.

use clap::Args;
use microsandbox_core::model::JobCall;

use crate::failure::Outcome;
use crate::invocation::Invocation;
use crate::selection::Selection;

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    #[command(flatten)]
    selection: Selection,
    /// End this job instead of the sandbox, with its whole tree.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
}

const SIGKILL: i32 = 9;

/// What was not written to disk inside is lost; stopped ones are fine.
pub async fn run(args: KillArgs, call: &Invocation) -> Outcome<()> {
    if let Some(job) = args.job {
        let name = args.selection.only()?;
        call.backend.sandboxes().agent(name).job(JobCall::Signal { job, signal: SIGKILL }).await?;
        return Ok(());
    }
    args.selection.each(call, async |sandbox| sandbox.kill(None).await.map(|()| None)).await
}
