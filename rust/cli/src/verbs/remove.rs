//! `msb remove`.

use clap::Args;
use microsandbox_core::MicrosandboxError;

use crate::flags::selection::Selection;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::progress;

/// Arguments of `remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    selection: Selection,
    /// Stop running sandboxes first.
    #[arg(short, long)]
    force: bool,
}

/// Deletes record, files and logs; images are kept.
pub async fn run(args: RemoveArgs, call: &Invocation) -> Outcome<()> {
    let force = args.force;
    let _progress = progress::working(&call.console, false, "removing".into());
    args.selection
        .each(call, async |sandbox| {
            if force {
                sandbox.stop(None).await?;
            }
            match sandbox.remove().await {
                // An ephemeral sandbox was removed when it stopped.
                Err(MicrosandboxError::SandboxNotFound(_)) if force => Ok(None),
                other => other.map(|()| None),
            }
        })
        .await
}
