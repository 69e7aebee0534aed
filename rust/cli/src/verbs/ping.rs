//! `msb ping`.

use clap::Args;

use crate::flags::selection::Selection;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;

/// Arguments of `ping`.
#[derive(Debug, Args)]
pub struct PingArgs {
    #[command(flatten)]
    selection: Selection,
    /// Reset the idle timers as well.
    #[arg(long)]
    touch: bool,
}

/// Prints name and round-trip time.
pub async fn run(args: PingArgs, call: &Invocation) -> Outcome<()> {
    let touch = args.touch;
    args.selection
        .each(call, async |sandbox| {
            let latency = sandbox.ping().await?;
            if touch {
                sandbox.touch().await?;
            }
            Ok(Some(format!("{}: {:.3} ms", sandbox.name(), latency.as_secs_f64() * 1000.0)))
        })
        .await
}
