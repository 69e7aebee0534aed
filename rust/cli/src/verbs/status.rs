//! `msb status`: state and resources of sandboxes.

use clap::Args;
use microsandbox_core::model::{Isolation, SandboxSpec, SandboxStatus};
use microsandbox_core::{MicrosandboxResult, Sandbox, SandboxHandle};
use serde::Serialize;

use crate::flags::key_value::parse_pair;
use crate::flags::selection::every;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::tables::{Format, or_dash, print_json, table};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Name of one sandbox [default: all running sandboxes].
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Also sandboxes that are not running.
    #[arg(short, long)]
    all: bool,
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
struct Entry {
    name: String,
    status: SandboxStatus,
    isolation: Option<Isolation>,
    image: String,
    command: Option<Vec<String>>,
    cpus: u8,
    max_cpus: u8,
    memory_mib: u32,
    max_memory_mib: u32,
    thp: Option<String>,
    /// Published ports; always empty until networking is implemented.
    ports: [String; 0],
}

pub async fn run(args: StatusArgs, call: &Invocation) -> Outcome<()> {
    let handles = match &args.name {
        Some(name) => vec![Sandbox::get(&call.backend, name).await?],
        None => {
            let mut handles = every(call, &args.label).await?;
            handles.retain(|handle| args.all || handle.status_snapshot().is_live());
            handles
        }
    };
    if args.quiet {
        return call.console.print(&handles.iter().map(|handle| format!("{}\n", handle.name())).collect::<String>());
    }
    let entries = handles.iter().map(entry).collect::<MicrosandboxResult<Vec<Entry>>>()?;
    match (args.format, &args.name, entries.first()) {
        (Format::Json, Some(_), Some(one)) => print_json(&call.console, one),
        (Format::Json, ..) => print_json(&call.console, &entries),
        (Format::Table, _, None) => {
            call.console.note(if args.all { "No sandboxes found." } else { "No running sandboxes found." });
            Ok(())
        }
        (Format::Table, ..) => call.console.print(&rows(&entries)),
    }
}

fn rows(entries: &[Entry]) -> String {
    let header = ["NAME", "STATUS", "ISOLATION", "IMAGE", "COMMAND", "CPUS", "MEMORY"];
    table(
        &header,
        entries.iter().map(|entry| {
            vec![
                entry.name.clone(),
                entry.status.to_string(),
                or_dash(entry.isolation),
                entry.image.clone(),
                or_dash(entry.command.as_ref().map(|words| words.join(" "))),
                entry.cpus.to_string(),
                format!("{} MiB", entry.memory_mib),
            ]
        }),
    )
}

fn entry(handle: &SandboxHandle) -> MicrosandboxResult<Entry> {
    let spec = handle.config()?;
    Ok(Entry {
        name: handle.name().to_owned(),
        status: handle.status_snapshot(),
        isolation: handle.isolation(),
        image: spec.image.describe(),
        command: command(&spec),
        cpus: spec.resources.cpus,
        max_cpus: spec.resources.max_cpus,
        memory_mib: spec.resources.memory_mib,
        max_memory_mib: spec.resources.max_memory_mib,
        thp: spec.resources.thp,
        ports: [],
    })
}

/// The default command of the sandbox.
fn command(spec: &SandboxSpec) -> Option<Vec<String>> {
    let own = &spec.runtime;
    let image = &spec.image_defaults;
    let inherited = if own.entrypoint.is_some() { None } else { image.cmd.as_ref() };
    let entrypoint = own.entrypoint.as_ref().or(image.entrypoint.as_ref());
    let words: Vec<String> = entrypoint.into_iter().chain(own.cmd.as_ref().or(inherited)).flatten().cloned().collect();
    (!words.is_empty()).then_some(words)
}
