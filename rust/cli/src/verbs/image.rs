//! `msb image`: list, pull, inspect, load, save, remove, prune.

use std::fmt::Write;

use clap::{Args, Subcommand};
use microsandbox_core::model::{ImageConfigDetail, ImageDetail, ImageLayerDetail};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::tables::{Format, or_dash, print_json, table};
use crate::output::units::human;
use crate::terminal::console::printable;
use crate::verbs::images::{Entry, ImagesArgs};
use crate::verbs::load::LoadArgs;
use crate::verbs::prune::PruneArgs;
use crate::verbs::pull::PullArgs;
use crate::verbs::save::SaveArgs;

/// Arguments of `image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
enum ImageVerb {
    /// List images.
    #[command(visible_alias = "ls")]
    List(ImagesArgs),
    /// Fetch images from their registries.
    Pull(PullArgs),
    /// Show configuration and layers of an image.
    Inspect(InspectArgs),
    /// Import the images of a Docker or OCI archive.
    Load(LoadArgs),
    /// Write images to a Docker or OCI archive.
    Save(SaveArgs),
    /// Delete images.
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    /// Delete images that nothing uses, and what interrupted operations left.
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// Reference of the image.
    #[arg(value_name = "REF")]
    reference: String,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// References of the images.
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
    /// Delete an image even if a sandbox uses it.
    #[arg(short, long)]
    force: bool,
    /// Do not print the references.
    #[arg(short, long)]
    quiet: bool,
}

pub async fn run(args: ImageArgs, call: &Invocation) -> Outcome<()> {
    match args.verb {
        ImageVerb::List(args) => crate::verbs::images::run(args, call).await,
        ImageVerb::Pull(args) => crate::verbs::pull::run(args, call).await,
        ImageVerb::Load(args) => crate::verbs::load::run(args, call).await,
        ImageVerb::Inspect(args) => inspect(args, call).await,
        ImageVerb::Remove(args) => remove(args, call).await,
        ImageVerb::Save(args) => crate::verbs::save::run(args, call).await,
        ImageVerb::Prune(args) => crate::verbs::prune::run(args, call).await,
    }
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    entry: Entry<'a>,
    config: Option<&'a ImageConfigDetail>,
    layers: &'a [ImageLayerDetail],
}

async fn inspect(args: InspectArgs, call: &Invocation) -> Outcome<()> {
    let detail = call.backend.images().inspect(&args.reference).await?;
    match args.format {
        Format::Json => {
            let report =
                Report { entry: Entry::from(&detail.handle), config: detail.config.as_ref(), layers: &detail.layers };
            print_json(&call.console, &report)
        }
        Format::Table => call.console.print(&page(&detail)),
    }
}

fn page(detail: &ImageDetail) -> String {
    let image = &detail.handle;
    let config = detail.config.clone().unwrap_or_default();
    let words = |words: &Option<Vec<String>>| or_dash(words.as_ref().map(|words| words.join(" ")));
    let mut lines = vec![
        ("Reference", image.reference.clone()),
        ("Digest", or_dash(image.manifest_digest.as_ref())),
        ("Platform", format!("{}/{}", or_dash(image.os.as_ref()), or_dash(image.architecture.as_ref()))),
        ("Size", or_dash(image.size_bytes.map(human))),
        ("Entrypoint", words(&config.entrypoint)),
        ("Command", words(&config.cmd)),
        ("Directory", or_dash(config.working_dir.as_ref())),
        ("User", or_dash(config.user.as_ref())),
    ];
    lines.extend(config.env.iter().map(|variable| ("Variable", variable.clone())));
    let mut text = String::new();
    for (title, value) in lines.iter().filter(|(_, value)| value != "-") {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<14}{}", format!("{title}:"), printable(value));
    }
    text.push('\n');
    let rows = detail.layers.iter().map(|layer| {
        vec![layer.position.to_string(), layer.diff_id.clone(), or_dash(layer.erofs_size_bytes.map(human))]
    });
    text + &table(&["LAYER", "DIFF ID", "SIZE"], rows)
}

async fn remove(args: RemoveArgs, call: &Invocation) -> Outcome<()> {
    let mut failed = false;
    for reference in &args.references {
        match call.backend.images().remove(reference, args.force).await {
            Ok(()) if args.quiet => {}
            Ok(()) => call.console.line(reference)?,
            Err(error) => {
                failed = true;
                call.console.note(&Failure::Core(error).report().unwrap_or_default());
            }
        }
    }
    if failed { Err(Failure::Reported) } else { Ok(()) }
}
