//! `msb volume`: storage that outlives sandboxes.

use clap::{Args, Subcommand};
use microsandbox_core::model::{VolumeConfig, VolumeInfo, VolumeKind, VolumeQuery};
use serde::Serialize;

use crate::flags::key_value::parse_pair;
use crate::flags::size::parse_mib;
use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::tables::{Format, or_dash, print_json, table};
use crate::output::units::{ago, timestamp};

/// Arguments of `volume`.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    #[command(subcommand)]
    verb: VolumeVerb,
}

#[derive(Debug, Subcommand)]
enum VolumeVerb {
    /// Create a volume.
    Create(CreateArgs),
    /// List volumes.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one volume in full.
    Inspect(InspectArgs),
    /// Delete volumes with their files; refused for volumes that a sandbox uses.
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Name of the volume: letters, digits, `.`, `-`, `_`.
    #[arg(value_name = "NAME", required_unless_present = "named")]
    name: Option<String>,
    /// The same as NAME.
    #[arg(short = 'n', long = "name", value_name = "NAME", conflicts_with = "name")]
    named: Option<String>,
    /// Kind of the volume: a directory, or a disk image of a fixed size.
    #[arg(long, value_name = "KIND", value_parser = ["dir", "disk"], default_value = "dir")]
    kind: String,
    /// Quota of a directory or size of a disk, like 512M or 2G.
    #[arg(long, value_name = "SIZE", value_parser = parse_mib)]
    size: Option<u32>,
    /// Label; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Do not print the name.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print names only, one per line.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// Name of the volume.
    name: String,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// Names of volumes.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Do not print the names.
    #[arg(short, long)]
    quiet: bool,
}

/// One entry of `--format json`.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    kind: VolumeKind,
    quota_mib: Option<u64>,
    used_bytes: u64,
    capacity_bytes: Option<u64>,
    disk_format: Option<&'a str>,
    disk_fstype: Option<&'a str>,
    labels: &'a std::collections::BTreeMap<String, String>,
    created_at: Option<String>,
}

fn entry(info: &VolumeInfo) -> Entry<'_> {
    Entry {
        name: &info.name,
        kind: info.kind,
        quota_mib: info.quota_mib,
        used_bytes: info.used_bytes,
        capacity_bytes: info.capacity_bytes,
        disk_format: info.disk_format.as_deref(),
        disk_fstype: info.disk_fstype.as_deref(),
        labels: &info.labels,
        created_at: info.created_at.map(timestamp),
    }
}

pub async fn run(args: VolumeArgs, call: &Invocation) -> Outcome<()> {
    match args.verb {
        VolumeVerb::Create(args) => create(args, call).await,
        VolumeVerb::List(args) => list(&args, call).await,
        VolumeVerb::Inspect(args) => inspect(&args, call).await,
        VolumeVerb::Remove(args) => remove(args, call).await,
    }
}

async fn create(args: CreateArgs, call: &Invocation) -> Outcome<()> {
    let disk = args.kind == "disk";
    let size = args.size.map(u64::from);
    let config = VolumeConfig {
        name: args.name.or(args.named).unwrap_or_default(),
        kind: if disk { VolumeKind::Disk } else { VolumeKind::Directory },
        quota_mib: size.filter(|_| !disk),
        capacity_mib: size.filter(|_| disk),
        labels: args.label.into_iter().collect(),
        owner: None,
    };
    if disk && config.capacity_mib.is_none() {
        return Err(Failure::Usage("--kind disk needs --size".into()));
    }
    let info = call.backend.volumes().create(config).await?;
    if args.quiet { Ok(()) } else { call.console.line(&info.name) }
}

async fn list(args: &ListArgs, call: &Invocation) -> Outcome<()> {
    let all = call.backend.volumes().list(VolumeQuery::default()).await?;
    if args.quiet {
        return call.console.print(&all.iter().map(|info| format!("{}\n", info.name)).collect::<String>());
    }
    if args.format == Format::Json {
        return print_json(&call.console, &all.iter().map(entry).collect::<Vec<_>>());
    }
    if all.is_empty() {
        call.console.note("No volumes found.");
        return Ok(());
    }
    call.console.print(&rows(&all, call))
}

fn rows(all: &[VolumeInfo], call: &Invocation) -> String {
    let rows = all.iter().map(|info| {
        vec![
            if info.is_default { "(default)".into() } else { info.name.clone() },
            info.kind.as_str().to_owned(),
            indicatif::HumanBytes(info.used_bytes).to_string(),
            or_dash(info.capacity_bytes.map(|bytes| indicatif::HumanBytes(bytes).to_string())),
            or_dash(info.created_at.map(|moment| ago(moment, call.now))),
        ]
    });
    table(&["NAME", "KIND", "USED", "CAPACITY", "CREATED"], rows)
}

async fn inspect(args: &InspectArgs, call: &Invocation) -> Outcome<()> {
    let info = call.backend.volumes().get(&args.name).await?;
    match args.format {
        Format::Json => print_json(&call.console, &entry(&info)),
        Format::Table => call.console.print(&rows(&[info], call)),
    }
}

/// Tries to remove every volume; failures are reported.
async fn remove(args: RemoveArgs, call: &Invocation) -> Outcome<()> {
    let mut failed = false;
    for name in &args.names {
        match call.backend.volumes().remove(name).await {
            Ok(()) if args.quiet => {}
            Ok(()) => call.console.line(name)?,
            Err(error) => {
                call.console.note(&format!("error: {name}: {error}"));
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Reported) } else { Ok(()) }
}
