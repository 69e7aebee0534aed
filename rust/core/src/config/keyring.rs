//! Secrets of the caller's session, in its Secret Service (freedesktop.org, Secret Service API). An item has the attributes
//! `service` and `username`, as `secret-tool` and others write them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use secret_service::{EncryptionType, Error, Item, SecretService};

/// The user may have to unlock the keyring in this time.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most items of one service that are looked at.
const ITEMS_MAX: usize = 1000;

/// Why there is no answer. The texts end a sentence that begins with the name of the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyringError {
    /// This session has no Secret Service.
    NoService(String),
    /// It has one, which did not do what it was asked.
    Failed(String),
}

impl KeyringError {
    pub fn text(&self) -> &str {
        match self {
            KeyringError::NoService(text) | KeyringError::Failed(text) => text,
        }
    }
}

type Answer<T> = Result<T, KeyringError>;

/// `keyring:<service>:<name>` of a profile: the secret, or the reason why it cannot be had. Blocks for 10 s at most.
pub(super) fn secret(service: &str, name: &str) -> Result<String, String> {
    let found = find(service, name).map_err(|error| error.text().to_owned())?;
    let secret = found.ok_or_else(|| {
        format!(
            "is not in the keyring; `secret-tool store --label=microsandbox service {service} username {name}` \
             stores it"
        )
    })?;
    if secret.trim().is_empty() {
        return Err("is empty in the keyring".into());
    }
    Ok(secret.trim().to_owned())
}

/// The secret of this name, if there is one. Blocks for 10 s at most.
pub fn find(service: &str, name: &str) -> Answer<Option<String>> {
    let (service, name) = (service.to_owned(), name.to_owned());
    within_deadline(async move {
        let client = connect().await?;
        let found = search(&client, &service, Some(&name)).await?;
        let item = match found.as_slice() {
            [] => return Ok(None),
            [item] => item,
            _ => return Err(KeyringError::Failed("is in the keyring more than once; remove all but one".into())),
        };
        if item.is_locked().await.map_err(|error| refused(&error))? {
            item.unlock().await.map_err(|error| refused(&error))?;
        }
        let secret = item.get_secret().await.map_err(|error| refused(&error))?;
        // The error of the conversion holds the bytes: it must not be shown.
        let secret =
            String::from_utf8(secret).map_err(|_bytes| KeyringError::Failed("is not text in the keyring".into()))?;
        Ok(Some(secret))
    })
}

/// Stores the secret under this name, in place of an earlier one. Blocks for 10 s at most.
pub fn store(service: &str, name: &str, label: &str, secret: &str) -> Answer<()> {
    let (service, name) = (service.to_owned(), name.to_owned());
    let (label, secret) = (label.to_owned(), secret.to_owned());
    within_deadline(async move {
        let client = connect().await?;
        let collection = match client.get_default_collection().await {
            Ok(collection) => collection,
            Err(Error::NoResult) => return Err(no_service(&Error::NoResult)),
            Err(error) => return Err(refused(&error)),
        };
        if collection.is_locked().await.map_err(|error| refused(&error))? {
            collection.unlock().await.map_err(|error| refused(&error))?;
        }
        let attributes = HashMap::from([("service", service.as_str()), ("username", name.as_str())]);
        let made = collection.create_item(&label, attributes, secret.as_bytes(), true, "text/plain").await;
        made.map(drop).map_err(|error| refused(&error))
    })
}

/// Removes the secrets of this name; whether there was one. Blocks for 10 s at most.
pub fn remove(service: &str, name: &str) -> Answer<bool> {
    let (service, name) = (service.to_owned(), name.to_owned());
    within_deadline(async move {
        let client = connect().await?;
        let found = search(&client, &service, Some(&name)).await?;
        for item in &found {
            if item.is_locked().await.map_err(|error| refused(&error))? {
                item.unlock().await.map_err(|error| refused(&error))?;
            }
            item.delete().await.map_err(|error| refused(&error))?;
        }
        Ok(!found.is_empty())
    })
}

/// The names of all secrets of a service. Blocks for 10 s at most.
pub fn names(service: &str) -> Answer<Vec<String>> {
    let service = service.to_owned();
    within_deadline(async move {
        let client = connect().await?;
        let mut names = Vec::new();
        for item in search(&client, &service, None).await?.iter().take(ITEMS_MAX) {
            let mut attributes = item.get_attributes().await.map_err(|error| refused(&error))?;
            names.extend(attributes.remove("username"));
        }
        Ok(names)
    })
}

/// The D-Bus client runs on the executor of its own crate and not on tokio, whose support it would bring processes and signals
/// with: a handler of SIGCHLD in the caller's process, and a pipe that a forked daemon closes.
fn within_deadline<T: Send + 'static>(work: impl Future<Output = Answer<T>> + Send + 'static) -> Answer<T> {
    let (answer, answered) = std::sync::mpsc::channel();
    let ask = move || {
        // After the deadline there is no receiver.
        let _ = answer.send(futures::executor::block_on(work));
    };
    let failed = |text: String| Err(KeyringError::Failed(text));
    if let Err(error) = std::thread::Builder::new().name("keyring".into()).spawn(ask) {
        return failed(format!("cannot be looked up: {error}"));
    }
    match answered.recv_timeout(DEADLINE) {
        Ok(found) => found,
        Err(RecvTimeoutError::Timeout) => {
            failed(format!("was not answered within {} s; unlock the keyring, or use env:NAME", DEADLINE.as_secs()))
        }
        Err(RecvTimeoutError::Disconnected) => failed("cannot be looked up: the D-Bus client panicked".into()),
    }
}

async fn connect<'a>() -> Answer<SecretService<'a>> {
    SecretService::connect(EncryptionType::Dh).await.map_err(|error| no_service(&error))
}

/// The items of a service, those that can be read before the locked ones.
async fn search<'a>(client: &'a SecretService<'a>, service: &str, name: Option<&str>) -> Answer<Vec<Item<'a>>> {
    let attributes = [("service", service)].into_iter().chain(name.map(|name| ("username", name))).collect();
    let found = client.search_items(attributes).await.map_err(|error| refused(&error))?;
    Ok(found.unlocked.into_iter().chain(found.locked).collect())
}

/// Why the service did not hand out what it has.
fn refused(error: &Error) -> KeyringError {
    match error {
        Error::Locked | Error::NoResult | Error::Prompt => {
            KeyringError::Failed(format!("is in a keyring that cannot be opened ({error}); unlock it, or use env:NAME"))
        }
        _ => no_service(error),
    }
}

fn no_service(error: &Error) -> KeyringError {
    KeyringError::NoService(format!("needs the Secret Service of a session ({error}); start one, or use env:NAME"))
}
