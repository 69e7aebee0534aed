//! The image store: archives become layers on disk and rows in the database.
//!
//! | module | holds |
//! |---|---|
//! | [`reference`] | names, and which of them mean the same image |
//! | [`archive`], [`tar_index`] | an archive as a seekable file, and the positions of its members |
//! | [`source`] | archives, image layouts and daemons, by the text that names them |
//! | [`document`], [`plan`] | manifests and configurations, and the images they describe |
//! | [`cache`] | unpacked layers on disk |
//! | [`blobs`] | compressed layers and documents on disk, as their authors stored them |
//! | [`leases`] | what running operations use, so that no removal deletes it |
//! | [`credentials`] | who a registry takes us for |
//! | [`load`], [`keep`] | importing an archive, and keeping its compressed layers |
//! | [`pull`], [`registry`] | fetching an image from its registry |
//! | [`choice`], [`platform`], [`endpoints`] | which image of an index, for which machine, from where |
//! | [`signature`] | what a policy demands that an image is signed with |
//! | [`restricted`] | images that only some clients of a server may use |
//! | [`save`], [`tar_writer`] | writing an archive |
//! | [`usage`] | what all of it uses of the disk |
//! | [`gc`] | removing what nothing needs |
//! | [`limits`], [`failure`] | the limits, and the errors of a refusal |

mod archive;
mod blobs;
mod cache;
mod choice;
pub mod credentials;
mod document;
mod endpoints;
mod failure;
mod gc;
mod keep;
mod leases;
mod limits;
mod load;
mod plan;
mod platform;
mod pull;
mod reference;
mod registry;
mod restricted;
mod save;
mod signature;
mod source;
mod tar_index;
mod tar_writer;
mod usage;

use std::path::PathBuf;

pub use gc::{prune, remove};
pub use leases::Lease;
pub use load::load;
pub use pull::{pull, ready};
pub use save::save;
pub use usage::usage;

use self::cache::LayerCache;
use self::document::Sha256Digest;
use self::failure::Near;
use self::reference::Reference;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{ImageDetail, ImageInfo};
use microsandbox_home::Home;

/// An image that is ready to boot from.
#[derive(Debug)]
pub struct ResolvedImage {
    pub detail: ImageDetail,
    /// Bottom first.
    pub layer_dirs: Vec<PathBuf>,
    /// Keeps the image until something else does: the record of a sandbox.
    pub lease: Lease,
}

/// Every reference.
pub async fn list(home: &Home) -> MicrosandboxResult<Vec<ImageInfo>> {
    home.store().await?.images().await
}

pub async fn get(home: &Home, reference: &str) -> MicrosandboxResult<ImageInfo> {
    Ok(inspect(home, reference).await?.handle)
}

/// Finds an image by any spelling of its reference, or by `sha256:<hex>` of its manifest.
pub async fn inspect(home: &Home, reference: &str) -> MicrosandboxResult<ImageDetail> {
    match find(home, reference).await? {
        Some(detail) => Ok(detail),
        None => Err(missing(reference, Near::Shown)),
    }
}

/// The error for an image that is not in the store.
fn missing(reference: &str, near: Near) -> MicrosandboxError {
    MicrosandboxError::ImageNotFound(format!(
        "{reference} is not on this machine; pull it or load an archive of it first{}",
        near.path(reference)
    ))
}

/// An image of the store whose layers are there.
async fn complete(home: &Home, reference: &str) -> MicrosandboxResult<Option<ImageDetail>> {
    let Some(detail) = find(home, reference).await? else { return Ok(None) };
    Ok(layer_dirs(home, &diff_ids(&detail)).is_ok().then_some(detail))
}

/// The image and its layers, for `operation`: "create sandbox web". Nothing of it is removed while the lease is held.
pub async fn resolve(home: &Home, reference: &str, operation: String) -> MicrosandboxResult<ResolvedImage> {
    let lock = LayerCache::open(home)?.lock_shared().await?;
    let detail = inspect(home, reference).await?;
    let diff_ids = diff_ids(&detail);
    let manifest = detail.handle.manifest_digest.as_deref().and_then(|digest| Sha256Digest::parse(digest).ok());
    let lease = Lease::under(home, &lock, operation, chain(&diff_ids).into_iter().chain(manifest))?;
    drop(lock);
    let layer_dirs = layer_dirs(home, &diff_ids)?;
    Ok(ResolvedImage { detail, layer_dirs, lease })
}

/// The directories of these layers, bottom first.
pub fn layer_dirs(home: &Home, diff_ids: &[String]) -> MicrosandboxResult<Vec<PathBuf>> {
    let root = cache::directory(home);
    let missing = |diff_id: &str| {
        MicrosandboxError::ImageNotFound(format!("its layer {diff_id} is not in the cache; load it again"))
    };
    let mut dirs = Vec::with_capacity(diff_ids.len());
    let ids = parse_all(diff_ids).ok_or_else(|| missing("of an unknown kind"))?;
    for (diff_id, chain_id) in diff_ids.iter().zip(Sha256Digest::chain(&ids)) {
        let dir = root.join(chain_id.hex());
        if !dir.is_dir() {
            return Err(missing(diff_id));
        }
        dirs.push(dir);
    }
    Ok(dirs)
}

fn diff_ids(detail: &ImageDetail) -> Vec<String> {
    detail.layers.iter().map(|layer| layer.diff_id.clone()).collect()
}

/// The chain ids of these layers; none, if they are of an unknown kind.
fn chain(diff_ids: &[String]) -> Vec<Sha256Digest> {
    Sha256Digest::chain(&parse_all(diff_ids).unwrap_or_default())
}

fn parse_all(diff_ids: &[String]) -> Option<Vec<Sha256Digest>> {
    diff_ids.iter().map(|id| Sha256Digest::parse(id).ok()).collect()
}

/// Whether two references are spellings of one.
fn same_image(one: &str, other: &str) -> bool {
    match (Reference::parse(one), Reference::parse(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

async fn find(home: &Home, text: &str) -> MicrosandboxResult<Option<ImageDetail>> {
    let store = home.store().await?;
    if let Some(detail) = store.image(text).await? {
        return Ok(Some(detail));
    }
    if Sha256Digest::parse(text).is_ok() {
        return by_digest(home, text, None).await;
    }
    let reference = Reference::parse(text).map_err(MicrosandboxError::InvalidConfig)?;
    if let Some(digest) = reference.digest() {
        // Pulled by the digest of an index, which is not that of its own manifest.
        if let Some(detail) = store.image(&reference.canonical()).await? {
            return Ok(Some(detail));
        }
        return by_digest(home, digest, Some(&reference)).await;
    }
    for spelling in reference.spellings() {
        if let Some(detail) = store.image(&spelling).await? {
            return Ok(Some(detail));
        }
    }
    Ok(None)
}

/// The image with this manifest, under a name of the same repository if one is demanded.
async fn by_digest(
    home: &Home,
    digest: &str,
    repository: Option<&Reference>,
) -> MicrosandboxResult<Option<ImageDetail>> {
    let store = home.store().await?;
    for image in store.images().await? {
        let fits = repository
            .is_none_or(|wanted| Reference::parse(&image.reference).is_ok_and(|known| known.same_repository(wanted)));
        if fits && image.manifest_digest.as_deref() == Some(digest) {
            return store.image(&image.reference).await;
        }
    }
    Ok(None)
}
