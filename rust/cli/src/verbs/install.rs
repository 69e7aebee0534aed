//! `msb install`: libkrunfw, which microVMs need and our wheels may not contain; and programs of images as commands.

use std::path::PathBuf;

use clap::Args;
use microsandbox_local::LocalBackend;
use microsandbox_local::guest_kernel::install::{self, Installed, LICENCES};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::progress;
use crate::output::tables::{Format, print_json};
use crate::verbs::installed_commands::{self, CommandFlags};

/// The library with the guest kernel of microVMs.
const LIBKRUNFW: &str = "libkrunfw";

/// Arguments of `install`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  msb install libkrunfw                          the library that microVMs need
  msb install host -n py -- python3              the command py: Python in a persistent sandbox
  msb install debian:12 --tmp -n sh12 -- bash    the command sh12: bash in a new sandbox for each call
  msb install --list                             list the installed commands

A command is a script in <home>/bin; msb uninstall NAME removes it.

libkrunfw is installed in <home>/lib. It comes from the wheel microsandbox 0.7.11, a package of another project that
contains the library. The pip of the Python that runs msb downloads the wheel, from the package index configured there.
The digests of wheel and library are verified against those in this version. Nothing else of the wheel is used.

Licences: LGPL-2.1-only (libkrunfw), GPL-2.0-only (the Linux kernel in libkrunfw).

With --from nothing is downloaded: FILE is the library, or a wheel that contains it.")]
pub struct InstallArgs {
    /// `libkrunfw`, or the image of the command: `host`, a reference, or a directory.
    #[arg(value_name = "WHAT", required_unless_present = "list")]
    what: Option<String>,
    /// Program of the command and its first arguments [default: those of the image].
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
    /// List the installed commands.
    #[arg(short, long, conflicts_with = "what")]
    list: bool,
    #[command(flatten)]
    flags: CommandFlags,
    /// Install libkrunfw from this file instead of the package index.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print no progress.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    path: &'a str,
    digest: &'a str,
    version: Option<&'static str>,
    licences: &'static str,
    already: bool,
}

pub async fn run(args: InstallArgs, call: &Invocation) -> Outcome<()> {
    match args.what {
        None => return installed_commands::list(args.format, call),
        Some(image) if image != LIBKRUNFW => {
            if args.from.is_some() {
                return Err(Failure::Usage("--from is for libkrunfw only; a command takes --volume and --env".into()));
            }
            return installed_commands::install(image, &args.flags, args.command, call);
        }
        Some(_) => installed_commands::refuse(&args.flags, &args.command)?,
    }
    libkrunfw(args.from, args.format, args.quiet, call).await
}

/// Installs the library, from the index or a file.
pub async fn libkrunfw(from: Option<PathBuf>, format: Format, quiet: bool, call: &Invocation) -> Outcome<()> {
    let Some(local) = LocalBackend::of(&call.backend) else {
        let kind = call.info.kind.as_str();
        return Err(Failure::hinted(
            format!("libkrunfw is for sandboxes on this machine, but the selected backend is {kind}"),
            "msb context shows what selected the backend; MSB_BACKEND=local selects this machine",
        ));
    };
    let config = local.config().clone();
    let installed = match from {
        Some(file) => tokio::task::spawn_blocking(move || install::from_file(&config, &file))
            .await
            .map_err(|error| Failure::message(format!("the installation failed: {error}")))??,
        None => {
            let (_progress, report) = progress::fetching(&call.console, quiet, "downloading libkrunfw");
            install::from_index(&config, &call.python, &report).await?
        }
    };
    match format {
        Format::Json => {
            let path = installed.path.to_string_lossy();
            let Installed { digest, version, already, .. } = &installed;
            print_json(
                &call.console,
                &Report { path: &path, digest, version: *version, licences: LICENCES, already: *already },
            )
        }
        Format::Table => call.console.print(&page(&installed)),
    }
}

fn page(installed: &Installed) -> String {
    let Installed { path, digest, version, already } = installed;
    let done = if *already { "already installed" } else { "installed" };
    let origin = match version {
        Some(version) => format!("libkrunfw {version}, verified: its digest is known to this version"),
        None => "not verified: its digest is not known to this version".to_owned(),
    };
    crate::terminal::console::printable(&format!(
        "{}\n{done}: {origin}\n{digest}\nlicences: {LICENCES}\n",
        path.display()
    ))
}
