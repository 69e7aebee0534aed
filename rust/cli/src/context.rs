//! `msb context`: which backend commands go to, and why.

use clap::Args;
use serde::Serialize;

use crate::failure::Outcome;
use crate::invocation::Invocation;
use crate::output::{Format, or_dash, print_json, table};

/// Arguments of `context`.
#[derive(Debug, Args)]
pub struct ContextArgs {
    /// How to write it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
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
