//! `msb doctor`: what isolation this machine can give.
//!
//! The status says whether sandboxes work here: 0 when some kind does, 1 when none does. A machine without KVM is
//! served by containers, so its lack alone is no failure; `--require-microvm` makes it one.

use clap::Args;
use microsandbox_core::model::{DoctorCheck, DoctorReport, Isolation, MechanismState};

use crate::invocation::Invocation;
use crate::output::failure::{FAILED, Outcome};
use crate::output::progress;
use crate::output::tables::{Format, or_dash, print_json, table};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "The status is 0 when sandboxes of some kind work here, else 1.")]
pub struct DoctorArgs {
    /// Boot a test machine again instead of believing what an earlier one found.
    #[arg(long)]
    recheck: bool,
    /// Also end with status 1 when microVMs do not work here.
    #[arg(long)]
    require_microvm: bool,
    /// Put right what msb can put right by itself: bring in libkrunfw where only that is missing for microVMs.
    #[arg(long)]
    fix: bool,
    /// With --fix: do not ask.
    #[arg(short, long, requires = "fix")]
    yes: bool,
    /// How to write it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub async fn run(args: DoctorArgs, call: &Invocation) -> Outcome<i32> {
    let progress = progress::working(&call.console, args.format == Format::Json, "trying what works here".into());
    let mut report = call.backend.images().doctor(args.recheck).await?;
    drop(progress);
    if args.fix && fix(&report, &args, call).await? {
        report = call.backend.images().doctor(true).await?;
    }
    match args.format {
        Format::Json => print_json(&call.console, &report)?,
        Format::Table => call.console.print(&page(&report))?,
    }
    let enough = works(&report) && (report.isolation == Isolation::Microvm || !args.require_microvm);
    Ok(if enough { 0 } else { FAILED })
}

/// Whether anything was changed. Where KVM itself is missing a library would change nothing.
async fn fix(report: &DoctorReport, args: &DoctorArgs, call: &Invocation) -> Outcome<bool> {
    let state = |name: &str| report.checks.iter().find(|check| check.name == name).map(|check| check.state);
    let lacks_library = report.isolation != Isolation::Microvm
        && state("kvm") == Some(MechanismState::On)
        && state("libkrunfw") == Some(MechanismState::Off);
    if !lacks_library {
        call.console.note("there is nothing here that msb can put right by itself");
        return Ok(false);
    }
    if !args.yes && call.console.in_is_terminal {
        call.console.note("This fetches libkrunfw, as msb install libkrunfw does. Go on? [y/N]");
        if !call.confirmed().await? {
            return Ok(false);
        }
    }
    crate::verbs::install::libkrunfw(None, args.format, args.format == Format::Json, call).await?;
    Ok(true)
}

/// The report names what `auto` gives even where the attempt failed; the attempt itself is the check `container`.
fn works(report: &DoctorReport) -> bool {
    let failed = |check: &DoctorCheck| check.name == "container" && check.state == MechanismState::Off;
    match report.isolation {
        Isolation::Microvm => true,
        Isolation::Container => !report.checks.iter().any(failed),
        // Auto is a wish, not a result.
        Isolation::Auto => false,
    }
}

fn page(report: &DoctorReport) -> String {
    let mut text = format!("{}\n", verdict(report));
    let remarks = [("why", &report.reason), ("hint", &report.hint)];
    for (title, remark) in remarks.iter().filter_map(|(title, remark)| Some((title, remark.as_ref()?))) {
        text.push_str(&format!("{title}: {remark}\n"));
    }
    text.push('\n');
    text.push_str(&table(
        &["CHECK", "STATE", "DETAIL"],
        report.checks.iter().map(|check| {
            let state = match check.state {
                MechanismState::On => "ok",
                MechanismState::Degraded => "degraded",
                MechanismState::Off => "missing",
            };
            vec![check.name.clone(), state.to_owned(), check.detail.clone()]
        }),
    ));
    text.push_str(&places(report));
    let hints = report
        .checks
        .iter()
        .filter(|check| check.state != MechanismState::On)
        .filter_map(|check| check.hint.as_ref().map(|hint| format!("  {}: {hint}\n", check.name)));
    let hints: String = hints.collect();
    if !hints.is_empty() {
        text.push_str("\nWhat would help:\n");
        text.push_str(&hints);
    }
    crate::terminal::console::printable(&text)
}

/// Where the guest kernel was looked for.
fn places(report: &DoctorReport) -> String {
    if report.libkrunfw.is_empty() {
        return String::new();
    }
    let rows = report.libkrunfw.iter().map(|rung| {
        let path = rung.path.as_ref().map(|path| path.display());
        vec![rung.rung.clone(), or_dash(path), rung.found.clone()]
    });
    format!("\n{}", table(&["LIBKRUNFW FROM", "PATH", "FOUND"], rows))
}

fn verdict(report: &DoctorReport) -> &'static str {
    match report.isolation {
        _ if !works(report) => "Sandboxes cannot run here.",
        Isolation::Microvm => "Sandboxes run as microVMs here: each has a kernel of its own.",
        Isolation::Container | Isolation::Auto => "Sandboxes run as containers here: they share this machine's kernel.",
    }
}
