//! `msb doctor`: the isolation that this machine supports.
//!
//! The exit status is 0 if sandboxes of some kind work here, else 1. A machine without KVM runs containers, so missing
//! KVM alone is not a failure; `--require-microvm` makes it one.

use clap::Args;
use microsandbox_core::model::{DoctorCheck, DoctorReport, Isolation, MechanismState};

use microsandbox_local::{LocalBackend, strays};

use crate::invocation::Invocation;
use crate::output::failure::{FAILED, Outcome};
use crate::output::progress;
use crate::output::tables::{Format, or_dash, print_json, table};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "The exit status is 0 if sandboxes of some kind work on this machine, else 1.")]
pub struct DoctorArgs {
    /// Boot a test microVM again instead of using the cached result.
    #[arg(long)]
    recheck: bool,
    /// Exit with status 1 also if microVMs do not work on this machine.
    #[arg(long)]
    require_microvm: bool,
    /// End the sandboxes that run without a record, and install libkrunfw, if that is all that microVMs lack on this machine.
    #[arg(long)]
    fix: bool,
    /// With --fix: do not ask for confirmation.
    #[arg(short, long, requires = "fix")]
    yes: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub async fn run(args: DoctorArgs, call: &Invocation) -> Outcome<i32> {
    let progress =
        progress::working(&call.console, args.format == Format::Json, "testing what works on this machine".into());
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

/// Whether something was changed.
async fn fix(report: &DoctorReport, args: &DoctorArgs, call: &Invocation) -> Outcome<bool> {
    let state = |name: &str| report.checks.iter().find(|check| check.name == name).map(|check| check.state);
    let has_strays = state(strays::CHECK) == Some(MechanismState::Degraded);
    // It is not installed where KVM itself is missing, since the library would not help.
    let lacks_library = report.isolation != Isolation::Microvm
        && state("kvm") == Some(MechanismState::On)
        && state("libkrunfw") == Some(MechanismState::Off);
    if !has_strays && !lacks_library {
        call.console.note("nothing to fix: no sandbox runs without a record, and libkrunfw is not what is missing");
        return Ok(false);
    }
    let ended = has_strays && end_strays(args, call).await?;
    Ok((lacks_library && install(args, call).await?) || ended)
}

async fn end_strays(args: &DoctorArgs, call: &Invocation) -> Outcome<bool> {
    let Some(local) = LocalBackend::of(&call.backend) else { return Ok(false) };
    if !confirmed("This ends the sandboxes that run without a record.", args, call).await? {
        return Ok(false);
    }
    let ended = strays::end(local.home()).await?;
    call.console.note(&format!("ended {} that ran without a record", ended.len()));
    Ok(!ended.is_empty())
}

async fn install(args: &DoctorArgs, call: &Invocation) -> Outcome<bool> {
    if !confirmed("This downloads libkrunfw, as msb install libkrunfw does.", args, call).await? {
        return Ok(false);
    }
    crate::verbs::install::libkrunfw(None, args.format, args.format == Format::Json, call).await?;
    Ok(true)
}

async fn confirmed(what: &str, args: &DoctorArgs, call: &Invocation) -> Outcome<bool> {
    if args.yes || !call.console.in_is_terminal {
        return Ok(true);
    }
    call.console.note(&format!("{what} Continue? [y/N]"));
    call.confirmed().await
}

/// `isolation` is what `auto` selects, even if a test start failed; the test start is the check `container`.
fn works(report: &DoctorReport) -> bool {
    let failed = |check: &DoctorCheck| check.name == "container" && check.state == MechanismState::Off;
    match report.isolation {
        Isolation::Microvm => true,
        Isolation::Container => !report.checks.iter().any(failed),
        // `Auto` is a request; a report never contains it.
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
        text.push_str("\nSuggested fixes:\n");
        text.push_str(&hints);
    }
    crate::terminal::console::printable(&text)
}

/// The places that were searched for libkrunfw.
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
        _ if !works(report) => "Sandboxes cannot run on this machine.",
        Isolation::Microvm => "Sandboxes run as microVMs: each has its own kernel.",
        Isolation::Container | Isolation::Auto => "Sandboxes run as containers: they share the kernel of this machine.",
    }
}
