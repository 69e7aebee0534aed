//! What the configuration and the caller say of a registry, as the clients that a pull uses.

use std::path::PathBuf;

use super::credentials::{self, Credential};
use super::failure::Failure;
use super::reference::Reference;
use super::registry::reach::Reach;
use super::registry::{self, Client, Settings, Upstream};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::PullRequest;
use microsandbox_home::{Home, blocking};

/// Where the image of `reference` may come from.
pub async fn of(home: &Home, request: &PullRequest, reference: &Reference) -> Result<Upstream, Failure> {
    let registries = &home.config().registries;
    let (host, repository) = (reference.domain(), reference.path());
    let entry = registries.hosts.get(host);
    let credential = match &request.access.auth {
        Some(auth) => Some(Credential::Basic { username: auth.username.clone(), password: auth.password.clone() }),
        None if request.access.anonymous => None,
        None => credentials::find(home, host, repository).await?,
    };
    let mut ca_certs = request.access.ca_certs.clone();
    let of_host = entry.and_then(|entry| entry.ca_certs.as_ref());
    ca_certs.extend(certificates(registries.ca_certs.iter().chain(of_host).cloned().collect()).await?);
    let is_allowed = !request.access.public_only || entry.is_some_and(|entry| entry.for_clients);
    let stall = registry::stall()?;
    let settings = Settings {
        host: host.to_owned(),
        repository: repository.to_owned(),
        insecure: request.access.insecure || entry.is_some_and(|entry| entry.insecure),
        ca_certs,
        credential,
        token_host: entry.and_then(|entry| entry.token_host.clone()),
        mirrored: None,
        most_internal: if is_allowed { Reach::Loopback } else { Reach::Public },
        stall,
    };
    let mut mirrors = Vec::new();
    for address in registries.mirrors.get(host).into_iter().flatten() {
        mirrors.push(Client::new(mirror(home, address, &settings).await?)?);
    }
    Ok(Upstream::new(mirrors, Client::new(settings)?))
}

/// A mirror `http[s]://host[:port][/prefix]`; the credentials of the registry are not its own.
async fn mirror(home: &Home, address: &str, of: &Settings) -> MicrosandboxResult<Settings> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("https", address));
    let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let repository = match prefix.trim_matches('/') {
        "" => of.repository.clone(),
        prefix => format!("{prefix}/{}", of.repository),
    };
    Ok(Settings {
        host: host.to_owned(),
        insecure: scheme == "http",
        credential: credentials::find(home, host, &repository).await?,
        token_host: None,
        mirrored: Some(of.host.clone()),
        most_internal: Reach::Loopback,
        repository,
        ..of.clone()
    })
}

/// The texts of these PEM files.
async fn certificates(paths: Vec<PathBuf>) -> MicrosandboxResult<Vec<Vec<u8>>> {
    let read = |path: PathBuf| std::fs::read(&path).map_err(|e| MicrosandboxError::io("read", &path, e));
    blocking(move || paths.into_iter().map(read).collect()).await
}
