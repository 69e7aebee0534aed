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
    /// Whether to run sync in the sandbox first. No data is lost without it, since memory is kept.
    #[arg(long, value_enum, default_value_t, value_name = "WHETHER")]
    guest_flush: Flush,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Flush {
    /// Let msb decide (today: skip).
    #[default]
    Auto,
    /// Run sync; on failure, do not pause.
    Required,
    /// Do not run sync.
    Skip,
}

/// Freezes all processes. A paused sandbox is not an error.
pub async fn run(args: PauseArgs, call: &Invocation) -> Outcome<()> {
    let flush = args.guest_flush == Flush::Required;
    args.selection
        .each(call, async |sandbox| {
            if flush {
                let running = sandbox.connect(None).await?;
                let done = running.exec("sync", ExecOptions::default()).await?;
                if !done.success() {
                    let text = format!(
                        "sync in sandbox {} exited with status {}; the sandbox was not paused",
                        sandbox.name(),
                        done.exit.code
                    );
                    return Err(MicrosandboxError::Runtime(text));
                }
            }
            sandbox.pause().await.map(|()| None)
        })
        .await
}
