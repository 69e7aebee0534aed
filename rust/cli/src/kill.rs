//! `msb kill`.

use clap::Args;

use crate::failure::Outcome;
use crate::invocation::Invocation;
use crate::selection::Selection;

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    #[command(flatten)]
    selection: Selection,
}

/// What was not written to disk inside is lost; stopped ones are fine.
pub async fn run(args: KillArgs, call: &Invocation) -> Outcome<()> {
    args.selection.each(call, async |sandbox| sandbox.kill(None).await.map(|()| None)).await
}
