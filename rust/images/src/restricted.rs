//! Images that a client of a server fetched with credentials of its own. The store is shared: another client may use one only if its
//! registry shows it to that client as well, which each creation asks anew.

use std::path::PathBuf;

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_home::Home;

use super::document::Sha256Digest;

/// A file for each, named for its manifest.
fn place(home: &Home, manifest: &Sha256Digest) -> PathBuf {
    home.cache_dir().join("restricted").join(manifest.hex())
}

/// Whether a client's creation has to ask the registry of this image first. What has no valid digest is no image of a registry.
pub fn is_restricted(home: &Home, manifest: Option<&str>) -> bool {
    let manifest = manifest.and_then(|digest| Sha256Digest::parse(digest).ok());
    manifest.is_some_and(|manifest| place(home, &manifest).exists())
}

/// Before the image has a name, so that it is never found unmarked.
pub fn restrict(home: &Home, manifest: &Sha256Digest) -> MicrosandboxResult<()> {
    let place = place(home, manifest);
    let failed = |error| MicrosandboxError::io("write", &place, error);
    if let Some(directory) = place.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    std::fs::File::create(&place).map(drop).map_err(failed)
}

/// The owner of the home, or a request without credentials, has fetched it: it is everybody's.
pub fn release(home: &Home, manifest: &Sha256Digest) {
    // Where it stays, creations ask the registry, as before.
    let _ = std::fs::remove_file(place(home, manifest));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_restricted_until_it_is_released() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(microsandbox_core::config::LocalConfig::default_for_home(directory.path()));
        let text = format!("sha256:{}", "ab".repeat(32));
        let digest = Sha256Digest::parse(&text).unwrap();
        assert!(!is_restricted(&home, Some(&text)) && !is_restricted(&home, None) && !is_restricted(&home, Some("x")));
        restrict(&home, &digest).unwrap();
        restrict(&home, &digest).unwrap();
        assert!(is_restricted(&home, Some(&text)));
        release(&home, &digest);
        release(&home, &digest);
        assert!(!is_restricted(&home, Some(&text)));
    }
}
