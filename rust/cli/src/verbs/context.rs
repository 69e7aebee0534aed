//! `msb context`: the backend that commands use, what selected it, and the active profile.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::tables::{Format, or_dash, print_json, table};
use crate::terminal::console::Console;
use crate::verbs::profile;

/// Arguments of `context`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ContextArgs {
    #[command(subcommand)]
    verb: Option<ContextVerb>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum ContextVerb {
    /// List profiles and mark the active one.
    #[command(visible_alias = "ls")]
    List(profile::FormatArgs),
    /// Make a profile active.
    Use(profile::UseArgs),
    /// Make no profile active: environment variables select the backend, else this machine.
    Reset,
}

impl ContextArgs {
    /// Whether the verb needs the configuration file only: an unusable profile can still be deactivated.
    pub fn is_about_profiles(&self) -> bool {
        self.verb.is_some()
    }
}

/// `list`, `use` and `reset`.
pub fn profiles(args: &ContextArgs, console: &Console) -> Outcome<()> {
    match &args.verb {
        Some(ContextVerb::List(given)) => profile::list(given, console),
        Some(ContextVerb::Use(given)) => profile::make_active(given, console),
        Some(ContextVerb::Reset) => profile::reset(),
        None => Ok(()),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    kind: &'static str,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
}

pub fn run(args: &ContextArgs, call: &Invocation) -> Outcome<()> {
    let report = Report {
        kind: call.info.kind.as_str(),
        source: call.info.source,
        api_url: call.info.api_url.as_deref(),
        profile: call.info.profile.as_deref(),
    };
    match args.format {
        Format::Json => print_json(&call.console, &report),
        Format::Table => {
            let row =
                [report.kind.to_owned(), report.source.to_owned(), or_dash(report.api_url), or_dash(report.profile)];
            call.console.print(&table(&["BACKEND", "SOURCE", "URL", "PROFILE"], [row.to_vec()]))
        }
    }
}
