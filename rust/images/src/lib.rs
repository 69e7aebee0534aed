//! The image store: archives become layers on disk and rows in the database.
//!
//! | module | holds |
//! |---|---|
//! | [`reference`] | names, and which of them mean the same image |
//! | [`archive`], [`tar_index`] | an archive as a seekable file, and the positions of its members |
//! | [`document`], [`plan`] | manifests and configurations, and the images they describe |
//! | [`cache`] | unpacked layers on disk |
//! | [`blobs`] | compressed layers and documents on disk, as their authors stored them |
//! | [`leases`] | what running operations use, so that no removal deletes it |
//! | [`credentials`] | who a registry takes us for |
//! | [`blobs`] | compressed layers and documents on disk, as their authors stored them |
//! | [`leases`] | what running operations use, so that no removal deletes it |
//! | [`load`] | importing an archive |
//! | [`pull`], [`registry`] | fetching an image from its registry |
//! | [`choice`], [`platform`], [`endpoints`] | which image of an index, for which machine, from where |
//! | [`limits`], [`failure`] | the limits, and the errors of a refusal |

mod archive;
#[allow(dead_code, reason = "the users of the blob store come next")]
mod blobs;
mod cache;
mod choice;
pub mod credentials;
mod document;
mod endpoints;
mod failure;
#[allow(dead_code, reason = "the users of leases come next")]
mod leases;
mod limits;
mod load;
mod plan;
mod platform;
mod pull;
mod reference;
mod registry;
mod tar_index;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use load::load;
pub use pull::{pull, ready};

use self::cache::LayerCache;
use self::document::Sha256Digest;
use self::reference::Reference;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{ImageDetail, ImageInfo, ImagePruneReport, SandboxSpec};
use microsandbox_home::Home;

/// Sandboxes read at a time.
const SANDBOX_PAGE: u32 = 100;

/// An image that is ready to boot from.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    pub detail: ImageDetail,
    /// Bottom first.
    pub layer_dirs: Vec<PathBuf>,
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
        None => Err(missing(reference)),
    }
}

/// The error for an image that is not in the store.
fn missing(reference: &str) -> MicrosandboxError {
    MicrosandboxError::ImageNotFound(format!(
        "{reference} is not on this machine; pull it or load an archive of it first{}",
        near(reference)
    ))
}

/// How to name the directory that the caller may have meant.
fn near(reference: &str) -> String {
    let here = match std::path::Path::new(reference).is_dir() {
        true => format!(": for the directory {reference} of the working directory write ./{reference}"),
        false => String::new(),
    };
    format!("; the path of a directory begins with / or ./{here}")
}

/// An image of the store whose layers are there.
async fn complete(home: &Home, reference: &str) -> MicrosandboxResult<Option<ImageDetail>> {
    let Some(detail) = find(home, reference).await? else { return Ok(None) };
    let diff_ids: Vec<String> = detail.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    Ok(layer_dirs(home, &diff_ids).is_ok().then_some(detail))
}

/// The image and its layers, for a new sandbox.
pub async fn resolve(home: &Home, reference: &str) -> MicrosandboxResult<ResolvedImage> {
    let detail = inspect(home, reference).await?;
    let diff_ids: Vec<String> = detail.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let layer_dirs = layer_dirs(home, &diff_ids)?;
    Ok(ResolvedImage { detail, layer_dirs })
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

fn parse_all(diff_ids: &[String]) -> Option<Vec<Sha256Digest>> {
    diff_ids.iter().map(|id| Sha256Digest::parse(id).ok()).collect()
}

/// Removes one reference, and the layers that nothing needs any more. An image that a sandbox is made from is refused
/// unless forced; then only the name goes, the sandbox keeps its layers.
pub async fn remove(home: &Home, reference: &str, force: bool) -> MicrosandboxResult<()> {
    let detail = inspect(home, reference).await?;
    let store = home.store().await?;
    let users = match &detail.handle.manifest_digest {
        Some(digest) => store.image_users(digest).await?,
        None => Vec::new(),
    };
    if let (Some(holder), false) = (users.into_iter().next(), force) {
        return Err(MicrosandboxError::ImageInUse { reference: reference.into(), holder });
    }
    let cache = LayerCache::open(home)?;
    let _alone = cache.lock_exclusive().await?;
    store.remove_image_ref(&detail.handle.reference).await?;
    free_layers(home, &cache).await?;
    Ok(())
}

/// Removes every image that no sandbox is made from, its layers, and what interrupted imports left.
pub async fn prune(home: &Home) -> MicrosandboxResult<ImagePruneReport> {
    let store = home.store().await?;
    let cache = LayerCache::open(home)?;
    let _alone = cache.lock_exclusive().await?;
    let mut report = ImagePruneReport::default();
    let mut manifests = BTreeSet::new();
    for image in store.images().await? {
        let digest = image.manifest_digest.unwrap_or_default();
        if !store.image_users(&digest).await?.is_empty() {
            report.skipped_in_use += 1;
        } else if store.remove_image_ref(&image.reference).await? {
            report.image_refs_removed += 1;
            manifests.insert(digest);
        }
    }
    report.manifests_removed = manifests.len() as u64;
    let (layers, bytes) = free_layers(home, &cache).await?;
    report.layers_removed = layers;
    report.bytes_reclaimed = Some(bytes);
    cache.sweep(home).await?;
    Ok(report)
}

/// Deletes the layers that neither an image nor a sandbox needs; their number and size. The caller holds the exclusive
/// lock, so no import is about to need one.
async fn free_layers(home: &Home, cache: &LayerCache) -> MicrosandboxResult<(u64, u64)> {
    let needed = needed_layers(home).await?;
    let (mut layers, mut bytes) = (0, 0);
    for chain_id in cache.layers()?.iter().filter(|id| !needed.contains(id)) {
        bytes += cache.facts(chain_id).unwrap_or_default().bytes;
        cache.delete(home, chain_id).await?;
        layers += 1;
    }
    // The rows follow the directories: a kill in between leaves rows that the next import reuses.
    home.store().await?.take_unused_layers().await?;
    Ok((layers, bytes))
}

/// The layers of every image that has a name, and of every sandbox: its image may have lost its own.
async fn needed_layers(home: &Home) -> MicrosandboxResult<BTreeSet<Sha256Digest>> {
    let store = home.store().await?;
    let mut needed = BTreeSet::new();
    let mut need = |diff_ids: &[String]| needed.extend(Sha256Digest::chain(&parse_all(diff_ids).unwrap_or_default()));
    for image in store.images().await? {
        if let Some(detail) = store.image(&image.reference).await? {
            need(&detail.layers.into_iter().map(|layer| layer.diff_id).collect::<Vec<_>>());
        }
    }
    let mut below = None;
    loop {
        let page = store.sandboxes(below, SANDBOX_PAGE, &BTreeMap::new()).await?;
        for (row, _) in page.rows {
            let spec: SandboxSpec = serde_json::from_str(&row.config_json)
                .map_err(|e| MicrosandboxError::json(format!("configuration of sandbox {}", row.name), e))?;
            need(&spec.image_defaults.diff_ids);
        }
        match page.next {
            Some(next) => below = Some(next),
            None => return Ok(needed),
        }
    }
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
