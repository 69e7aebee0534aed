//! `msb install`: the parts that microVMs need and that no wheel of ours may carry; and programs of images as commands.

use std::path::PathBuf;

use clap::Args;
use microsandbox_local::LocalBackend;
use microsandbox_local::guest_kernel::install::{self, Installed, LICENCES};
use serde::Serialize;

use crate::commands::{self, CommandFlags};
use crate::failure::{Failure, Outcome};
use crate::invocation::Invocation;
use crate::output::{Format, print_json};
use crate::progress;

/// The library with the guest kernel of microVMs.
const LIBKRUNFW: &str = "libkrunfw";

/// Arguments of `install`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  msb install libkrunfw                          what microVMs need
  msb install host -n py -- python3              the command py: Python in a sandbox that keeps its files
  msb install debian:12 --tmp -n sh12 -- bash    a new sandbox for each call
  msb install --list                             the commands there are

A command is a script in <home>/bin; msb uninstall NAME takes it away.

libkrunfw goes to <home>/lib. It is taken out of the wheel microsandbox 0.7.11, a package of another project that bundles
it, fetched with the pip of the Python that runs msb (and so from the package index configured there); wheel and library
are checked against digests that this version knows. Nothing else of the wheel is used.

Its licences: LGPL-2.1-only (libkrunfw), GPL-2.0-only (the Linux kernel in it).

With --from nothing is fetched: FILE is the library itself or a wheel that holds it.")]
pub struct InstallArgs {
    /// `libkrunfw`, or an image whose program becomes a command.
    #[arg(value_name = "WHAT", required_unless_present = "list")]
    what: Option<String>,
    /// What the command runs, before what is given to it [default: the image's own program].
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
    /// Show the commands that were installed.
    #[arg(short, long, conflicts_with = "what")]
    list: bool,
    #[command(flatten)]
    flags: CommandFlags,
    /// Take it from this file instead of the package index.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// How to write the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// No progress.
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
        None => return commands::list(args.format, call),
        Some(image) if image != LIBKRUNFW => {
            if args.from.is_some() {
                return Err(Failure::Usage("--from goes with libkrunfw only".into()));
            }
            return commands::install(image, &args.flags, args.command, call);
        }
        Some(_) => commands::refuse(&args.flags, &args.command)?,
    }
    libkrunfw(args.from, args.format, args.quiet, call).await
}

/// Puts the library in its place, from the index or a file.
pub async fn libkrunfw(from: Option<PathBuf>, format: Format, quiet: bool, call: &Invocation) -> Outcome<()> {
    let Some(local) = LocalBackend::of(&call.backend) else {
        let kind = call.info.kind.as_str();
        return Err(Failure::hinted(
            format!("libkrunfw is for sandboxes on this machine; commands go to the {kind} backend"),
            "msb context says why; MSB_BACKEND=local chooses this machine",
        ));
    };
    let config = local.config().clone();
    let installed = match from {
        Some(file) => tokio::task::spawn_blocking(move || install::from_file(&config, &file))
            .await
            .map_err(|error| Failure::message(format!("the installation did not finish: {error}")))??,
        None => {
            let (_progress, report) = progress::fetching(&call.console, quiet, "fetching libkrunfw");
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
    let done = if *already { "is there already" } else { "installed" };
    let origin = match version {
        Some(version) => format!("libkrunfw {version}, a copy that this version knows"),
        None => "not the copy that this version knows: you vouch for it".to_owned(),
    };
    crate::console::printable(&format!("{}\n{done}: {origin}\n{digest}\nlicences: {LICENCES}\n", path.display()))
}
