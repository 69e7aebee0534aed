//! `msb registry`: the logins of registries.

use clap::{Args, Subcommand};
use microsandbox_local::LocalBackend;
use microsandbox_local::credentials::{self, Place};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::tables::{Format, print_json, table};
use crate::terminal::input::InputStream;
use crate::terminal::raw_mode::Unseen;

/// Largest password or token.
const PASSWORD_MAX: usize = 64 << 10;

/// Arguments of `registry`.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    #[command(subcommand)]
    verb: RegistryVerb,
}

#[derive(Debug, Subcommand)]
enum RegistryVerb {
    /// Store a user name and password for a registry: in the keyring of the session, else in a file that only you can read.
    Login {
        /// The registry as it stands in references, like docker.io or registry.example.com:5000.
        #[arg(value_name = "REGISTRY")]
        registry: String,
        /// User name.
        #[arg(short, long, value_name = "USER")]
        username: String,
        /// Read the password or token from standard input instead of asking for it on the terminal.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Forget the login of a registry.
    Logout {
        /// The registry.
        #[arg(value_name = "REGISTRY")]
        registry: String,
    },
    /// List the registries that have a login here, and where it is kept.
    #[command(visible_alias = "ls")]
    List {
        /// Output format.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Serialize)]
struct Row {
    registry: String,
    /// `keyring` or `file`.
    store: &'static str,
}

pub async fn run(args: RegistryArgs, call: &Invocation) -> Outcome<()> {
    let Some(local) = LocalBackend::of(&call.backend) else {
        return Err(Failure::hinted(
            "logins of registries belong to this machine, and the active backend is a service".to_owned(),
            "give the credentials with the call (registry_auth), or log in on the machine of the service",
        ));
    };
    let home = local.home();
    match args.verb {
        RegistryVerb::Login { registry, username, password_stdin } => {
            let password = password(call, &registry, password_stdin).await?;
            match credentials::login(home, &registry, &username, &password).await? {
                Place::Keyring => call.console.line(&format!("stored in the keyring: {registry}")),
                Place::File(path) => call.console.line(&format!("stored in {}: {registry}", path.display())),
            }
        }
        RegistryVerb::Logout { registry } => {
            if !credentials::logout(home, &registry).await? {
                return Err(Failure::message(format!("there is no login for {registry}; msb registry list shows all")));
            }
            call.console.line(&registry)
        }
        RegistryVerb::List { format } => {
            let rows: Vec<Row> = credentials::list(home).await?.into_iter().map(row).collect();
            if format == Format::Json {
                return print_json(&call.console, &rows);
            }
            if rows.is_empty() {
                call.console.note("No logins found.");
                return Ok(());
            }
            let rows = rows.into_iter().map(|row| vec![row.registry, row.store.to_owned()]);
            call.console.print(&table(&["REGISTRY", "STORE"], rows))
        }
    }
}

fn row((registry, place): (String, Place)) -> Row {
    let store = match place {
        Place::Keyring => "keyring",
        Place::File(_) => "file",
    };
    Row { registry, store }
}

/// The first line of standard input; on a terminal after a question and without an echo.
async fn password(call: &Invocation, registry: &str, from_input: bool) -> Outcome<String> {
    if !from_input && !call.console.in_is_terminal {
        return Err(Failure::Usage(
            "the password is asked for on a terminal, and standard input is none; use --password-stdin".into(),
        ));
    }
    let failed = |error: std::io::Error| Failure::message(format!("cannot read the password: {error}"));
    let asks = call.console.in_is_terminal && !from_input;
    // Before the question: what is typed at once is not shown either.
    let _unseen = asks.then(Unseen::enter).transpose().map_err(failed)?;
    if asks {
        call.console.note(&format!("Password for {registry}:"));
    }
    let mut input = InputStream::open(&call.console.input).map_err(failed)?;
    let mut read = Vec::new();
    while let Some(chunk) = input.next().await {
        read.extend_from_slice(&chunk);
        if read.len() > PASSWORD_MAX {
            return Err(Failure::message(format!("the password is longer than {} KiB", PASSWORD_MAX >> 10)));
        }
        if asks && read.contains(&b'\n') {
            break;
        }
    }
    // The error of the conversion holds the bytes.
    let text = String::from_utf8(read).map_err(|_secret| Failure::message("the password is no text in UTF-8"))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::message("the password is empty: nothing was stored"));
    }
    if password.contains(['\r', '\n']) {
        return Err(Failure::message("the password has more than one line: nothing was stored"));
    }
    Ok(password.to_owned())
}
