//! `msb list`.

use clap::Args;
use microsandbox_core::SandboxHandle;
use microsandbox_core::model::{Isolation, SandboxStatus};
use serde::Serialize;

use crate::flags::key_value::parse_pair;
use crate::flags::selection::every;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::tables::{Format, or_dash, print_json, table};
use crate::output::units::{ago, timestamp};

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only running sandboxes.
    #[arg(long, conflicts_with = "stopped")]
    running: bool,
    /// Only stopped and crashed sandboxes.
    #[arg(long)]
    stopped: bool,
    /// Only sandboxes with this label; if repeated, all labels must match.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print names only, one per line.
    #[arg(short, long)]
    quiet: bool,
}

/// One entry of `--format json`.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    status: SandboxStatus,
    isolation: Option<Isolation>,
    image: String,
    created_at: Option<String>,
}

pub async fn run(args: ListArgs, call: &Invocation) -> Outcome<()> {
    let mut handles = every(call, &args.label).await?;
    handles.retain(|handle| {
        let status = handle.status_snapshot();
        (!args.running || status.is_live()) && (!args.stopped || status.is_terminal())
    });
    if args.quiet {
        return call.console.print(&handles.iter().map(|handle| format!("{}\n", handle.name())).collect::<String>());
    }
    if args.format == Format::Json {
        return print_json(&call.console, &handles.iter().map(entry).collect::<Vec<_>>());
    }
    if handles.is_empty() {
        call.console.note("No sandboxes found.");
        return Ok(());
    }
    let rows = handles.iter().map(entry).zip(&handles).map(|(entry, handle)| {
        vec![
            entry.name.to_owned(),
            entry.status.to_string(),
            or_dash(entry.isolation),
            entry.image,
            or_dash(handle.created_at().map(|moment| ago(moment, call.now))),
        ]
    });
    call.console.print(&table(&["NAME", "STATUS", "ISOLATION", "IMAGE", "CREATED"], rows))
}

fn entry(handle: &SandboxHandle) -> Entry<'_> {
    Entry {
        name: handle.name(),
        status: handle.status_snapshot(),
        isolation: handle.isolation(),
        image: image(handle),
        created_at: handle.created_at().map(timestamp),
    }
}

/// Reference or path of the image; `-` if the stored configuration cannot be read.
pub fn image(handle: &SandboxHandle) -> String {
    handle.config().map_or_else(|_| "-".to_owned(), |spec| spec.image.describe())
}
