//! `msb pull`, `msb image pull`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::{PullPolicy, PullRequest, RegistryAccess};

use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::progress;

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// References of the images.
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
    /// The same as without it: the registry is always asked, and only what is missing here is downloaded.
    #[arg(short, long, hide = true)]
    force: bool,
    /// Image of another platform, like linux/arm64 [default: that of this machine].
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Ask the registry over plain HTTP.
    #[arg(long)]
    insecure: bool,
    /// PEM file of a certificate authority to trust as well; may be repeated.
    #[arg(long, value_name = "PATH")]
    ca_certs: Vec<PathBuf>,
    /// Form of the image on disk; only `layered` is implemented.
    #[arg(long, value_name = "FORM", value_enum, hide = true)]
    materialize: Option<Form>,
    /// Print no progress.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Layered,
    Flat,
    All,
}

/// Largest certificate file.
const PEM_MAX: u64 = 1 << 20;

/// Fetches every image, and prints the references in full.
pub async fn run(args: PullArgs, call: &Invocation) -> Outcome<()> {
    if args.materialize.is_some_and(|form| form != Form::Layered) {
        let feature = "msb pull --materialize flat";
        return Err(Failure::Core(MicrosandboxError::unsupported(feature, "when flat root disks land")));
    }
    let access = RegistryAccess {
        insecure: args.insecure,
        ca_certs: args.ca_certs.iter().map(pem).collect::<Outcome<_>>()?,
        ..RegistryAccess::default()
    };
    let mut failed = false;
    for reference in &args.references {
        let request = PullRequest {
            reference: reference.clone(),
            policy: PullPolicy::Always,
            access: access.clone(),
            platform: args.platform.clone(),
        };
        let (_progress, report) = progress::pulling(&call.console, args.quiet, format!("resolving {reference}"));
        let pulled = call.backend.images().pull(request, Some(report)).await;
        drop(_progress);
        match pulled {
            Ok(image) => call.console.line(&image.reference)?,
            Err(error) if args.references.len() == 1 => return Err(error.into()),
            Err(error) => {
                failed = true;
                call.console.note(&Failure::Core(error).report().unwrap_or_default());
            }
        }
    }
    if failed { Err(Failure::Reported) } else { Ok(()) }
}

fn pem(path: &PathBuf) -> Outcome<Vec<u8>> {
    use std::io::Read as _;
    let mut pem = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(PEM_MAX + 1).read_to_end(&mut pem))
        .map_err(|error| Failure::message(format!("cannot read {}: {error}", path.display())))?;
    if pem.len() as u64 > PEM_MAX {
        return Err(Failure::message(format!("{} is larger than 1 MiB: it is no certificate", path.display())));
    }
    Ok(pem)
}
