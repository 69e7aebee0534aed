//! `msb start`.

use clap::Args;

use crate::flags::selection::Selection;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::progress;

/// Arguments of `start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    selection: Selection,
}

/// Starts each sandbox with its stored configuration and leaves it running.
pub async fn run(args: StartArgs, call: &Invocation) -> Outcome<()> {
    let _progress = progress::working(&call.console, false, "starting".into());
    args.selection.each(call, async |sandbox| sandbox.start(true).await.map(|_| None)).await
}
