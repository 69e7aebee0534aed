//! `msb restart`.

use std::time::Duration;

use clap::Args;

use crate::flags::duration::parse_duration;
use crate::flags::selection::Selection;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::progress;

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub struct RestartArgs {
    #[command(flatten)]
    selection: Selection,
    /// Kill the sandboxes immediately, without a grace period.
    #[arg(short, long)]
    force: bool,
    /// Grace period before the sandboxes are killed; 0 kills immediately.
    #[arg(short, long, value_name = "SECS", value_parser = parse_duration, default_value = "10")]
    timeout: Duration,
}

/// A stopped sandbox is only started.
pub async fn run(args: RestartArgs, call: &Invocation) -> Outcome<()> {
    let timeout = if args.force { Duration::ZERO } else { args.timeout };
    let _progress = progress::working(&call.console, false, "restarting".into());
    args.selection
        .each(call, async |sandbox| {
            sandbox.stop(Some(timeout)).await?;
            sandbox.start(true).await.map(|_| None)
        })
        .await
}
