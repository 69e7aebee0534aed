//! Where an image may come from: the mirrors of its registry in their order, the registry last. What they say is verified alike,
//! so a mirror that fails or lies only costs time.

use std::sync::atomic::{AtomicBool, Ordering};

use super::client::Client;
use super::documents::Document;
use crate::blobs::{Blob, Blobs};
use crate::document::{Descriptor, Sha256Digest};
use crate::failure::Failure;
use microsandbox_core::error::{ImageErrorKind, MicrosandboxError};

pub struct Upstream {
    mirrors: Vec<Mirror>,
    registry: Client,
}

struct Mirror {
    client: Client,
    /// It did not respond, and is not asked again in this pull.
    is_silent: AtomicBool,
}

impl Upstream {
    pub fn new(mirrors: Vec<Client>, registry: Client) -> Upstream {
        let mirrors = mirrors.into_iter().map(|client| Mirror { client, is_silent: AtomicBool::new(false) });
        Upstream { mirrors: mirrors.collect(), registry }
    }

    /// What a tag means now. `None`: no one says.
    pub async fn digest_of(&self, tag: &str) -> Result<Option<Sha256Digest>, Failure> {
        for mirror in self.mirrors() {
            match mirror.client.digest_of(tag).await {
                Ok(Some(digest)) => return Ok(Some(digest)),
                Ok(None) => {}
                Err(failure) => mirror.passed_over(failure)?,
            }
        }
        self.registry.digest_of(tag).await
    }

    pub async fn manifest(&self, reference: &str) -> Result<Document, Failure> {
        for mirror in self.mirrors() {
            match mirror.client.manifest(reference).await {
                Ok(document) => return Ok(document),
                Err(failure) => mirror.passed_over(failure)?,
            }
        }
        self.registry.manifest(reference).await
    }

    pub async fn document(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>, Failure> {
        for mirror in self.mirrors() {
            match mirror.client.document(descriptor, what).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => mirror.passed_over(failure)?,
            }
        }
        self.registry.document(descriptor, what).await
    }

    /// What stands beside an image. A mirror that lacks it proves nothing: the next one is asked.
    pub async fn companion(&self, path: &str, accept: &str, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        for mirror in self.mirrors() {
            match mirror.client.companion(path, accept, limit).await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                Err(failure) => mirror.passed_over(failure)?,
            }
        }
        self.registry.companion(path, accept, limit).await
    }

    /// The blob of a layer: stored already, or downloaded by this process or another; `grown` gets the bytes that are there.
    pub async fn layer(
        &self,
        blobs: &Blobs,
        digest: &Sha256Digest,
        size: u64,
        grown: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Blob, Failure> {
        for mirror in self.mirrors() {
            match mirror.client.layer(blobs, digest, size, grown).await {
                Ok(blob) => return Ok(blob),
                Err(failure) => mirror.passed_over(failure)?,
            }
        }
        self.registry.layer(blobs, digest, size, grown).await
    }

    fn mirrors(&self) -> impl Iterator<Item = &Mirror> {
        self.mirrors.iter().filter(|mirror| !mirror.is_silent.load(Ordering::Relaxed))
    }
}

impl Mirror {
    /// A failure of the mirror is no failure of the pull; one of this machine is.
    fn passed_over(&self, failure: Failure) -> Result<(), Failure> {
        match &failure {
            Failure::Image { kind, message } => {
                tracing::debug!(message, "a mirror is passed over");
                if matches!(kind, ImageErrorKind::Transport | ImageErrorKind::Stalled | ImageErrorKind::RateLimited) {
                    self.is_silent.store(true, Ordering::Relaxed);
                }
                Ok(())
            }
            Failure::Other(MicrosandboxError::ImageNotFound(_)) => Ok(()),
            Failure::Other(_) => Err(failure),
        }
    }
}
