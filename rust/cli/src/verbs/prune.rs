//! `msb prune`, `msb image prune`.

use std::time::Duration;

use clap::Args;
use microsandbox_core::model::{ImagePruneReport, ImagePruneRequest};

use crate::flags::duration::parse_duration;
use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::tables::{Format, or_dash, print_json};
use crate::output::units::human;
use crate::terminal::console::printable;

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Show what would be deleted; delete nothing.
    #[arg(long)]
    dry_run: bool,
    /// Keep images that were used within this time.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Also delete the compressed layers of images that are kept; such an image cannot be saved.
    #[arg(long)]
    blobs: bool,
    /// Keep every image that has a name: delete only what belongs to no image.
    #[arg(long)]
    dangling: bool,
    /// Do not ask for confirmation.
    #[arg(short = 'y', long)]
    yes: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Deletes images that nothing uses and prints what was deleted and what is kept because it is in use.
pub async fn run(args: PruneArgs, call: &Invocation) -> Outcome<()> {
    if !args.yes && !args.dry_run && call.console.in_is_terminal {
        call.console.note("This deletes every image that nothing uses. Continue? [y/N]");
        if !call.confirmed().await? {
            return Err(Failure::message("not confirmed: nothing was deleted; -y skips the confirmation"));
        }
    }
    let request = ImagePruneRequest {
        dry_run: args.dry_run,
        older_than: args.older_than,
        blobs: args.blobs,
        dangling: args.dangling,
    };
    let report = call.backend.images().prune(request).await?;
    match args.format {
        Format::Json => print_json(&call.console, &report),
        Format::Table => call.console.print(&page(&report)),
    }
}

fn page(report: &ImagePruneReport) -> String {
    let mut text = String::new();
    for reference in &report.removed {
        text += &format!("{}\n", printable(reference));
    }
    for image in &report.in_use {
        text += &format!("{} is kept: in use by {}\n", printable(&image.reference), printable(&image.holder));
    }
    let (deleted, freed) = if report.dry_run { ("would be deleted", "would be freed") } else { ("deleted", "freed") };
    text + &format!(
        "{} references, {} manifests, {} layers, {} blobs and {} interrupted downloads {deleted}, {} {freed}; {} images in use \
         kept\n",
        report.image_refs_removed,
        report.manifests_removed,
        report.layers_removed,
        report.blobs_removed,
        report.parts_removed,
        or_dash(report.bytes_reclaimed.map(human)),
        report.skipped_in_use
    )
}
