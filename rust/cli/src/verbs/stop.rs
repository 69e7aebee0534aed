//! `msb stop`.

use std::time::Duration;

use clap::Args;

use crate::flags::duration::parse_duration;
use crate::flags::selection::Selection;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::progress;

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    selection: Selection,
    /// Kill the sandboxes immediately, without a grace period.
    #[arg(short, long)]
    force: bool,
    /// Grace period before the sandboxes are killed; 0 kills immediately.
    #[arg(short, long, value_name = "SECS", value_parser = parse_duration, default_value = "10")]
    timeout: Duration,
}

/// A stopped sandbox is not an error.
pub async fn run(args: StopArgs, call: &Invocation) -> Outcome<()> {
    let timeout = if args.force { Duration::ZERO } else { args.timeout };
    let _progress = progress::working(&call.console, false, "stopping".into());
    args.selection.each(call, async |sandbox| sandbox.stop(Some(timeout)).await.map(|()| None)).await
}
