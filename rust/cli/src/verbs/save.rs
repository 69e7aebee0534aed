//! `msb save`, `msb image save`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use microsandbox_core::model::{ImageArchiveFormat, ImageSaveRequest};

use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};

/// Arguments of `save`.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// References of the images.
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
    /// Form of the archive.
    #[arg(long, value_enum, default_value_t)]
    format: ArchiveFormat,
    /// Path of the archive; `-` is standard output [default: standard output].
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum ArchiveFormat {
    /// As `docker save` writes it.
    #[default]
    Docker,
    /// An OCI image layout.
    Oci,
}

/// Writes the images to an archive, with the digests that they came with.
pub async fn run(args: SaveArgs, call: &Invocation) -> Outcome<()> {
    if args.output.is_none() && call.console.out_is_terminal {
        return Err(Failure::Usage("give a path with --output, or redirect standard output".into()));
    }
    let format = match args.format {
        ArchiveFormat::Docker => ImageArchiveFormat::Docker,
        ArchiveFormat::Oci => ImageArchiveFormat::Oci,
    };
    let output = args.output.unwrap_or_else(|| "-".into());
    call.backend.images().save(ImageSaveRequest { references: args.references, output, format }).await?;
    Ok(())
}
