//! Removing images, layers and blobs that nothing needs.
//!
//! What is needed is marked under the exclusive lock of the cache, which no operation that takes a lease holds for longer than a
//! moment; rows go first, then what goes gets a name that no reader looks for. The trees are deleted after the lock is
//! released. Only rename and unlink: it works where no byte is free.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use chrono::Utc;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{ImageHolder, ImagePruneReport, ImagePruneRequest, SandboxSpec};
use microsandbox_home::failpoint::failpoint;
use microsandbox_home::{Home, blocking, disk_use, headroom, tree};
use microsandbox_store::SandboxRow;

use super::blobs::{Blobs, Stored};
use super::cache::{CacheLock, LayerCache, Out};
use super::document::{self, MAX_DOCUMENT, MAX_INDEX_DEPTH, Sha256Digest};
use super::leases::{Lease, Leases};
use super::{chain, diff_ids, inspect};

/// A download that was not continued for this long is removed.
const PART_AGE: Duration = Duration::from_secs(24 * 3600);
/// Free space that is more than enough to remove rows.
const ROWS: u64 = 16 << 20;
/// Layers that are deleted side by side.
const DELETING: usize = 4;

/// Removes one reference, and the layers and blobs that nothing needs any more. An image that a sandbox is made from, or that a
/// running operation uses, is refused unless forced; then only the name goes.
pub async fn remove(home: &Home, reference: &str, force: bool) -> MicrosandboxResult<()> {
    let place = Place::open(home)?;
    let lock = place.cache.lock_exclusive().await?;
    let detail = inspect(home, reference).await?;
    let leases = Leases::read(home, &lock, true)?;
    let digest = detail.handle.manifest_digest.unwrap_or_default();
    if let (Some(holder), false) = (holder(home, &leases, &digest).await?, force) {
        return Err(MicrosandboxError::ImageInUse { reference: reference.into(), holder });
    }
    let gone = BTreeSet::from([detail.handle.reference]);
    let needed = Needed::find(home, &gone).await?;
    let victims = place.victims(&needed, &leases, false)?;
    place.forget(home, gone, &leases, &victims).await?;
    place.hide(home, victims, lock).await?.delete(home).await?;
    Ok(())
}

/// Removes every image that no sandbox and no operation needs, its layers and blobs, and what interrupted operations left.
pub async fn prune(home: &Home, request: ImagePruneRequest) -> MicrosandboxResult<ImagePruneReport> {
    let place = Place::open(home)?;
    let mut report = ImagePruneReport { dry_run: request.dry_run, ..ImagePruneReport::default() };
    let parts = place.parts(&request, &mut report)?;
    let lock = place.cache.lock_exclusive().await?;
    let leases = Leases::read(home, &lock, !request.dry_run)?;
    let gone = unused(home, &leases, &request, &mut report).await?;
    let needed = Needed::find(home, &gone).await?;
    // Blobs of layers that are unpacked serve only to save and verify: they go first where space is short.
    let short = headroom::check(home, place.cache.root(), || "prune".into()).is_err();
    let victims = place.victims(&needed, &leases, request.blobs || short)?;
    report.layers_removed = victims.layers.len() as u64;
    report.blobs_removed = victims.blobs.len() as u64;
    let blob_bytes: u64 = victims.blobs.iter().map(|blob| blob.allocated).sum();
    if request.dry_run {
        drop(lock);
        let bytes = place.measure(&victims).await?;
        report.bytes_reclaimed = Some(parts + blob_bytes + bytes);
        return Ok(report);
    }
    place.forget(home, gone, &leases, &victims).await?;
    failpoint("prune_rows");
    let hidden = place.hide(home, victims, lock).await?;
    failpoint("prune_hidden");
    let bytes = hidden.delete(home).await?;
    report.bytes_reclaimed = Some(parts + blob_bytes + bytes);
    place.cache.sweep(home).await?;
    Ok(report)
}

/// The references that go; counts them and names what stays because it is in use.
async fn unused(
    home: &Home,
    leases: &Leases,
    request: &ImagePruneRequest,
    report: &mut ImagePruneReport,
) -> MicrosandboxResult<BTreeSet<String>> {
    let (mut gone, mut manifests) = (BTreeSet::new(), BTreeSet::new());
    if request.dangling {
        return Ok(gone);
    }
    let oldest =
        request.older_than.map(|age| Utc::now() - chrono::Duration::from_std(age).unwrap_or(chrono::Duration::MAX));
    for image in home.store().await?.images().await? {
        let used = image.last_used_at.max(image.created_at);
        if let (Some(oldest), Some(used)) = (oldest, used)
            && used > oldest
        {
            continue;
        }
        let digest = image.manifest_digest.unwrap_or_default();
        if let Some(holder) = holder(home, leases, &digest).await? {
            report.skipped_in_use += 1;
            report.in_use.push(ImageHolder { reference: image.reference, holder });
            continue;
        }
        report.image_refs_removed += 1;
        report.removed.push(image.reference.clone());
        gone.insert(image.reference);
        manifests.insert(digest);
    }
    report.manifests_removed = manifests.len() as u64;
    Ok(gone)
}

/// What needs the image with this manifest.
async fn holder(home: &Home, leases: &Leases, manifest: &str) -> MicrosandboxResult<Option<String>> {
    let store = home.store().await?;
    if let Some(sandbox) = store.image_users(manifest).await?.into_iter().next() {
        return Ok(Some(sandbox));
    }
    if let Some(snapshot) = store.image_snapshots(manifest).await?.into_iter().next() {
        return Ok(Some(format!("snapshot {snapshot}")));
    }
    Ok(leases.holder(manifest).map(str::to_owned))
}

/// What images with a name and sandboxes need.
#[derive(Debug, Default)]
struct Needed {
    layers: BTreeSet<Sha256Digest>,
    /// Compressed layers, configurations and manifests.
    blobs: BTreeSet<String>,
    /// Those of `blobs` that are layers.
    layer_blobs: BTreeSet<String>,
}

impl Needed {
    /// Of every image except those whose reference is in `gone`, and of every sandbox: its image may have lost its name.
    async fn find(home: &Home, gone: &BTreeSet<String>) -> MicrosandboxResult<Needed> {
        let mut needed = Needed::default();
        let store = home.store().await?;
        for image in store.images().await?.into_iter().filter(|image| !gone.contains(&image.reference)) {
            let Some(detail) = store.image(&image.reference).await? else { continue };
            needed.layers.extend(chain(&diff_ids(&detail)));
            needed.blobs.extend(detail.handle.manifest_digest);
            needed.blobs.extend(detail.config.map(|config| config.digest));
            needed.layer_blobs.extend(detail.layers.into_iter().map(|layer| layer.blob_digest));
        }
        needed.blobs.extend(needed.layer_blobs.iter().cloned());
        let of_sandbox = |row: SandboxRow| {
            let spec: SandboxSpec = serde_json::from_str(&row.config_json)
                .map_err(|e| MicrosandboxError::json(format!("configuration of sandbox {}", row.name), e))?;
            needed.layers.extend(chain(&spec.image_defaults.diff_ids));
            Ok(())
        };
        store.each_sandbox(of_sandbox).await?;
        Ok(needed)
    }
}

/// The two parts of the cache.
struct Place {
    cache: LayerCache,
    blobs: Blobs,
}

/// What goes.
#[derive(Debug)]
struct Victims {
    layers: Vec<Sha256Digest>,
    blobs: Vec<Stored>,
}

/// Trees that have no name any more which a reader looks for.
#[derive(Debug, Default)]
struct Hidden {
    trees: Vec<PathBuf>,
    /// Those that could not be renamed.
    stuck: Vec<PathBuf>,
    /// What was removed already.
    bytes: u64,
}

impl Place {
    fn open(home: &Home) -> MicrosandboxResult<Place> {
        Ok(Place { cache: LayerCache::open(home)?, blobs: Blobs::of(home) })
    }

    /// Removes downloads that are not continued; the bytes that they occupied.
    fn parts(&self, request: &ImagePruneRequest, report: &mut ImagePruneReport) -> MicrosandboxResult<u64> {
        let age = request.older_than.unwrap_or(PART_AGE).min(PART_AGE);
        let now = SystemTime::now();
        let mut bytes = 0;
        for part in self.blobs.parts()? {
            let old = now.duration_since(part.changed).is_ok_and(|since| since >= age);
            if old
                && (request.dry_run && !self.blobs.is_being_written(&part.path)
                    || !request.dry_run && self.blobs.remove_part(&part.path)?)
            {
                bytes += part.allocated;
                report.parts_removed += 1;
            }
        }
        Ok(bytes)
    }

    /// Layers and blobs that neither an image nor a sandbox nor an operation needs; with `layer_blobs` every compressed layer
    /// that no operation is using.
    fn victims(&self, needed: &Needed, leases: &Leases, layer_blobs: bool) -> MicrosandboxResult<Victims> {
        let mut layers = self.cache.layers()?;
        layers.retain(|id| !needed.layers.contains(id) && leases.holder(id.as_str()).is_none());
        let stored = self.blobs.stored()?;
        let indexes = self.indexes(needed, &stored);
        let goes = |digest: &Sha256Digest| {
            let text = digest.as_str();
            let unneeded = !needed.blobs.contains(text) || layer_blobs && needed.layer_blobs.contains(text);
            unneeded && !indexes.contains(text) && leases.holder(text).is_none()
        };
        let blobs = stored.into_iter().filter(|(digest, _)| goes(digest)).map(|(_, stored)| stored).collect();
        Ok(Victims { layers, blobs })
    }

    /// Removes the rows. Where the disk has little room for that, the blobs go first: an image without them is still an image.
    async fn forget(
        &self,
        home: &Home,
        gone: BTreeSet<String>,
        leases: &Leases,
        victims: &Victims,
    ) -> MicrosandboxResult<()> {
        let free = rustix::fs::statvfs(self.cache.root()).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        if free.is_ok_and(|free| free < ROWS) {
            victims.blobs.iter().try_for_each(|blob| self.blobs.remove(&blob.path))?;
        }
        home.store().await?.remove_images(&Vec::from_iter(gone), &leases.digests()).await.map(drop)
    }

    /// The indexes that lead to a manifest which stays: a pull compares them with those of the registry.
    fn indexes(&self, needed: &Needed, stored: &[(Sha256Digest, Stored)]) -> BTreeSet<String> {
        let mut indexes: BTreeSet<String> = BTreeSet::new();
        let small =
            stored.iter().filter(|(digest, blob)| blob.size <= MAX_DOCUMENT && !needed.blobs.contains(digest.as_str()));
        let named: Vec<(&Sha256Digest, Vec<String>)> = small
            .filter_map(|(digest, _)| {
                let bytes = self.blobs.document(digest).ok()??;
                let inner = document::index(&bytes, "a stored index", None).ok()?;
                Some((digest, inner.into_iter().map(|descriptor| descriptor.digest).collect()))
            })
            .collect();
        // One that names another is found in the next round.
        for _ in 0..MAX_INDEX_DEPTH {
            for (digest, inner) in &named {
                if inner.iter().any(|inner| needed.blobs.contains(inner) || indexes.contains(inner)) {
                    indexes.insert(digest.as_str().to_owned());
                }
            }
        }
        indexes
    }

    /// Unlinks the blobs and gives the layers names that no reader looks for, then releases the lock.
    async fn hide(&self, home: &Home, victims: Victims, lock: CacheLock) -> MicrosandboxResult<Hidden> {
        let (cache, blobs) = (self.cache.clone(), self.blobs.clone());
        let mut hidden = blocking(move || {
            for blob in &victims.blobs {
                blobs.remove(&blob.path)?;
            }
            let mut hidden = Hidden::default();
            for layer in &victims.layers {
                hidden.bytes += cache.marker_use(layer);
                match cache.hide(layer)? {
                    Out::Absent => {}
                    Out::Moved(grave) => hidden.trees.push(grave),
                    Out::Stuck(tree) => hidden.stuck.push(tree),
                }
            }
            Ok(hidden)
        })
        .await?;
        // Under its own name a tree may be deleted only while no import can put a new one in its place.
        for tree in std::mem::take(&mut hidden.stuck) {
            hidden.bytes += delete(home, tree).await?;
        }
        drop(lock);
        Ok(hidden)
    }

    async fn measure(&self, victims: &Victims) -> MicrosandboxResult<u64> {
        let paths: Vec<PathBuf> = victims.layers.iter().map(|layer| self.cache.layer_dir(layer)).collect();
        let markers: u64 = victims.layers.iter().map(|layer| self.cache.marker_use(layer)).sum();
        blocking(move || {
            Ok(markers + paths.iter().map(|path| disk_use::tree(path, disk_use::COUNTED).allocated()).sum::<u64>())
        })
        .await
    }
}

impl Hidden {
    /// Deletes the trees; the bytes that they occupied.
    async fn delete(self, home: &Home) -> MicrosandboxResult<u64> {
        let deletions = stream::iter(self.trees).map(|tree| delete(home, tree)).buffer_unordered(DELETING);
        deletions.try_fold(self.bytes, |sum, bytes| async move { Ok(sum + bytes) }).await
    }
}

/// Deletes a tree; the bytes that it occupied.
async fn delete(home: &Home, path: PathBuf) -> MicrosandboxResult<u64> {
    let measured = path.clone();
    let bytes = blocking(move || Ok(disk_use::tree(&measured, disk_use::COUNTED).allocated())).await?;
    tree::remove(home, &path).await?;
    Ok(bytes)
}

/// Removes the compressed layers of images that were unpacked, where the configuration says that none are kept; what another
/// operation uses stays.
pub async fn unless_kept(home: &Home, lease: &mut Lease, layers: &[Sha256Digest]) -> MicrosandboxResult<()> {
    if home.config().images.keep_blobs {
        return Ok(());
    }
    lease.give_up(home, layers).await?;
    let place = Place::open(home)?;
    let lock = place.cache.lock_exclusive().await?;
    let leases = Leases::read(home, &lock, true)?;
    for digest in layers.iter().filter(|digest| leases.holder(digest.as_str()).is_none()) {
        place.blobs.remove(&place.blobs.path(digest))?;
    }
    Ok(())
}

/// Removes blobs that an operation which failed has added, unless something needs them.
pub async fn forget(home: &Home, added: &[Sha256Digest]) -> MicrosandboxResult<()> {
    if added.is_empty() {
        return Ok(());
    }
    let place = Place::open(home)?;
    let lock = place.cache.lock_exclusive().await?;
    let leases = Leases::read(home, &lock, true)?;
    let needed = Needed::find(home, &BTreeSet::new()).await?;
    for digest in added {
        if !needed.blobs.contains(digest.as_str()) && leases.holder(digest.as_str()).is_none() {
            place.blobs.remove(&place.blobs.path(digest))?;
        }
    }
    Ok(())
}
