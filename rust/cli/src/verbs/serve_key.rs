//! `msb serve key`: the API keys of a server's clients.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use microsandbox_server::{Keys, Scope};
use serde::Serialize;

use crate::flags::duration::parse_duration;
use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::tables::{Format, or_dash, print_json, table};
use crate::output::units::timestamp;

#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    /// Create a key and print it, alone on the last line; it cannot be shown again.
    Create {
        /// Name of the key.
        name: String,
        /// Permission of the key; may be repeated [default: all scopes except metrics and admin].
        #[arg(long, value_parser = scope, value_name = "SCOPE")]
        scope: Vec<Scope>,
        /// Let the key own and see what the key KEY does, for example to replace it.
        #[arg(long, value_name = "KEY")]
        same_owner_as: Option<String>,
        /// Time from now until the key expires, like 12h or 30d [default: never].
        #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
        expires: Option<Duration>,
    },
    /// List names, scopes and expiry of the keys; the keys themselves are not stored.
    #[command(visible_alias = "ls")]
    List {
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Revoke a key, with immediate effect on running servers.
    Revoke {
        /// Name of the key.
        name: String,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| {
        let known = Scope::ALL.map(Scope::as_str).join(", ");
        format!("{text:?} is not a scope; the scopes are {known}")
    })
}

#[derive(Serialize)]
struct Row {
    name: String,
    owner: String,
    scopes: Vec<&'static str>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    expired: bool,
}

pub fn run(args: KeyArgs, call: &Invocation) -> Outcome<()> {
    let keys = Keys::new(&crate::verbs::serve::directory()?);
    match args.verb {
        KeyVerb::Create { name, scope, same_owner_as, expires } => {
            let scopes = if scope.is_empty() { Scope::DEFAULT.to_vec() } else { scope };
            let (key, text) =
                keys.create_sharing(same_owner_as.as_deref(), &name, &scopes, expiry(expires, call.now)?)?;
            let may = key.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ");
            call.console.note(&format!("created the key {name} ({may}); store the key now, it cannot be shown again:"));
            call.console.line(&text)
        }
        KeyVerb::List { format } => list(&keys, format, call),
        KeyVerb::Revoke { name } => {
            keys.revoke(&name)?;
            call.console.note(&format!("revoked the key {name}"));
            Ok(())
        }
    }
}

fn expiry(expires: Option<Duration>, now: DateTime<Utc>) -> Outcome<Option<DateTime<Utc>>> {
    let Some(expires) = expires else { return Ok(None) };
    let end = TimeDelta::from_std(expires).ok().and_then(|expires| now.checked_add_signed(expires));
    match end {
        Some(end) => Ok(Some(end)),
        None => Err(Failure::Usage("--expires is too far in the future".into())),
    }
}

fn list(keys: &Keys, format: Format, call: &Invocation) -> Outcome<()> {
    let rows = keys.list()?.into_iter().map(|key| Row {
        expired: key.expired(call.now),
        scopes: key.scopes.iter().map(|scope| scope.as_str()).collect(),
        owner: key.owner().to_owned(),
        name: key.name,
        created_at: key.created_at,
        expires_at: key.expires_at,
    });
    match format {
        Format::Json => print_json(&call.console, &rows.collect::<Vec<_>>()),
        Format::Table => {
            let lines = rows.map(|row| {
                let expires = or_dash(row.expires_at.map(timestamp));
                let note = if row.expired { " (expired)" } else { "" };
                vec![row.name, row.owner, row.scopes.join(" "), timestamp(row.created_at), format!("{expires}{note}")]
            });
            call.console.print(&table(&["NAME", "OWNER", "SCOPES", "CREATED", "EXPIRES"], lines))
        }
    }
}
