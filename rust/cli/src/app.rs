//! The command line as a whole: global flags, verbs, dispatch.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::invocation::{Home, Invocation};
use crate::output::failure::{FAILED, Failure, Outcome};
use crate::terminal::console::Console;
use crate::terminal::signals::Signals;
use crate::verbs;

/// Run code you do not trust in sandboxes that start in milliseconds.
#[derive(Debug, Parser)]
#[command(
    name = "msb",
    bin_name = "msb",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
        msb run host -- python3 -c 'print(1)'    run a program of this machine in a temporary sandbox\n  \
        msb create host -n box                   create a sandbox that keeps running\n  \
        msb exec box -- ls /                     run a program in that sandbox\n  \
        msb doctor                               report the isolation that this machine supports\n\n\
        `msb sandbox VERB` and `msb sbx VERB` are the same as `msb VERB`."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalFlags,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalFlags {
    /// Log errors only.
    #[arg(long, global = true, group = "log-level-of-msb")]
    error: bool,
    /// Log errors and warnings (the default).
    #[arg(long, global = true, group = "log-level-of-msb")]
    warn: bool,
    /// Log each operation as well.
    #[arg(long, global = true, group = "log-level-of-msb")]
    info: bool,
    /// Log debug detail as well.
    #[arg(long, global = true, group = "log-level-of-msb")]
    debug: bool,
    /// Log everything.
    #[arg(long, global = true, group = "log-level-of-msb")]
    trace: bool,
    /// Print the tree of verbs and flags below this verb, then exit.
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    tree: bool,
}

impl GlobalFlags {
    fn level(&self) -> tracing::Level {
        match self {
            GlobalFlags { trace: true, .. } => tracing::Level::TRACE,
            GlobalFlags { debug: true, .. } => tracing::Level::DEBUG,
            GlobalFlags { info: true, .. } => tracing::Level::INFO,
            GlobalFlags { error: true, .. } => tracing::Level::ERROR,
            _ => tracing::Level::WARN,
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a program in a sandbox and return its output and its exit status.
    Run(Box<verbs::run::RunArgs>),
    /// Create a sandbox and leave it running without a program.
    Create(Box<verbs::create::CreateArgs>),
    /// Start stopped sandboxes.
    Start(verbs::start::StartArgs),
    /// Stop sandboxes with a graceful shutdown; kill them after a grace period.
    Stop(verbs::stop::StopArgs),
    /// Kill sandboxes immediately, without a shutdown.
    Kill(verbs::kill::KillArgs),
    /// Stop sandboxes, then start them again.
    Restart(verbs::restart::RestartArgs),
    /// Change the configuration of a sandbox, while it runs where that is possible.
    #[command(visible_alias = "mod")]
    Modify(verbs::modify::ModifyArgs),
    /// Freeze all processes of the sandboxes; memory is kept.
    Pause(verbs::pause::PauseArgs),
    /// Unfreeze the processes of paused sandboxes.
    Resume(verbs::resume::ResumeArgs),
    /// Delete sandboxes with their files and logs.
    #[command(visible_alias = "rm")]
    Remove(verbs::remove::RemoveArgs),
    /// Wait until sandboxes have stopped.
    Wait(verbs::wait::WaitArgs),
    /// Run a program in an existing sandbox; a stopped sandbox is started for the call.
    Exec(verbs::exec::ExecArgs),
    /// List the background jobs of a sandbox, newest first.
    Jobs(verbs::jobs::JobsArgs),
    /// Attach this terminal to a job.
    Attach(verbs::attach::AttachArgs),
    /// Send a signal to a job.
    Signal(verbs::signal::SignalArgs),
    /// Close the standard input of a job.
    Eof(verbs::eof::EofArgs),
    /// List sandboxes, newest first.
    #[command(visible_alias = "ls")]
    List(verbs::list::ListArgs),
    /// Show the state and the resources of sandboxes.
    #[command(visible_alias = "ps")]
    Status(verbs::status::StatusArgs),
    /// Show one sandbox in full: configuration, isolation, result of the last run.
    Inspect(verbs::inspect::InspectArgs),
    /// Show the captured output of a sandbox.
    Logs(verbs::logs::LogsArgs),
    /// Show the resource usage of running sandboxes.
    Metrics(verbs::metrics::MetricsArgs),
    /// Copy files between this machine and sandboxes.
    #[command(visible_alias = "cp")]
    Copy(verbs::copy::CopyArgs),
    /// Measure the round-trip time to the agents of sandboxes.
    Ping(verbs::ping::PingArgs),
    /// Reset the idle timer of sandboxes.
    Touch(verbs::touch::TouchArgs),
    /// Fetch images from their registries.
    Pull(verbs::pull::PullArgs),
    /// Import the images of a Docker or OCI archive.
    Load(verbs::load::LoadArgs),
    /// Write images to a Docker or OCI archive.
    Save(verbs::save::SaveArgs),
    /// Delete images that nothing uses, and what interrupted operations left.
    Prune(verbs::prune::PruneArgs),
    /// Show what uses how much of the disk.
    Df(verbs::df::DfArgs),
    /// List images.
    Images(verbs::images::ImagesArgs),
    /// Manage images.
    Image(verbs::image::ImageArgs),
    /// Manage the logins of registries.
    Registry(verbs::registry::RegistryArgs),
    /// Install libkrunfw for microVMs, or a command that runs a program of an image.
    Install(verbs::install::InstallArgs),
    /// Remove commands that `install` made.
    Uninstall(verbs::uninstall::UninstallArgs),
    /// Report the isolation that this machine supports, and what is missing for more.
    Doctor(verbs::doctor::DoctorArgs),
    /// Manage volumes: storage that outlives sandboxes.
    #[command(visible_alias = "vol")]
    Volume(verbs::volume::VolumeArgs),
    /// Manage profiles: named choices of a backend.
    Profile(verbs::profile::ProfileArgs),
    /// Show which backend commands use, and what selected it.
    #[command(visible_alias = "ctx")]
    Context(verbs::context::ContextArgs),
    /// Serve this machine's sandboxes to remote clients.
    Serve(Box<verbs::serve::ServeArgs>),
    /// Print a completion script for a shell.
    Completion(verbs::completion::CompletionArgs),
    /// Check this installation.
    #[command(name = "self")]
    Own(OwnArgs),
}

#[derive(Debug, Args)]
pub struct OwnArgs {
    #[command(subcommand)]
    verb: OwnVerb,
}

#[derive(Debug, Subcommand)]
enum OwnVerb {
    /// The same as `msb doctor`.
    #[command(visible_alias = "check")]
    Doctor(verbs::doctor::DoctorArgs),
}

/// The grammar, for completion scripts and the tree.
pub fn grammar() -> clap::Command {
    Cli::command()
}

/// Parses the command line, runs the verb, reports a failure; the exit status.
pub fn run(args: Vec<OsString>, console: Console, home: impl FnOnce() -> Home) -> i32 {
    let args = without_group(args);
    if let Some(refusal) = crate::flags::unsupported::verb(&args) {
        console.note(&refusal.report().unwrap_or_default());
        return refusal.exit_code();
    }
    let (cli, given) = match parse(args, &console) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let result = match cli.verb {
        Verb::Completion(args) => verbs::completion::run(&args, &console).map(|()| 0),
        Verb::Profile(args) => verbs::profile::run(&args, &console).map(|()| 0),
        Verb::Context(args) if args.is_about_profiles() => verbs::context::profiles(&args, &console).map(|()| 0),
        verb => {
            let level = cli.global.level();
            crate::output::logging::with_level(level, &console, || execute(verb, given, &console, home))
        }
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            if let Some(report) = failure.report() {
                console.note(&report);
            }
            failure.exit_code()
        }
    }
}

/// `msb sandbox VERB` and `msb sbx VERB` are `msb VERB`.
fn without_group(mut args: Vec<OsString>) -> Vec<OsString> {
    if args.len() > 2 && args.get(1).is_some_and(|word| word == "sandbox" || word == "sbx") {
        args.remove(1);
    }
    args
}

/// Names of the flags that stand on the command line, with their dashes.
pub type GivenFlags = Vec<String>;

fn parse(args: Vec<OsString>, console: &Console) -> Result<(Cli, GivenFlags), i32> {
    if let Some(tree) = crate::output::tree::asked(&args) {
        return Err(report_output(console.print(&tree)));
    }
    let mut grammar = grammar();
    let matches = match grammar.try_get_matches_from_mut(args) {
        Ok(matches) => matches,
        Err(error) => return Err(report_parse(&error, console)),
    };
    let given = given_flags(&grammar, &matches);
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => Ok((cli, given)),
        Err(error) => Err(report_parse(&error.format(&mut grammar), console)),
    }
}

/// Help and version are results; everything else is a usage error.
fn report_parse(error: &clap::Error, console: &Console) -> i32 {
    let text = error.render();
    if error.use_stderr() {
        let colored = console.may_color && console.err_is_terminal;
        let shown = if colored { text.ansi().to_string() } else { text.to_string() };
        console.note_styled(shown.trim_end());
        if let Some(hint) = separator_hint(error) {
            console.note(&hint);
        }
        return error.exit_code();
    }
    report_output(console.print(&if console.colors() { text.ansi().to_string() } else { text.to_string() }))
}

/// A frequent mistake: the program without `--` before it.
fn separator_hint(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return None };
    let usage = error.get(ContextKind::Usage)?.to_string();
    let takes_program = usage.contains("[-- <CMD>...]");
    (error.kind() == ErrorKind::UnknownArgument && takes_program && !word.starts_with('-'))
        .then(|| format!("hint: write the program after two dashes: -- {word}"))
}

fn report_output(result: Outcome<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(failure) => failure.exit_code(),
    }
}

fn given_flags(grammar: &clap::Command, matches: &ArgMatches) -> GivenFlags {
    let Some((name, matches)) = matches.subcommand() else { return Vec::new() };
    let Some(verb) = grammar.find_subcommand(name) else { return Vec::new() };
    let written = |argument: &&clap::Arg| {
        let id = argument.get_id().as_str();
        matches.try_contains_id(id).is_ok_and(|known| known)
            && matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine)
    };
    verb.get_arguments().filter(written).filter_map(|a| a.get_long()).map(|long| format!("--{long}")).collect()
}

/// One thread is enough, except for a server: most of the time is waiting. Blocking parts have threads of their own.
fn execute(verb: Verb, given: GivenFlags, console: &Console, home: impl FnOnce() -> Home) -> Outcome<i32> {
    let mut builder = match &verb {
        Verb::Serve(args) if args.serves() => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    // Events of the core on threads of the runtime belong to this call as well.
    let log = tracing::dispatcher::get_default(tracing::Dispatch::clone);
    let runtime = builder
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&log)))
        .enable_all()
        .build()
        .map_err(|error| Failure::message(format!("cannot start the asynchronous runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        let signals = Signals::listen()
            .map_err(|error| Failure::message(format!("cannot install the signal handlers: {error}")))?;
        let Home { backend, info, python } = home();
        let call = Invocation { backend, info, python, console: console.share(), signals, now: chrono::Utc::now() };
        dispatch(verb, given, &call).await
    });
    // Cancelled work (an interrupted unpack) must not delay the prompt.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(verb: Verb, given: GivenFlags, call: &Invocation) -> Outcome<i32> {
    match verb {
        // These forward signals to the guest.
        Verb::Run(args) => verbs::run::run(*args, given, call).await,
        Verb::Exec(args) => verbs::exec::run(args, call).await,
        Verb::Attach(args) => verbs::attach::run(args, call).await,
        // It handles signals itself: in-flight requests are finished first.
        Verb::Serve(args) => verbs::serve::run(*args, call).await,
        verb => call.interruptible(plain(verb, call)).await,
    }
}

/// Verbs that a signal cancels.
async fn plain(verb: Verb, call: &Invocation) -> Outcome<i32> {
    let done = match verb {
        Verb::Create(args) => verbs::create::run(*args, call).await,
        Verb::Start(args) => verbs::start::run(args, call).await,
        Verb::Stop(args) => verbs::stop::run(args, call).await,
        Verb::Kill(args) => verbs::kill::run(args, call).await,
        Verb::Restart(args) => verbs::restart::run(args, call).await,
        Verb::Modify(args) => verbs::modify::run(args, call).await,
        Verb::Pause(args) => verbs::pause::run(args, call).await,
        Verb::Resume(args) => verbs::resume::run(args, call).await,
        Verb::Remove(args) => verbs::remove::run(args, call).await,
        Verb::Wait(args) => verbs::wait::run(args, call).await,
        Verb::Jobs(args) => verbs::jobs::run(args, call).await,
        Verb::Signal(args) => verbs::signal::run(args, call).await,
        Verb::Eof(args) => verbs::eof::run(args, call).await,
        Verb::List(args) => verbs::list::run(args, call).await,
        Verb::Status(args) => verbs::status::run(args, call).await,
        Verb::Inspect(args) => verbs::inspect::run(args, call).await,
        Verb::Logs(args) => verbs::logs::run(args, call).await,
        Verb::Metrics(args) => verbs::metrics::run(args, call).await,
        Verb::Copy(args) => verbs::copy::run(args, call).await,
        Verb::Ping(args) => verbs::ping::run(args, call).await,
        Verb::Touch(args) => verbs::touch::run(args, call).await,
        Verb::Pull(args) => verbs::pull::run(args, call).await,
        Verb::Registry(args) => verbs::registry::run(args, call).await,
        Verb::Load(args) => verbs::load::run(args, call).await,
        Verb::Save(args) => verbs::save::run(args, call).await,
        Verb::Prune(args) => verbs::prune::run(args, call).await,
        Verb::Df(args) => verbs::df::run(args, call).await,
        Verb::Images(args) => verbs::images::run(args, call).await,
        Verb::Image(args) => verbs::image::run(args, call).await,
        Verb::Install(args) => verbs::install::run(args, call).await,
        Verb::Uninstall(args) => verbs::uninstall::run(&args, call),
        Verb::Doctor(args) | Verb::Own(OwnArgs { verb: OwnVerb::Doctor(args) }) => {
            return verbs::doctor::run(args, call).await;
        }
        Verb::Volume(args) => verbs::volume::run(args, call).await,
        Verb::Profile(args) => verbs::profile::run(&args, &call.console),
        Verb::Context(args) => verbs::context::run(&args, call),
        Verb::Completion(args) => verbs::completion::run(&args, &call.console),
        Verb::Run(_) | Verb::Exec(_) | Verb::Attach(_) | Verb::Serve(_) => return Ok(FAILED),
    };
    done.map(|()| 0)
}
