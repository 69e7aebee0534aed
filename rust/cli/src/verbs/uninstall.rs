//! `msb uninstall`: removes commands that `msb install` made.

use clap::Args;
use microsandbox_core::model::validate_sandbox_name;

use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::verbs::installed_commands::{directory, failed, origin};

/// Arguments of `uninstall`.
#[derive(Debug, Args)]
#[command(after_help = "The sandbox of a command is kept; msb remove deletes it.")]
pub struct UninstallArgs {
    /// Names of commands.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Do not print the names.
    #[arg(short, long)]
    quiet: bool,
}

/// Removes commands. A failure is reported, and the other commands are still removed.
pub fn run(args: &UninstallArgs, call: &Invocation) -> Outcome<()> {
    let bin = directory(call)?;
    let mut reported = false;
    for name in &args.names {
        let path = bin.join(name);
        let ours = validate_sandbox_name(name).is_ok() && origin(&path).is_some();
        let failure = match ours.then(|| std::fs::remove_file(&path)) {
            Some(Ok(())) if args.quiet => continue,
            Some(Ok(())) => {
                call.console.line(name)?;
                continue;
            }
            Some(Err(error)) => failed("remove", &path, &error),
            None => Failure::message(format!(
                "no command {name} was made by msb install; msb install --list shows the commands"
            )),
        };
        reported = true;
        call.console.note(&failure.report().unwrap_or_default());
    }
    if reported { Err(Failure::Reported) } else { Ok(()) }
}
