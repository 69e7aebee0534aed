//! Which manifest of an index is pulled.

use std::collections::{BTreeSet, VecDeque};

use super::blobs::Blobs;
use super::document::{self, Descriptor, Kind, MAX_INDEX_DEPTH, Sha256Digest};
use super::failure::{Failure, corrupt, limit, mismatch};
use super::platform::{Others, Wanted};
use super::registry::{Document, Upstream};
use microsandbox_core::error::MicrosandboxError;

/// Manifests and indexes of one pull.
const MAX_DOCUMENTS: usize = 32;

/// A manifest for the wanted platform.
pub struct Chosen {
    pub manifest: Document,
    /// Indexes that lead to it, outermost first.
    pub indexes: Vec<Document>,
}

/// Follows indexes to a manifest.
pub struct Choice<'a> {
    pub wanted: &'a Wanted,
    pub blobs: &'a Blobs,
    /// `None`: only documents that are stored are read.
    pub upstream: Option<&'a Upstream>,
    /// For errors.
    pub name: &'a str,
}

impl Choice<'_> {
    pub async fn from(&self, top: Document) -> Result<Chosen, Failure> {
        let mut others = Others::default();
        let mut seen = BTreeSet::from([top.digest.clone()]);
        let mut indexes = Vec::new();
        let mut queue = VecDeque::from([(top, 0_usize)]);
        while let Some((document, depth)) = queue.pop_front() {
            match document::kind_of(&document.media_type) {
                Kind::Manifest => return Ok(Chosen { manifest: document, indexes }),
                Kind::Index if depth >= MAX_INDEX_DEPTH => {
                    return Err(limit(format!("indexes are nested deeper than {MAX_INDEX_DEPTH}")));
                }
                Kind::Index => {}
                Kind::Other => {
                    let (digest, kind) = (document.digest.as_str(), &document.media_type);
                    return Err(corrupt(format!("manifest {digest} is a {kind:?}, which is no image")));
                }
            }
            let what = format!("index {}", document.digest.as_str());
            let named = document::index(&document.bytes, &what, Some(&document.media_type))?;
            for descriptor in self.candidates(named, &mut others) {
                if !seen.insert(Sha256Digest::parse(&descriptor.digest)?) {
                    continue;
                }
                if seen.len() > MAX_DOCUMENTS {
                    return Err(limit(format!("the image has more than {MAX_DOCUMENTS} manifests and indexes")));
                }
                queue.push_back((self.inner(&descriptor).await?, depth + 1));
                if descriptor.kind() == Kind::Manifest {
                    break;
                }
            }
            indexes.push(document);
        }
        Err(self.nothing(&others.list()))
    }

    /// The descriptors of an index that may lead to an image for the platform, the best first.
    fn candidates(&self, named: Vec<Descriptor>, others: &mut Others) -> Vec<Descriptor> {
        let mut ranked = Vec::new();
        for descriptor in named {
            match (&descriptor.platform, descriptor.kind()) {
                (_, Kind::Other) => {}
                (Some(platform), _) => match self.wanted.rank(platform) {
                    Some(rank) => ranked.push((rank, descriptor)),
                    None => others.note(&platform.os, &platform.architecture, platform.variant.as_deref()),
                },
                // What an entry without a platform leads to is seen when it is read.
                (None, _) => ranked.push((u32::MAX, descriptor)),
            }
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, descriptor)| descriptor).collect()
    }

    /// A document that an index names: stored already, or fetched.
    async fn inner(&self, descriptor: &Descriptor) -> Result<Document, Failure> {
        let digest = Sha256Digest::parse(&descriptor.digest)?;
        let stored = stored(self.blobs, &digest).await;
        let document = match (stored, self.upstream) {
            (Some(bytes), _) => Document { digest, media_type: descriptor.media_type.clone(), bytes },
            (None, Some(upstream)) => upstream.manifest(digest.as_str()).await?,
            (None, None) => return Err(corrupt(format!("{} is not stored", digest.as_str()))),
        };
        let (name, size) = (document.digest.as_str(), document.bytes.len() as u64);
        if size != descriptor.size {
            return Err(mismatch(format!("{name} has {size} bytes, its descriptor says {}", descriptor.size)));
        }
        if document.media_type != descriptor.media_type {
            let (is, claimed) = (&document.media_type, &descriptor.media_type);
            return Err(corrupt(format!("{name} came as {is:?}, its descriptor says {claimed:?}")));
        }
        Ok(document)
    }

    /// The error where nothing fits.
    pub fn nothing(&self, others: &str) -> Failure {
        let others = if others.is_empty() { "for no platform at all" } else { others };
        let (name, wanted) = (self.name, self.wanted.describe());
        Failure::Other(MicrosandboxError::ImageNotFound(format!("{name} has no image for {wanted}, only {others}")))
    }
}

/// A document of the blob store, its digest verified.
pub async fn stored(blobs: &Blobs, digest: &Sha256Digest) -> Option<Vec<u8>> {
    let (blobs, digest) = (blobs.clone(), digest.clone());
    // One that is damaged is fetched again.
    tokio::task::spawn_blocking(move || blobs.document(&digest).ok().flatten()).await.ok().flatten()
}

/// A manifest or index of the blob store that says what it is.
pub async fn stored_document(blobs: &Blobs, digest: &Sha256Digest) -> Option<Document> {
    let bytes = stored(blobs, digest).await?;
    let media_type = document::own_media_type(&bytes, "the stored document").ok()?;
    Some(Document { digest: digest.clone(), media_type, bytes })
}
