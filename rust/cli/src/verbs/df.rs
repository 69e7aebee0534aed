//! `msb df`.

use clap::Args;
use microsandbox_core::model::{StorageCategory, StorageUsage};

use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::tables::{Format, or_dash, print_json, table};
use crate::output::units::human;
use crate::terminal::console::printable;

/// Arguments of `df`.
#[derive(Debug, Args)]
pub struct DfArgs {
    /// Show each image, sandbox and volume.
    #[arg(short, long)]
    verbose: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints what uses how much of the disk.
pub async fn run(args: DfArgs, call: &Invocation) -> Outcome<()> {
    let usage = call.backend.images().usage().await?;
    match args.format {
        Format::Json => print_json(&call.console, &usage),
        Format::Table => call.console.print(&page(&usage, args.verbose)),
    }
}

fn page(usage: &StorageUsage, verbose: bool) -> String {
    let categories = [
        ("images", &usage.images),
        ("snapshots", &usage.snapshots),
        ("sandboxes", &usage.sandboxes),
        ("volumes", &usage.volumes),
    ];
    let rows = categories.iter().map(|(name, category)| {
        vec![
            (*name).to_owned(),
            category.count.to_string(),
            category.in_use.to_string(),
            human(category.allocated_bytes),
            or_dash(category.reclaimable_logical_bytes.map(human)),
        ]
    });
    let mut text = table(&["TYPE", "COUNT", "IN USE", "ON DISK", "RECLAIMABLE"], rows);
    for (name, category) in categories.into_iter().filter(|(_, category)| verbose && !category.items.is_empty()) {
        text += &items(name, category);
    }
    let notes = categories.into_iter().flat_map(|(_, category)| &category.notes).chain(&usage.notes);
    for note in notes.filter(|_| verbose) {
        text += &format!("\n{}", printable(note));
    }
    if verbose { text + "\n" } else { text }
}

fn items(name: &str, category: &StorageCategory) -> String {
    let rows = category
        .items
        .iter()
        .map(|item| vec![item.name.clone(), human(item.allocated_bytes), or_dash(joined(&item.reasons))]);
    format!("\n{}", table(&[&name.to_uppercase(), "ON DISK", "USED BY"], rows))
}

fn joined(reasons: &[String]) -> Option<String> {
    (!reasons.is_empty()).then(|| reasons.join(", "))
}
