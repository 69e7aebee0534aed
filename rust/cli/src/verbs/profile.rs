//! `msb profile`: named choices of a backend. Keys are never shown.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use microsandbox_core::MicrosandboxError;
use microsandbox_core::config::{
    Environment, Profile, ProfileBackend, SdkConfig, clear_active_profile, config_path, set_active_profile,
};
use serde::Serialize;

use crate::output::failure::Outcome;
use crate::output::tables::{Format, or_dash, print_json, table};
use crate::terminal::console::Console;

/// Arguments of `profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    #[command(subcommand)]
    verb: ProfileVerb,
}

#[derive(Debug, Subcommand)]
enum ProfileVerb {
    /// List profiles and mark the active one.
    #[command(visible_alias = "ls")]
    List(FormatArgs),
    /// Show one profile, without its key.
    Show(ShowArgs),
    /// Make a profile active.
    Use(UseArgs),
}

/// The format of a list.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Name of the profile [default: the active one].
    name: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
}

/// The profile.
#[derive(Debug, Args)]
pub struct UseArgs {
    /// Name of the profile.
    name: String,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    active: bool,
    backend: &'static str,
    url: Option<String>,
    /// Reference to the key; an inline key is redacted.
    api_key_ref: Option<String>,
    wire: Option<&'static str>,
}

fn entry<'a>(name: &'a str, profile: &Profile, document: &SdkConfig) -> Entry<'a> {
    let cloud = profile.backend == ProfileBackend::Cloud;
    Entry {
        name,
        active: document.active_profile.as_deref() == Some(name),
        backend: if cloud { "cloud" } else { "local" },
        url: if cloud { profile.api_url().ok() } else { None },
        api_key_ref: profile.api_key_ref.as_ref().map(|reference| reference.redacted()),
        wire: cloud.then(|| profile.wire.as_str()),
    }
}

fn file() -> Outcome<PathBuf> {
    Ok(config_path(&Environment::Process)?)
}

/// Needs no backend: an unusable profile can still be shown and deactivated.
pub fn run(args: &ProfileArgs, console: &Console) -> Outcome<()> {
    match &args.verb {
        ProfileVerb::Use(given) => make_active(given, console),
        ProfileVerb::List(given) => list(given, console),
        ProfileVerb::Show(given) => {
            let document = SdkConfig::load()?;
            let name = given.name.as_ref().or(document.active_profile.as_ref()).ok_or_else(|| {
                MicrosandboxError::InvalidConfig(
                    "no profile is active; give the name of one, `msb profile list` shows the names".into(),
                )
            })?;
            let Some(profile) = document.profiles.get(name) else {
                return Err(microsandbox_core::config::unknown_profile(name, &file()?).into());
            };
            let entry = entry(name, profile, &document);
            match given.format.format {
                Format::Json => print_json(console, &entry),
                Format::Table => show(console, Format::Table, &[entry]),
            }
        }
    }
}

pub fn make_active(given: &UseArgs, console: &Console) -> Outcome<()> {
    set_active_profile(&file()?, &given.name)?;
    console.line(&given.name)
}

pub fn reset() -> Outcome<()> {
    Ok(clear_active_profile(&file()?)?)
}

pub fn list(given: &FormatArgs, console: &Console) -> Outcome<()> {
    let document = SdkConfig::load()?;
    let entries: Vec<_> = document.profiles.iter().map(|(name, profile)| entry(name, profile, &document)).collect();
    if entries.is_empty() && given.format == Format::Table {
        console.note(&format!("No profiles in {}.", file()?.display()));
        return Ok(());
    }
    show(console, given.format, &entries)
}

fn show(console: &Console, format: Format, entries: &[Entry<'_>]) -> Outcome<()> {
    if format == Format::Json {
        return print_json(console, &entries);
    }
    let rows = entries.iter().map(|entry| {
        vec![
            if entry.active { "*".to_owned() } else { String::new() },
            entry.name.to_owned(),
            entry.backend.to_owned(),
            or_dash(entry.url.as_deref()),
            or_dash(entry.api_key_ref.as_deref()),
            or_dash(entry.wire),
        ]
    });
    console.print(&table(&["ACTIVE", "NAME", "BACKEND", "URL", "KEY", "WIRE"], rows))
}
