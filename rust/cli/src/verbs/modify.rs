//! `msb modify`: changes the configuration of a sandbox.

use clap::Args;
use microsandbox_core::Sandbox;
use microsandbox_core::model::{Modification, ModificationPlan, ModificationPolicy, PlannedChange};
use serde::Serialize;

use crate::flags::environment::EnvFlags;
use crate::flags::key_value::parse_pair;
use crate::flags::size::parse_mib;
use crate::flags::word::word;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::tables::{Format, or_dash, print_json, table};

/// Arguments of `modify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Labels, environment and working directory change immediately, for programs that start later. CPUs and memory of a
container change immediately too, up to --max-cpus and --max-memory. All other changes need --next-start or --restart.
Either all changes are applied, or none.")]
pub struct ModifyArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Virtual CPUs, 1 to 255.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    cpus: Option<u8>,
    /// Upper limit for a later change of --cpus.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    max_cpus: Option<u8>,
    /// Memory, like 512M or 2G.
    #[arg(short, long, value_name = "SIZE", value_parser = parse_mib)]
    memory: Option<u32>,
    /// Upper limit for a later change of --memory.
    #[arg(long, value_name = "SIZE", value_parser = parse_mib)]
    max_memory: Option<u32>,
    #[command(flatten)]
    env: EnvFlags,
    /// Remove an environment variable; may be repeated.
    #[arg(long, value_name = "KEY", value_parser = word())]
    env_rm: Vec<String>,
    /// Label; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Remove a label; may be repeated.
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Working directory of programs.
    #[arg(short, long, value_name = "DIR", value_parser = word())]
    workdir: Option<String>,
    /// Print the changes without applying them.
    #[arg(long)]
    dry_run: bool,
    /// Apply changes that need a restart at the next start.
    #[arg(long, conflicts_with = "restart")]
    next_start: bool,
    /// Restart the sandbox if a change needs a restart.
    #[arg(long)]
    restart: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// `--format json`.
#[derive(Serialize)]
struct Report<'a> {
    sandbox: &'a str,
    status: String,
    applied: bool,
    policy: &'static str,
    changes: Vec<Change<'a>>,
    conflicts: Vec<Conflict<'a>>,
}

#[derive(Serialize)]
struct Change<'a> {
    field: &'static str,
    name: Option<&'a str>,
    change: &'static str,
    disposition: &'static str,
    before: Option<&'a str>,
    after: Option<&'a str>,
}

#[derive(Serialize)]
struct Conflict<'a> {
    field: &'static str,
    message: &'a str,
}

pub async fn run(args: ModifyArgs, call: &Invocation) -> Outcome<()> {
    let asked = Modification {
        cpus: args.cpus,
        max_cpus: args.max_cpus,
        memory_mib: args.memory,
        max_memory_mib: args.max_memory,
        env: args.env.variables(&call.console)?.into_iter().map(|variable| (variable.key, variable.value)).collect(),
        env_rm: args.env_rm,
        labels: args.label.into_iter().collect(),
        labels_rm: args.label_rm,
        workdir: args.workdir,
        policy: match (args.next_start, args.restart) {
            (true, _) => ModificationPolicy::NextStart,
            (_, true) => ModificationPolicy::Restart,
            _ => ModificationPolicy::NoRestart,
        },
        dry_run: args.dry_run,
    };
    let plan = Sandbox::get(&call.backend, &args.name).await?.modify(asked).await?;
    if args.format == Format::Json {
        return print_json(&call.console, &report(&plan));
    }
    if plan.changes.is_empty() {
        call.console.note("The sandbox has this configuration already; nothing was changed.");
        return Ok(());
    }
    let rows = plan.changes.iter().map(|change| {
        let field =
            change.name.as_ref().map_or_else(|| change.field.to_owned(), |name| format!("{} {name}", change.field));
        let when = change.disposition.as_str().to_owned();
        vec![field, or_dash(change.before.as_ref()), or_dash(change.after.as_ref()), when]
    });
    call.console.print(&table(&["FIELD", "BEFORE", "AFTER", "WHEN"], rows))?;
    for conflict in &plan.conflicts {
        call.console.note(&format!("conflict: {}: {}", conflict.field, conflict.message));
    }
    Ok(())
}

fn report(plan: &ModificationPlan) -> Report<'_> {
    Report {
        sandbox: &plan.sandbox,
        status: plan.status.to_string(),
        applied: plan.applied,
        policy: plan.policy.as_str(),
        changes: plan.changes.iter().map(change).collect(),
        conflicts: plan.conflicts.iter().map(|c| Conflict { field: c.field, message: &c.message }).collect(),
    }
}

fn change(planned: &PlannedChange) -> Change<'_> {
    Change {
        field: planned.field,
        name: planned.name.as_deref(),
        change: planned.change.as_str(),
        disposition: planned.disposition.as_str(),
        before: planned.before.as_deref(),
        after: planned.after.as_deref(),
    }
}
