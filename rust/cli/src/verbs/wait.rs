//! `msb wait`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::{SandboxStatus, SandboxStopResult};
use serde::Serialize;

use crate::flags::duration::parse_duration;
use crate::flags::selection::Selection;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::tables::{Format, print_json};
use crate::output::units::timestamp;

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    #[command(flatten)]
    selection: Selection,
    /// Fail after this time [default: no limit].
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One entry of `--format json`, in the order of the exits.
#[derive(Serialize)]
struct End {
    name: String,
    status: SandboxStatus,
    exit_code: Option<i32>,
    signal: Option<i32>,
    observed_at: String,
    source: Option<String>,
}

fn end(result: SandboxStopResult) -> End {
    let SandboxStopResult { name, status, exit_code, signal, observed_at, source } = result;
    End { name, status, exit_code, signal, observed_at: timestamp(observed_at), source }
}

/// Waits for each sandbox to stop, without stopping it.
pub async fn run(args: WaitArgs, call: &Invocation) -> Outcome<()> {
    let timeout = args.timeout;
    let is_json = args.format == Format::Json;
    let selection = if is_json { args.selection.silent() } else { args.selection };
    let ends: Mutex<Vec<End>> = Mutex::default();
    let done = selection
        .each(call, async |sandbox| {
            let ended = sandbox.wait_until_stopped();
            let result = match timeout {
                None => ended.await?,
                Some(timeout) => tokio::time::timeout(timeout, ended).await.map_err(|_elapsed| {
                    MicrosandboxError::StopTimeout { name: sandbox.name().to_owned(), secs: timeout.as_secs_f64() }
                })??,
            };
            ends.lock().unwrap_or_else(PoisonError::into_inner).push(end(result));
            Ok(None)
        })
        .await;
    if is_json {
        print_json(&call.console, &*ends.lock().unwrap_or_else(PoisonError::into_inner))?;
    }
    done
}
