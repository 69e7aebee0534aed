//! `msb touch`.

use clap::Args;

use crate::flags::selection::Selection;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;

/// Arguments of `touch`.
#[derive(Debug, Args)]
pub struct TouchArgs {
    #[command(flatten)]
    selection: Selection,
}

/// Resets the idle timers.
pub async fn run(args: TouchArgs, call: &Invocation) -> Outcome<()> {
    args.selection.each(call, async |sandbox| sandbox.touch().await.map(|_| None)).await
}
