//! What the image store uses of the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use microsandbox_core::error::MicrosandboxResult;
use microsandbox_core::model::{StorageCategory, StorageItem};
use microsandbox_home::disk_use::{self, Count};
use microsandbox_home::{Home, blocking};

use super::blobs::Blobs;
use super::document::Sha256Digest;
use super::{cache, chain, diff_ids};

/// Name of the item that holds what belongs to no image.
const UNREFERENCED: &str = "(not part of an image)";

/// The images with their layers and blobs. What images share is in each of them, and once in the sums.
pub async fn usage(home: &Home, most: usize) -> MicrosandboxResult<StorageCategory> {
    let store = home.store().await?;
    let mut images = Vec::new();
    for info in store.images().await? {
        let Some(detail) = store.image(&info.reference).await? else { continue };
        let users = store.image_users(info.manifest_digest.as_deref().unwrap_or_default()).await?;
        let layers = chain(&diff_ids(&detail));
        let mut blobs: BTreeSet<String> = detail.layers.into_iter().map(|layer| layer.blob_digest).collect();
        blobs.extend(detail.config.map(|config| config.digest));
        blobs.extend(info.manifest_digest);
        images.push(Held { reference: info.reference, users, layers, blobs });
    }
    let (root, blobs) = (cache::directory(home), Blobs::of(home));
    blocking(move || measure(&images, &root, &blobs, most)).await
}

struct Held {
    reference: String,
    users: Vec<String>,
    layers: Vec<Sha256Digest>,
    blobs: BTreeSet<String>,
}

fn measure(images: &[Held], root: &Path, blobs: &Blobs, most: usize) -> MicrosandboxResult<StorageCategory> {
    let mut parts: BTreeMap<String, Count> = BTreeMap::new();
    for (digest, stored) in blobs.stored()? {
        parts.insert(digest.as_str().to_owned(), Count::of_file(stored.size, stored.allocated));
    }
    for part in blobs.parts()? {
        parts.insert(part.path.display().to_string(), Count::of_file(part.size, part.allocated));
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let name = entry.file_name().to_string_lossy().into_owned();
        parts.insert(format!("layer {name}"), disk_use::tree(&entry.path(), most));
    }
    let sum = |keys: &mut dyn Iterator<Item = &String>| {
        keys.filter_map(|key| parts.get(key)).fold(Count::default(), |sum, part| sum.and(*part))
    };
    let mut category = StorageCategory::default();
    let (mut owned, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for image in images {
        let mut keys: BTreeSet<String> = image.layers.iter().map(|layer| format!("layer {}", layer.hex())).collect();
        keys.extend(image.blobs.iter().cloned());
        let used = sum(&mut keys.iter());
        owned.extend(keys.iter().cloned());
        if !image.users.is_empty() {
            needed.extend(keys);
        }
        category.add(item(&image.reference, root, used, &image.users));
    }
    let rest = sum(&mut parts.keys().filter(|key| !owned.contains(*key)));
    if rest.files() > 0 {
        let mut item = item(UNREFERENCED, root, rest, &[]);
        item.reasons = vec!["msb prune removes it".into()];
        category.items.push(item);
    }
    let whole = sum(&mut parts.keys());
    (category.logical_bytes, category.allocated_bytes) = (whole.content(), whole.allocated());
    category.reclaimable_logical_bytes = Some(whole.content().saturating_sub(sum(&mut needed.iter()).content()));
    if whole.is_partial {
        category
            .notes
            .push(format!("a layer has more than {most} entries or unreadable ones: its size is a part of it"));
    }
    Ok(category)
}

fn item(name: &str, root: &Path, used: Count, users: &[String]) -> StorageItem {
    StorageItem {
        name: name.to_owned(),
        path: root.display().to_string(),
        logical_bytes: used.content(),
        allocated_bytes: used.allocated(),
        in_use: !users.is_empty(),
        reclaimable: users.is_empty(),
        reasons: users.iter().map(|user| format!("sandbox {user}")).collect(),
    }
}
