//! `keyring:<service>:<name>`: a secret of the caller's session, from its Secret Service (freedesktop.org, Secret Service API).
//!
//! `keyring-core` with the one store that is meant here, as the authors of `keyring` advise programs that choose their store.

use std::sync::mpsc;
use std::time::Duration;

use dbus_secret_service_keyring_store::Store;
use keyring_core::Error;
use keyring_core::api::CredentialStoreApi as _;

/// Somebody may have to unlock it first.
const DEADLINE: Duration = Duration::from_secs(10);

/// The secret, or what is wrong, for the end of a sentence that begins with the reference. Waits 10 s at most.
pub fn secret(service: &str, name: &str) -> Result<String, String> {
    let (tell, told) = mpsc::sync_channel(1);
    let owned = (service.to_owned(), name.to_owned());
    // On a thread of its own: the library blocks, and its deadlines are not ours.
    std::thread::Builder::new()
        .name("keyring".into())
        .spawn(move || {
            let _ = tell.send(ask(&owned.0, &owned.1));
        })
        .map_err(|error| format!("cannot be asked for: {error}"))?;
    told.recv_timeout(DEADLINE).unwrap_or_else(|_| {
        Err(format!("was not answered within {} s; unlock the keyring, or use env:NAME", DEADLINE.as_secs()))
    })
}

fn ask(service: &str, name: &str) -> Result<String, String> {
    let found = Store::new().and_then(|store| store.build(service, name, None)).and_then(|entry| entry.get_password());
    // Never the debug form of an error: some carry what was found.
    match found {
        Ok(secret) if secret.trim().is_empty() => Err("is empty in the keyring".into()),
        Ok(secret) => Ok(secret.trim().to_owned()),
        Err(Error::NoEntry) => Err(format!(
            "is not in the keyring; `secret-tool store --label=microsandbox service {service} username {name}` puts it there"
        )),
        Err(Error::NoStorageAccess(error)) => {
            Err(format!("is in a keyring that cannot be opened ({error}); unlock it, or use env:NAME"))
        }
        Err(Error::BadEncoding(_) | Error::BadDataFormat(..)) => Err("is no text in the keyring".into()),
        Err(Error::Ambiguous(_)) => Err("is in the keyring more than once; remove all but one".into()),
        Err(error) => Err(format!("needs the Secret Service of a session ({error}); start one, or use env:NAME")),
    }
}
