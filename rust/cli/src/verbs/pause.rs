//! `msb pause`.

use clap::{Args, ValueEnum};
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::ExecOptions;

use crate::flags::selection::Selection;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    #[command(flatten)]
    selection: Selection,
    /// Whether the guest's file systems are written out first: nothing is lost without.
    #[arg(long, value_enum, default_value_t, value_name = "WHETHER")]
    guest_flush: Flush,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Flush {
    /// As it suits.
    #[default]
    Auto,
    /// Or nothing is paused.
    Required,
    Skip,
}

/// Everything in them stands still; paused ones are fine.
pub async fn run(args: PauseArgs, call: &Invocation) -> Outcome<()> {
    let flush = args.guest_flush == Flush::Required;
    args.selection
        .each(call, async |sandbox| {
            if flush {
                let running = sandbox.connect(None).await?;
                let done = running.exec("sync", ExecOptions::default()).await?;
                if !done.success() {
                    let text = format!("sync ended with status {}; nothing was paused", done.exit.code);
                    return Err(MicrosandboxError::Runtime(text));
                }
            }
            sandbox.pause().await.map(|()| None)
        })
        .await
}
