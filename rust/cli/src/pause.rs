//! `msb pause` and `msb resume`.

use clap::Args;

use crate::failure::Outcome;
use crate::invocation::Invocation;
use crate::selection::Selection;

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    #[command(flatten)]
    selection: Selection,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    selection: Selection,
}

/// Everything in them stands still; paused ones are fine.
pub async fn pause(args: PauseArgs, call: &Invocation) -> Outcome<()> {
    args.selection.each(call, async |sandbox| sandbox.pause().await.map(|()| None)).await
}

/// Everything goes on where it was; running ones are fine.
pub async fn resume(args: ResumeArgs, call: &Invocation) -> Outcome<()> {
    args.selection.each(call, async |sandbox| sandbox.resume().await.map(|()| None)).await
}
