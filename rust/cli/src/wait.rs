//! `msb wait`.

use std::time::Duration;

use clap::Args;
use microsandbox_core::MicrosandboxError;

use crate::duration::parse_duration;
use crate::failure::Outcome;
use crate::invocation::Invocation;
use crate::selection::Selection;

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    #[command(flatten)]
    selection: Selection,
    /// Give up after this time [default: never].
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// Waits for any end without asking for it.
pub async fn run(args: WaitArgs, call: &Invocation) -> Outcome<()> {
    let timeout = args.timeout;
    args.selection
        .each(call, async |sandbox| {
            let ended = sandbox.wait_until_stopped();
            let Some(timeout) = timeout else { return ended.await.map(|_| None) };
            match tokio::time::timeout(timeout, ended).await {
                Ok(result) => result.map(|_| None),
                Err(_elapsed) => {
                    Err(MicrosandboxError::StopTimeout { name: sandbox.name().to_owned(), secs: timeout.as_secs_f64() })
                }
            }
        })
        .await
}
