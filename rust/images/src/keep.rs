//! Keeping the compressed layers and the documents of an archive that is imported.

use std::sync::{Arc, Mutex};

use super::archive::{Archive, Cancelled};
use super::blobs::{Begun, Blobs, Part};
use super::document::Sha256Digest;
use super::failure::{Failure, blocking};
use super::load::CancelOnDrop;
use super::plan::{PlannedImage, PlannedLayer};
use super::tar_index::Extent;
use microsandbox_core::error::MicrosandboxResult;
use microsandbox_home::Home;
use microsandbox_home::failpoint::failpoint;

/// Copies from an archive to the blob store, beside the unpacking.
pub struct Keeping {
    /// `None`: the configuration says that nothing is kept.
    blobs: Option<Blobs>,
    archive: Arc<Archive>,
    /// What was not there before.
    added: Mutex<Vec<Sha256Digest>>,
}

impl Keeping {
    pub fn new(home: &Home, archive: Arc<Archive>) -> MicrosandboxResult<Keeping> {
        let blobs = home.config().images.keep_blobs.then(|| Blobs::open(home)).transpose()?;
        Ok(Keeping { blobs, archive, added: Mutex::default() })
    }

    /// Layers first: the manifest is there when all that it names is there.
    pub async fn keep(&self, images: &[PlannedImage], layers: &[&PlannedLayer]) -> Result<(), Failure> {
        let Some(blobs) = &self.blobs else { return Ok(()) };
        for layer in layers {
            self.copy(blobs, &layer.blob_digest, layer.extent).await?;
        }
        for image in images {
            self.copy(blobs, &Sha256Digest::parse(&image.config.digest)?, image.documents.config).await?;
            match image.documents.manifest {
                Some(extent) => self.copy(blobs, &image.manifest_digest, extent).await?,
                None => {
                    let (blobs, manifest) = (blobs.clone(), image.made_manifest());
                    let stored = blocking(move || blobs.put(&manifest)).await?;
                    self.note(stored);
                }
            }
        }
        Ok(())
    }

    async fn copy(&self, blobs: &Blobs, digest: &Sha256Digest, extent: Extent) -> Result<(), Failure> {
        let Begun::Part(part) = blobs.begin(digest, extent.length, &|_| {}).await? else { return Ok(()) };
        let cancelled = Cancelled::default();
        let _guard = CancelOnDrop(cancelled.clone());
        let archive = self.archive.clone();
        blocking(move || copy(&archive, extent, part, &cancelled)).await?;
        self.note(digest.clone());
        Ok(())
    }

    fn note(&self, digest: Sha256Digest) {
        self.added.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(digest);
    }

    /// What was not there before, for an import that failed.
    pub fn added(&self) -> Vec<Sha256Digest> {
        self.added.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

fn copy(archive: &Archive, extent: Extent, mut part: Box<Part>, cancelled: &Cancelled) -> Result<(), Failure> {
    let copied = archive.each_chunk(extent, part.offset(), &mut |bytes| {
        cancelled.check()?;
        part.append(bytes)
    });
    if let Err(failure) = copied {
        // The archive is at hand: the next import begins anew.
        part.discard();
        return Err(failure);
    }
    failpoint("blob_written");
    part.finish()?;
    Ok(())
}
