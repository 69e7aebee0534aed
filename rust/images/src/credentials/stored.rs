//! What `msb registry login` stored: in the Secret Service of the session where there is one, else in a file that only its owner can
//! read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use microsandbox_core::config::Environment;
use microsandbox_core::config::keyring::{self, KeyringError};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::private;
use microsandbox_home::{Home, blocking};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{Credential, SECRET_MAX, has_bus, keyring_failed, registry_key};

/// The attribute `service` of the items in the Secret Service.
const SERVICE: &str = "dev.microsandbox.registry";
/// Largest file of logins.
const FILE_MAX: u64 = 1 << 20;
/// Most logins in the file.
const LOGINS_MAX: usize = 1000;

/// Where a login is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The Secret Service of the session.
    Keyring,
    /// A file of mode 0600.
    File(PathBuf),
}

/// One login: the form of the file and of the keyring's secret.
#[derive(Clone, Serialize, Deserialize)]
struct Login {
    username: String,
    password: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Logins {
    #[serde(default)]
    logins: BTreeMap<String, Login>,
}

fn file(home: &Home) -> PathBuf {
    home.config().secrets_dir().join("registries.json")
}

/// The login of this registry, if there is one.
pub(super) fn find(home: &Home, environment: &Environment, host: &str) -> MicrosandboxResult<Option<Credential>> {
    match from_keyring(environment, host) {
        Ok(Some(found)) => return Ok(Some(found)),
        Ok(None) | Err(KeyringError::NoService(_)) => {}
        Err(error) => return Err(keyring_failed(host, &error)),
    }
    let login = read(&file(home))?.logins.remove(&registry_key(host));
    Ok(login.and_then(|login| Credential::new(login.username, login.password)))
}

/// Of the Secret Service; nothing without a session bus.
pub(super) fn from_keyring(environment: &Environment, host: &str) -> Result<Option<Credential>, KeyringError> {
    if !has_bus(environment) {
        return Ok(None);
    }
    let Some(text) = keyring::find(SERVICE, &registry_key(host))? else { return Ok(None) };
    // The error of the parser may hold a piece of the text.
    match serde_json::from_str::<Login>(&text) {
        Ok(login) => Ok(Credential::new(login.username, login.password)),
        Err(_secret) => Err(KeyringError::Failed(format!(
            "is in the keyring in a form that this program does not write; run: msb registry login {host}"
        ))),
    }
}

/// A file of `<secrets>/registries`, of which only the owner may read; the error ends a sentence.
pub(super) fn secret_file(home: &Home, name: &str) -> Result<String, String> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err("it must be the name of a file, without a directory".into());
    }
    let path = home.config().secrets_dir().join("registries").join(name);
    let text = read_private(&path, SECRET_MAX as u64).map_err(|error| error.to_string())?;
    let text = text.ok_or_else(|| format!("there is no file {}; create it with mode 0600", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Stores the login of a registry; where.
pub async fn login(home: &Home, host: &str, username: &str, password: &str) -> MicrosandboxResult<Place> {
    login_in(home, &Environment::Process, host, username, password).await
}

async fn login_in(
    home: &Home,
    environment: &Environment,
    host: &str,
    username: &str,
    password: &str,
) -> MicrosandboxResult<Place> {
    let invalid = |what: &str| Err(MicrosandboxError::InvalidConfig(format!("the login of {host}: {what}")));
    if username.is_empty() || username.contains(':') || username.chars().any(char::is_control) {
        return invalid("the user name must not be empty and has no colon and no control characters");
    }
    if password.is_empty() {
        return invalid("the password is empty");
    }
    if username.len().max(password.len()) > SECRET_MAX {
        return invalid(&format!("the user name or the password is longer than {} KiB", SECRET_MAX >> 10));
    }
    let login = Login { username: username.to_owned(), password: password.to_owned() };
    let (home, environment, host) = (home.clone(), environment.clone(), host.to_owned());
    blocking(move || {
        let key = registry_key(&host);
        if has_bus(&environment) {
            let text = serde_json::to_string(&login).map_err(|e| MicrosandboxError::json("a login", e))?;
            match keyring::store(SERVICE, &key, &format!("microsandbox: registry {key}"), &text) {
                Ok(()) => return Ok(Place::Keyring),
                Err(KeyringError::NoService(_)) => {}
                Err(error) => return Err(keyring_failed(&host, &error)),
            }
        }
        let path = file(&home);
        change(&path, |logins| {
            logins.insert(key, login);
        })?;
        Ok(Place::File(path))
    })
    .await
}

/// Forgets the login of a registry; whether there was one.
pub async fn logout(home: &Home, host: &str) -> MicrosandboxResult<bool> {
    logout_in(home, &Environment::Process, host).await
}

async fn logout_in(home: &Home, environment: &Environment, host: &str) -> MicrosandboxResult<bool> {
    let (home, environment, host) = (home.clone(), environment.clone(), host.to_owned());
    blocking(move || {
        let key = registry_key(&host);
        let in_keyring = match has_bus(&environment).then(|| keyring::remove(SERVICE, &key)) {
            Some(Ok(removed)) => removed,
            None | Some(Err(KeyringError::NoService(_))) => false,
            Some(Err(error)) => return Err(keyring_failed(&host, &error)),
        };
        let path = file(&home);
        let in_file = read(&path)?.logins.contains_key(&key);
        if in_file {
            change(&path, |logins| {
                logins.remove(&key);
            })?;
        }
        Ok(in_keyring || in_file)
    })
    .await
}

/// The registries that have a login, in the order of their names.
pub async fn list(home: &Home) -> MicrosandboxResult<Vec<(String, Place)>> {
    list_in(home, &Environment::Process).await
}

async fn list_in(home: &Home, environment: &Environment) -> MicrosandboxResult<Vec<(String, Place)>> {
    let (home, environment) = (home.clone(), environment.clone());
    blocking(move || {
        let path = file(&home);
        let mut all: BTreeMap<String, Place> =
            read(&path)?.logins.into_keys().map(|host| (host, Place::File(path.clone()))).collect();
        match has_bus(&environment).then(|| keyring::names(SERVICE)) {
            Some(Ok(names)) => all.extend(names.into_iter().map(|host| (host, Place::Keyring))),
            None | Some(Err(KeyringError::NoService(_))) => {}
            Some(Err(error)) => return Err(keyring_failed("the registries", &error)),
        }
        Ok(all.into_iter().collect())
    })
    .await
}

fn read(path: &Path) -> MicrosandboxResult<Logins> {
    let Some(text) = read_private(path, FILE_MAX)? else { return Ok(Logins::default()) };
    // The error of the parser may hold a piece of the text.
    serde_json::from_str(&text).map_err(|_secret| {
        MicrosandboxError::InvalidConfig(format!(
            "the logins in {} cannot be read: the file is damaged; move it away and log in again",
            path.display()
        ))
    })
}

/// The text of a file of which only its owner may read; `None` if there is none.
fn read_private(path: &Path, limit: u64) -> MicrosandboxResult<Option<String>> {
    let invalid = |what: String| Err(MicrosandboxError::InvalidConfig(format!("{}: {what}", path.display())));
    let opened = File::options()
        .read(true)
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32)
        .open(path);
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(MicrosandboxError::io("read", path, error)),
    };
    let meta = opened.metadata().map_err(|error| MicrosandboxError::io("read", path, error))?;
    let own = rustix::process::geteuid().as_raw();
    if !meta.is_file() {
        return invalid("it is no file".into());
    }
    if meta.uid() != own && meta.uid() != 0 {
        return invalid(format!("it belongs to user {}; change its owner (chown {own})", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o7777;
        return invalid(format!(
            "it holds a secret, and other users may read it (mode {mode:04o}); forbid that (chmod 600)"
        ));
    }
    let mut text = String::new();
    let read = opened.take(limit + 1).read_to_string(&mut text);
    if text.len() as u64 > limit {
        return invalid(format!("it is larger than {} KiB", limit >> 10));
    }
    read.map_err(|error| MicrosandboxError::io("read", path, error))?;
    Ok(Some(text))
}

/// Reads, changes and replaces the file, alone.
fn change(path: &Path, change: impl FnOnce(&mut BTreeMap<String, Login>)) -> MicrosandboxResult<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let failed = |error| MicrosandboxError::io("prepare", directory, error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let alone = File::open(directory).map_err(failed)?;
    flock(&alone, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let mut logins = read(path)?;
    change(&mut logins.logins);
    if logins.logins.len() > LOGINS_MAX {
        return Err(MicrosandboxError::InvalidConfig(format!(
            "{} has {LOGINS_MAX} logins, which is the limit; remove some with: msb registry logout HOST",
            path.display()
        )));
    }
    let text = serde_json::to_vec_pretty(&logins).map_err(|error| MicrosandboxError::json("the logins", error))?;
    private::write(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn home() -> (tempfile::TempDir, Home) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(microsandbox_core::config::LocalConfig::default_for_home(directory.path()));
        (directory, home)
    }

    const CANARY: &str = "canary-of-the-tests-51f0";

    #[tokio::test]
    async fn a_login_is_kept_in_a_file_of_its_owner_alone() {
        let (_directory, home) = home();
        let nowhere = Environment::of([("HOME", "/nonexistent")]);
        let place = login_in(&home, &nowhere, "Registry.example:5000", "me", CANARY).await.unwrap();
        let Place::File(path) = place else { panic!("{place:?}") };
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let wanted = Credential::Basic { username: "me".into(), password: CANARY.into() };
        assert_eq!(find(&home, &nowhere, "registry.example:5000").unwrap(), Some(wanted));
        assert_eq!(find(&home, &nowhere, "registry.example").unwrap(), None);
        let known = list_in(&home, &nowhere).await.unwrap();
        assert_eq!(known, [("registry.example:5000".to_owned(), Place::File(path.clone()))]);
        assert!(logout_in(&home, &nowhere, "registry.example:5000").await.unwrap());
        assert!(!logout_in(&home, &nowhere, "registry.example:5000").await.unwrap());
        assert!(!std::fs::read_to_string(path).unwrap().contains(CANARY));
    }

    #[tokio::test]
    async fn all_names_of_dockers_registry_are_one_login() {
        let (_directory, home) = home();
        let nowhere = Environment::of([("HOME", "/nonexistent")]);
        login_in(&home, &nowhere, "https://index.docker.io/v1/", "me", "p").await.unwrap();
        assert!(find(&home, &nowhere, "docker.io").unwrap().is_some());
        assert_eq!(list_in(&home, &nowhere).await.unwrap()[0].0, "docker.io");
    }

    #[tokio::test]
    async fn a_file_that_others_may_read_is_refused_by_name() {
        let (_directory, home) = home();
        let nowhere = Environment::of([("HOME", "/nonexistent")]);
        login_in(&home, &nowhere, "r.example", "me", CANARY).await.unwrap();
        std::fs::set_permissions(file(&home), std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = find(&home, &nowhere, "r.example").unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains(CANARY), "{error}");
        std::fs::write(file(&home), format!("{{\"logins\": \"{CANARY}\"}}")).unwrap();
        std::fs::set_permissions(file(&home), std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = find(&home, &nowhere, "r.example").unwrap_err().to_string();
        assert!(error.contains("damaged") && !error.contains(CANARY), "{error}");
    }

    #[tokio::test]
    async fn a_login_that_cannot_be_sent_is_refused() {
        let (_directory, home) = home();
        let nowhere = Environment::of([("HOME", "/nonexistent")]);
        let long = "x".repeat(SECRET_MAX + 1);
        for (username, password) in [("", "p"), ("a:b", "p"), ("a\nb", "p"), ("me", ""), ("me", long.as_str())] {
            assert!(login_in(&home, &nowhere, "r.example", username, password).await.is_err());
        }
    }

    #[test]
    fn a_secret_file_is_named_without_a_directory() {
        let (_directory, home) = home();
        for name in ["", ".", "../x", "a/b", ".hidden"] {
            assert!(secret_file(&home, name).unwrap_err().contains("name of a file"), "{name}");
        }
        assert!(secret_file(&home, "absent").unwrap_err().contains("mode 0600"));
        let directory = home.config().secrets_dir().join("registries");
        std::fs::create_dir_all(&directory).unwrap();
        private::write(&directory.join("mine"), b"pass word\n").unwrap();
        assert_eq!(secret_file(&home, "mine").unwrap(), "pass word");
    }
}
