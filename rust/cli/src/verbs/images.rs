//! `msb images`, `msb image list`.

use clap::Args;
use microsandbox_core::model::ImageInfo;
use serde::Serialize;

use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::tables::{Format, or_dash, print_json, table};
use crate::output::units::{ago, human, timestamp};

/// Arguments of `images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print references only, one per line.
    #[arg(short, long)]
    quiet: bool,
}

/// One entry of `--format json`.
#[derive(Serialize)]
pub struct Entry<'a> {
    pub reference: &'a str,
    pub digest: Option<&'a str>,
    pub size_bytes: Option<u64>,
    pub architecture: Option<&'a str>,
    pub os: Option<&'a str>,
    pub layer_count: u32,
    pub created_at: Option<String>,
}

impl<'a> From<&'a ImageInfo> for Entry<'a> {
    fn from(image: &'a ImageInfo) -> Self {
        Entry {
            reference: &image.reference,
            digest: image.manifest_digest.as_deref(),
            size_bytes: image.size_bytes,
            architecture: image.architecture.as_deref(),
            os: image.os.as_deref(),
            layer_count: image.layer_count,
            created_at: image.created_at.map(timestamp),
        }
    }
}

pub async fn run(args: ImagesArgs, call: &Invocation) -> Outcome<()> {
    let images = call.backend.images().list().await?;
    if args.quiet {
        return call.console.print(&images.iter().map(|image| format!("{}\n", image.reference)).collect::<String>());
    }
    if args.format == Format::Json {
        return print_json(&call.console, &images.iter().map(Entry::from).collect::<Vec<_>>());
    }
    if images.is_empty() {
        call.console.note("No images found.");
        return Ok(());
    }
    let rows = images.iter().map(|image| {
        vec![
            image.reference.clone(),
            or_dash(image.manifest_digest.as_deref().map(short_digest)),
            image.layer_count.to_string(),
            or_dash(image.size_bytes.map(human)),
            or_dash(image.created_at.map(|moment| ago(moment, call.now))),
        ]
    });
    call.console.print(&table(&["REFERENCE", "DIGEST", "LAYERS", "SIZE", "CREATED"], rows))
}

/// Enough to distinguish images; `inspect` shows the whole digest.
fn short_digest(digest: &str) -> String {
    const SHOWN: usize = "sha256:".len() + 12;
    digest.chars().take(SHOWN).collect()
}
