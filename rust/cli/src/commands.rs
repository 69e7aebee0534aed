//! `msb install IMAGE` and `msb uninstall`: a program in a sandbox as a command of this machine.
//!
//! A command is a script in `<home>/bin` that calls `msb`. What it was made from is on its third line, which is also how
//! files of others are told from ours: those are neither replaced nor removed.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use microsandbox_core::model::validate_sandbox_name;
use microsandbox_local::LocalBackend;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};
use crate::invocation::Invocation;
use crate::output::{Format, print_json, table};

const HEADER: &str = "#!/bin/sh\n# Made by `msb install`; `msb uninstall` takes it away.\n# msb-command: ";
/// A file that is longer is not ours.
const MOST: u64 = 1 << 20;

/// What the sandbox of a command is given.
#[derive(Debug, Args)]
pub struct CommandFlags {
    /// Name of the command, and of its sandbox [default: that of the program, else of the image].
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
    /// Processors.
    #[arg(short, long, value_name = "N")]
    cpus: Option<String>,
    /// Memory, like 512M or 1G.
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// A mount, as for `msb run`; may be repeated.
    #[arg(short, long, value_name = "SRC:DEST[:OPTS]")]
    volume: Vec<String>,
    /// Environment variable; may be repeated.
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Directory to start in.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Replace a command of this name.
    #[arg(short, long)]
    force: bool,
    /// Fetch no image. None ever is; accepted because scripts say it.
    #[arg(long, hide = true)]
    no_pull: bool,
    /// A sandbox for each call that is thrown away afterwards, instead of one that keeps its files.
    #[arg(long)]
    tmp: bool,
}

/// Arguments of `uninstall`.
#[derive(Debug, Args)]
#[command(after_help = "A sandbox that the command made stays; msb remove takes it away.")]
pub struct UninstallArgs {
    /// Names of commands.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Do not print the names.
    #[arg(short, long)]
    quiet: bool,
}

/// The third line of a command.
#[derive(Debug, Serialize, Deserialize)]
struct Origin {
    image: String,
    command: Vec<String>,
    tmp: bool,
}

/// One entry of `--list`.
#[derive(Serialize)]
struct Entry {
    name: String,
    #[serde(flatten)]
    origin: Origin,
    path: PathBuf,
}

impl CommandFlags {
    fn is_given(&self) -> bool {
        self.name.is_some() || self.of_the_sandbox().len() > 1 || self.force || self.tmp
    }

    /// As `msb run` takes them.
    fn of_the_sandbox(&self) -> Vec<String> {
        let mut words = vec!["--quiet".to_owned()];
        let one = [("--cpus", &self.cpus), ("--memory", &self.memory), ("--workdir", &self.workdir)];
        words.extend(one.into_iter().filter_map(|(flag, value)| Some(format!("{flag}={}", value.as_ref()?))));
        words.extend(self.volume.iter().map(|volume| format!("--volume={}", from_here(volume))));
        words.extend(self.env.iter().map(|variable| format!("--env={variable}")));
        words
    }
}

/// A command is called from any directory.
fn from_here(volume: &str) -> String {
    let (source, rest) = volume.split_once(':').unwrap_or((volume, ""));
    match std::path::absolute(source) {
        Ok(path) if source.starts_with('.') => format!("{}:{rest}", path.display()),
        _ => volume.to_owned(),
    }
}

fn directory(call: &Invocation) -> Outcome<PathBuf> {
    let Some(local) = LocalBackend::of(&call.backend) else {
        let kind = call.info.kind.as_str();
        return Err(Failure::hinted(
            format!("commands run in sandboxes of this machine; commands go to the {kind} backend"),
            "msb context says why; MSB_BACKEND=local chooses this machine",
        ));
    };
    Ok(local.config().home.join("bin"))
}

/// What a file says it was made from; `None` if it is not one of ours.
fn origin(path: &Path) -> Option<Origin> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > MOST {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    serde_json::from_str(text.strip_prefix(HEADER)?.lines().next()?).ok()
}

/// Refuses `-n` and the like where nothing takes them.
pub fn refuse(flags: &CommandFlags, command: &[String]) -> Outcome<()> {
    match flags.is_given() || !command.is_empty() {
        true => Err(Failure::Usage("libkrunfw is no image: only --from, --format and --quiet go with it".into())),
        false => Ok(()),
    }
}

/// Writes the script.
pub fn install(image: String, flags: &CommandFlags, command: Vec<String>, call: &Invocation) -> Outcome<()> {
    let bin = directory(call)?;
    let name = match &flags.name {
        Some(name) => name.clone(),
        None => default_name(&image, &command),
    };
    validate_sandbox_name(&name)?;
    let words = flags.of_the_sandbox();
    check(&words, &image)?;
    let path = bin.join(&name);
    if std::fs::symlink_metadata(&path).is_ok() {
        match origin(&path) {
            Some(_) if flags.force => {}
            Some(_) => {
                let text = format!("there is a command {name} already: {}", path.display());
                return Err(Failure::hinted(text, "replace it with --force"));
            }
            None => return Err(Failure::message(format!("{} was not made by msb install", path.display()))),
        }
    }
    let home = bin.parent().unwrap_or(&bin);
    let origin = Origin { image, command, tmp: flags.tmp };
    let script = script(&name, &origin, &words, home, &call.python)?;
    write(&bin, &path, &script).map_err(|error| failed("make", &path, &error))?;
    call.console.line(&path.display().to_string())?;
    let on_path = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir == bin));
    if !on_path {
        call.console.note(&format!("to call it by its name, put {} on your PATH", bin.display()));
    }
    Ok(())
}

fn default_name(image: &str, command: &[String]) -> String {
    let of = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    match command.first() {
        Some(program) => of(program),
        None => of(image.split('@').next().unwrap_or_default()).split(':').next().unwrap_or_default().to_owned(),
    }
}

/// Whether `msb run` would understand them: better told now than at the first call.
fn check(words: &[String], image: &str) -> Outcome<()> {
    let whole = ["msb", "run"].into_iter().chain(words.iter().map(String::as_str)).chain([image]);
    let parsed = crate::app::grammar().try_get_matches_from(whole);
    parsed.map(drop).map_err(|error| {
        let text = error.to_string();
        Failure::Usage(text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned())
    })
}

fn script(name: &str, origin: &Origin, words: &[String], home: &Path, python: &Path) -> Outcome<String> {
    let document = serde_json::to_string(origin)
        .map_err(|error| Failure::message(format!("cannot write down the command: {error}")))?;
    let msb = format!("{} -m microsandbox", quoted(&python.display().to_string()));
    let program: String = origin.command.iter().map(|word| format!("{} ", quoted(word))).collect();
    let flags: String = words.iter().map(|word| format!("{} ", quoted(word))).collect();
    let image = quoted(&origin.image);
    let home = quoted(&home.display().to_string());
    let name = quoted(name);
    let mut text = format!("{HEADER}{document}\nMSB_HOME={home}\nexport MSB_HOME\n");
    if origin.tmp {
        text.push_str(&format!("exec {msb} run {flags}{image} -- {program}\"$@\"\n"));
    } else {
        text.push_str(&format!("if {msb} inspect {name} >/dev/null 2>&1; then\n"));
        text.push_str(&format!("    exec {msb} exec --quiet {name} -- {program}\"$@\"\nfi\n"));
        text.push_str(&format!("exec {msb} run --name {name} {flags}{image} -- {program}\"$@\"\n"));
    }
    Ok(text)
}

/// One word for sh(1).
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// It appears whole, or not at all.
fn write(bin: &Path, path: &Path, script: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(bin)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o755).open(&temporary)?;
    let done = file.write_all(script.as_bytes()).and_then(|()| std::fs::rename(&temporary, path));
    if done.is_err() {
        // The first failure is the one that is told.
        let _ = std::fs::remove_file(&temporary);
    }
    done
}

fn failed(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::message(format!("cannot {action} {}: {error}", path.display()))
}

/// Every command, sorted by name.
pub fn list(format: Format, call: &Invocation) -> Outcome<()> {
    let bin = directory(call)?;
    let mut entries = Vec::new();
    for file in std::fs::read_dir(&bin).into_iter().flatten().flatten() {
        let (path, name) = (file.path(), file.file_name().into_string());
        if let (Some(origin), Ok(name)) = (origin(&path), name) {
            entries.push(Entry { name, origin, path });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if format == Format::Json {
        return print_json(&call.console, &entries);
    }
    if entries.is_empty() {
        call.console.note("No commands found.");
        return Ok(());
    }
    let rows = entries.into_iter().map(|Entry { name, origin, .. }| {
        let keeps = if origin.tmp { "no" } else { "yes" };
        vec![name, origin.image, keeps.to_owned(), origin.command.join(" ")]
    });
    call.console.print(&table(&["NAME", "IMAGE", "KEEPS FILES", "COMMAND"], rows))
}

/// Takes commands away; a name that is none is reported, and the others go on.
pub fn uninstall(args: &UninstallArgs, call: &Invocation) -> Outcome<()> {
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
            None => Failure::message(format!("no command {name} was made by msb install")),
        };
        reported = true;
        call.console.note(&failure.report().unwrap_or_default());
    }
    if reported { Err(Failure::Reported) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_the_name_of_what_it_runs() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(default_name("docker.io/library/alpine:3.20", &[]), "alpine");
        assert_eq!(default_name("python@sha256:00", &[]), "python");
        assert_eq!(default_name("alpine", &words(&["/usr/bin/jq", "-r"])), "jq");
    }

    #[test]
    fn every_word_stays_one() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's; $(x) `y`"), r"'it'\''s; $(x) `y`'");
    }
}
