//! `msb resume`.

use clap::Args;

use crate::flags::selection::Selection;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    selection: Selection,
}

/// Unfreezes all processes. A running sandbox is not an error.
pub async fn run(args: ResumeArgs, call: &Invocation) -> Outcome<()> {
    args.selection.each(call, async |sandbox| sandbox.resume().await.map(|()| None)).await
}
