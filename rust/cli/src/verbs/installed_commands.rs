//! `msb install IMAGE`: a program in a sandbox as a command of this machine; `msb uninstall` removes it.
//!
//! A command is a script in `<home>/bin` that calls `msb`. Its third line records its origin, and distinguishes our
//! scripts from other files: those are neither replaced nor removed.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use microsandbox_core::model::validate_sandbox_name;
use microsandbox_local::LocalBackend;
use serde::{Deserialize, Serialize};

use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::tables::{Format, print_json, table};

/// Recognises our scripts, so its text is part of the format: a change would orphan the commands of earlier versions.
const HEADER: &str = "#!/bin/sh\n# Made by `msb install`; `msb uninstall` takes it away.\n# msb-command: ";
/// A larger file is not one of our scripts.
const MOST: u64 = 1 << 20;

/// The configuration of a command's sandbox.
#[derive(Debug, Args)]
pub struct CommandFlags {
    /// Name of the command and of its sandbox [default: that of the program, else of the image].
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
    /// Virtual CPUs, 1 to 255 [default: 1].
    #[arg(short, long, value_name = "N")]
    cpus: Option<String>,
    /// Memory, like 512M or 2G [default: 512M].
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Mount, as for `msb run`; may be repeated.
    #[arg(short, long, value_name = "SRC:DEST[:OPTS]")]
    volume: Vec<String>,
    /// Environment variable; may be repeated.
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Working directory of the program.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Replace an existing command of this name.
    #[arg(short, long)]
    force: bool,
    /// Do not pull the image. Images are never pulled; the flag is accepted because existing scripts use it.
    #[arg(long, hide = true)]
    no_pull: bool,
    /// Use a new temporary sandbox for each call instead of a persistent sandbox.
    #[arg(long)]
    tmp: bool,
}

/// The third line of a command.
#[derive(Debug, Serialize, Deserialize)]
pub struct Origin {
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

    /// The flags of the sandbox, as `msb run` parses them.
    fn of_the_sandbox(&self) -> Vec<String> {
        let mut words = vec!["--quiet".to_owned()];
        let one = [("--cpus", &self.cpus), ("--memory", &self.memory), ("--workdir", &self.workdir)];
        words.extend(one.into_iter().filter_map(|(flag, value)| Some(format!("{flag}={}", value.as_ref()?))));
        words.extend(self.volume.iter().map(|volume| format!("--volume={}", from_here(volume))));
        words.extend(self.env.iter().map(|variable| format!("--env={variable}")));
        words
    }
}

/// Makes a relative source absolute: a command is called from any directory.
fn from_here(volume: &str) -> String {
    let (source, rest) = volume.split_once(':').unwrap_or((volume, ""));
    match std::path::absolute(source) {
        Ok(path) if source.starts_with('.') => format!("{}:{rest}", path.display()),
        _ => volume.to_owned(),
    }
}

pub fn directory(call: &Invocation) -> Outcome<PathBuf> {
    let Some(local) = LocalBackend::of(&call.backend) else {
        let kind = call.info.kind.as_str();
        return Err(Failure::hinted(
            format!("installed commands run in sandboxes of this machine, but the selected backend is {kind}"),
            "msb context shows what selected the backend; MSB_BACKEND=local selects this machine",
        ));
    };
    Ok(local.config().home.join("bin"))
}

/// The origin that a script records; `None` if the file is not one of our scripts.
pub fn origin(path: &Path) -> Option<Origin> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > MOST {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    serde_json::from_str(text.strip_prefix(HEADER)?.lines().next()?).ok()
}

/// Refuses flags of commands together with libkrunfw.
pub fn refuse(flags: &CommandFlags, command: &[String]) -> Outcome<()> {
    match flags.is_given() || !command.is_empty() {
        true => Err(Failure::Usage("libkrunfw is not an image: only --from, --format and --quiet apply to it".into())),
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
                let text = format!("command {name} exists already: {}", path.display());
                return Err(Failure::hinted(text, "to replace the command: --force"));
            }
            None => {
                return Err(Failure::message(format!(
                    "{} exists and was not made by msb install; choose another name with --name",
                    path.display()
                )));
            }
        }
    }
    let home = bin.parent().unwrap_or(&bin);
    let origin = Origin { image, command, tmp: flags.tmp };
    let script = script(&name, &origin, &words, home, &call.python)?;
    write(&bin, &path, &script).map_err(|error| failed("create", &path, &error))?;
    call.console.line(&path.display().to_string())?;
    let on_path = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir == bin));
    if !on_path {
        call.console.note(&format!("to call the command by its name, add {} to PATH", bin.display()));
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

/// Whether `msb run` accepts the flags, so that an error is reported now and not at the first call.
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
        .map_err(|error| Failure::message(format!("cannot encode the command: {error}")))?;
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

/// Writes the script atomically.
fn write(bin: &Path, path: &Path, script: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(bin)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o755).open(&temporary)?;
    let done = file.write_all(script.as_bytes()).and_then(|()| std::fs::rename(&temporary, path));
    if done.is_err() {
        // The first failure is the one that is reported.
        let _ = std::fs::remove_file(&temporary);
    }
    done
}

pub fn failed(action: &str, path: &Path, error: &std::io::Error) -> Failure {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_the_name_of_its_program() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(default_name("docker.io/library/alpine:3.20", &[]), "alpine");
        assert_eq!(default_name("python@sha256:00", &[]), "python");
        assert_eq!(default_name("alpine", &words(&["/usr/bin/jq", "-r"])), "jq");
    }

    #[test]
    fn a_quoted_word_stays_one_word() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's; $(x) `y`"), r"'it'\''s; $(x) `y`'");
    }
}
