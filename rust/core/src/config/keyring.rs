//! `keyring:<service>:<name>`: a secret of the caller's session, from its Secret Service (freedesktop.org, Secret Service API).

use std::collections::HashMap;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use secret_service::{EncryptionType, Error, SecretService};

/// The user may have to unlock the keyring in this time.
const DEADLINE: Duration = Duration::from_secs(10);

/// The secret, or the reason why it cannot be had: the end of a sentence that begins with the reference. Blocks for 10 s at
/// most.
///
/// The D-Bus client runs on the executor of its own crate and not on tokio, whose support it would bring processes and signals
/// with: a handler of SIGCHLD in the caller's process, and a pipe that a forked daemon closes.
pub fn secret(service: &str, name: &str) -> Result<String, String> {
    let (service, name) = (service.to_owned(), name.to_owned());
    let (answer, answered) = std::sync::mpsc::channel();
    let ask = move || {
        // After the deadline there is no receiver.
        let _ = answer.send(futures::executor::block_on(ask(&service, &name)));
    };
    let asking = std::thread::Builder::new().name("keyring".into()).spawn(ask);
    asking.map_err(|error| format!("cannot be looked up: {error}"))?;
    match answered.recv_timeout(DEADLINE) {
        Ok(found) => found,
        Err(RecvTimeoutError::Timeout) => {
            Err(format!("was not answered within {} s; unlock the keyring, or use env:NAME", DEADLINE.as_secs()))
        }
        Err(RecvTimeoutError::Disconnected) => Err("cannot be looked up: the D-Bus client panicked".into()),
    }
}

async fn ask(service: &str, name: &str) -> Result<String, String> {
    let client = SecretService::connect(EncryptionType::Dh).await.map_err(|error| no_service(&error))?;
    let attributes = HashMap::from([("service", service), ("username", name)]);
    let found = client.search_items(attributes).await.map_err(|error| refused(&error))?;
    if !found.locked.is_empty() {
        client.unlock_all(&found.locked.iter().collect::<Vec<_>>()).await.map_err(|error| refused(&error))?;
    }
    let items: Vec<_> = found.unlocked.iter().chain(&found.locked).collect();
    let item = match items.as_slice() {
        [] => {
            return Err(format!(
                "is not in the keyring; `secret-tool store --label=microsandbox service {service} username {name}` \
                 stores it"
            ));
        }
        [item] => item,
        _ => return Err("is in the keyring more than once; remove all but one".into()),
    };
    let secret = item.get_secret().await.map_err(|error| refused(&error))?;
    // The error of the conversion holds the bytes: it must not be shown.
    let secret = String::from_utf8(secret).map_err(|_bytes| "is not text in the keyring".to_owned())?;
    if secret.trim().is_empty() {
        return Err("is empty in the keyring".into());
    }
    Ok(secret.trim().to_owned())
}

/// Why the service did not hand out what it has.
fn refused(error: &Error) -> String {
    match error {
        Error::Locked | Error::NoResult | Error::Prompt => {
            format!("is in a keyring that cannot be opened ({error}); unlock it, or use env:NAME")
        }
        _ => no_service(error),
    }
}

fn no_service(error: &Error) -> String {
    format!("needs the Secret Service of a session ({error}); start one, or use env:NAME")
}
