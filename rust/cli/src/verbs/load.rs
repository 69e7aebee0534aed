//! `msb load`, `msb image load`.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::progress;
use crate::terminal::input::InputStream;

/// Arguments of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Path of the archive; `-` is standard input [default: standard input].
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Additional reference for the first image of the archive.
    #[arg(short, long, value_name = "REF")]
    tag: Option<String>,
    /// Print no progress.
    #[arg(short, long)]
    quiet: bool,
}

/// Imports every image of the archive and prints the references.
pub async fn run(args: LoadArgs, call: &Invocation) -> Outcome<()> {
    let input = args.input.filter(|path| path != Path::new("-"));
    let (_progress, report) = progress::importing(&call.console, args.quiet);
    let (archive, _copy) = match input {
        Some(path) => (path, None),
        None => {
            if call.console.in_is_terminal {
                return Err(Failure::Usage("give the archive with --input, or on standard input".into()));
            }
            let copy = TemporaryArchive::from_input(call).await?;
            (copy.path.clone(), Some(copy))
        }
    };
    let images = call.backend.images().load(&archive, args.tag, Some(report)).await?;
    drop(_progress);
    call.console.print(&images.iter().map(|image| format!("{}\n", image.reference)).collect::<String>())
}

/// Standard input as a file, because an archive is read more than once.
struct TemporaryArchive {
    path: PathBuf,
}

impl TemporaryArchive {
    async fn from_input(call: &Invocation) -> Outcome<Self> {
        let failed =
            |error: std::io::Error| Failure::message(format!("cannot copy the archive to a temporary file: {error}"));
        let (archive, mut file) = Self::create().map_err(failed)?;
        let mut input = InputStream::open(&call.console.input).map_err(failed)?;
        while let Some(chunk) = input.next().await {
            file.write_all(&chunk).map_err(failed)?;
        }
        Ok(archive)
    }

    fn create() -> std::io::Result<(Self, File)> {
        // The standard library seeds each hasher from the system's random numbers.
        let name = format!("msb-load-{:016x}.tar", RandomState::new().build_hasher().finish());
        let path = std::env::temp_dir().join(name);
        // Exclusive: an existing file or link of that name is never written to.
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((TemporaryArchive { path }, file))
    }
}

impl Drop for TemporaryArchive {
    fn drop(&mut self) {
        // A failure is ignored: the file is in the temporary directory, which the system cleans.
        let _ = std::fs::remove_file(&self.path);
    }
}
