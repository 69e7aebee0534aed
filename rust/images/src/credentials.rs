//! With what a registry is asked for an image, when the call itself says nothing.
//!
//! | order | source |
//! |---|---|
//! | 1 | what `msb registry login` stored: the Secret Service of the session, else a file of mode 0600 ([`stored`]) |
//! | 2 | `registries.hosts.<host>.auth` of the configuration |
//! | 3 | Docker's `config.json`, then Podman's `auth.json` ([`foreign`]), with their credential programs ([`program`]) |
//!
//! The first that has something for the registry is used; one that has nothing is passed over, and a registry that none of them knows
//! is asked without. No error, log or debug form shows a secret, or anything that a credential program wrote.

mod foreign;
mod program;
mod stored;

use std::fmt;

use microsandbox_core::config::{CredentialStore, Environment, RegistryAuth, keyring};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_home::{Home, blocking};

pub use stored::{Place, list, login, logout};

/// Largest secret: user name, password or token.
const SECRET_MAX: usize = 64 << 10;

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password or access token.
    Basic { username: String, password: String },
    /// Of `docker login` at registries with an OAuth2 token server: exchanged for an access token there.
    IdentityToken(String),
    /// An access token, sent as it is.
    Bearer(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Basic { username, .. } => {
                f.debug_struct("Basic").field("username", username).finish_non_exhaustive()
            }
            Credential::IdentityToken(_) => f.write_str("IdentityToken(..)"),
            Credential::Bearer(_) => f.write_str("Bearer(..)"),
        }
    }
}

impl Credential {
    /// A user name and a secret, as files and credential programs write them: the name `<token>` marks an identity token.
    fn new(username: String, secret: String) -> Option<Credential> {
        if secret.is_empty() || username.len().max(secret.len()) > SECRET_MAX {
            return None;
        }
        Some(if username == "<token>" {
            Credential::IdentityToken(secret)
        } else {
            Credential::Basic { username, password: secret }
        })
    }
}

/// The credential for a repository, or `None` if no source knows its registry. `host` is as in the reference, with its port.
pub async fn find(home: &Home, host: &str, repository: &str) -> MicrosandboxResult<Option<Credential>> {
    find_in(home, &Environment::Process, host, repository).await
}

/// As [`find`], with an environment of the caller's.
pub async fn find_in(
    home: &Home,
    environment: &Environment,
    host: &str,
    repository: &str,
) -> MicrosandboxResult<Option<Credential>> {
    let (home, environment) = (home.clone(), environment.clone());
    let (host, repository) = (host.to_owned(), repository.to_owned());
    blocking(move || {
        if let Some(found) = stored::find(&home, &environment, &host)? {
            return Ok(Some(found));
        }
        if let Some(auth) = home.config().registries.hosts.get(&host).and_then(|entry| entry.auth.as_ref()) {
            return configured(&home, &environment, &host, auth).map(Some);
        }
        foreign::find(&environment, &host, &repository)
    })
    .await
}

/// `registries.hosts.<host>.auth`: it is demanded, so its absence is an error.
fn configured(
    home: &Home,
    environment: &Environment,
    host: &str,
    auth: &RegistryAuth,
) -> MicrosandboxResult<Credential> {
    let key = format!("registries.hosts.{host}.auth");
    let wrong = |what: String| Err(MicrosandboxError::InvalidConfig(format!("{key}{what}")));
    let password = if let Some(name) = &auth.password_env {
        match environment.text(name) {
            Some(password) => password,
            None => return wrong(format!(".password_env: the environment variable {name} is not set; set it")),
        }
    } else if let Some(name) = &auth.secret_name {
        stored::secret_file(home, name)
            .map_err(|why| MicrosandboxError::InvalidConfig(format!("{key}.secret_name: {why}")))?
    } else {
        debug_assert_eq!(auth.store, Some(CredentialStore::Keyring));
        match stored::from_keyring(environment, host) {
            Ok(Some(Credential::Basic { password, .. })) => password,
            Ok(_) => {
                return wrong(format!(".store: the keyring has no password for it; run: msb registry login {host}"));
            }
            Err(error) => return wrong(format!(".store: the password {}", error.text())),
        }
    };
    match Credential::new(auth.username.clone(), password) {
        Some(credential) => Ok(credential),
        None => wrong(format!(": the password is empty or longer than {} KiB", SECRET_MAX >> 10)),
    }
}

/// The registry as the stores name it: every name of Docker's own registry is one.
fn registry_key(host: &str) -> String {
    let host = host.trim().trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" | "index.docker.io/v1" | "index.docker.io/v2" | "docker.io" => {
            "docker.io".to_owned()
        }
        other => other.to_owned(),
    }
}

/// Whether a session bus is named at all: without one no time is spent on it.
fn has_bus(environment: &Environment) -> bool {
    if environment.path("DBUS_SESSION_BUS_ADDRESS").is_some() {
        return true;
    }
    environment.path("XDG_RUNTIME_DIR").is_some_and(|dir| dir.join("bus").exists())
}

/// What a keyring that failed is reported as.
fn keyring_failed(host: &str, error: &keyring::KeyringError) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(format!(
        "the credential of {host} {}",
        error.text().replace("use env:NAME", "give the credential with the call (registry_auth)",)
    ))
}
