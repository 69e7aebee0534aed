//! Writing images to an archive, from the blobs that were kept: digests stay as they are.
//!
//! Both formats are an OCI image layout; that of Docker has the `manifest.json` of `docker save` beside it. A file appears
//! complete or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::archive::{Cancelled, STDIN as STDOUT, each_chunk};
use super::blobs::Blobs;
use super::cache::LayerCache;
use super::document::{self, Descriptor, OCI_INDEX, Sha256Digest};
use super::failure::{self, Failure, io, mismatch};
use super::leases::Lease;
use super::limits::is_look_due;
use super::load::CancelOnDrop;
use super::plan::{CONTAINERD_NAME, REF_NAME};
use super::reference::Reference;
use super::tar_index::Extent;
use super::tar_writer::TarWriter;
use microsandbox_contract::Headroom;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{ImageArchiveFormat, ImageDetail, ImageSaveRequest};
use microsandbox_home::failpoint::failpoint;
use microsandbox_home::layer_tree::sync_dir;
use microsandbox_home::{Home, headroom};

/// References of one archive: what [`super::load`] accepts.
const MAX_REFERENCES: usize = 1024;

/// Writes the images to `request.output`; `-` is standard output. Nothing is written before every image was found.
pub async fn save(home: &Home, request: ImageSaveRequest) -> MicrosandboxResult<()> {
    let ImageSaveRequest { references, output, format } = request;
    if references.is_empty() {
        return Err(MicrosandboxError::InvalidConfig("at least one image reference is needed".into()));
    }
    if references.len() > MAX_REFERENCES {
        let text = format!("{} images are more than an archive can have: {MAX_REFERENCES}", references.len());
        return Err(MicrosandboxError::InvalidConfig(text));
    }
    let lock = LayerCache::open(home)?.lock_shared().await?;
    let mut images: Vec<Named> = Vec::new();
    for text in &references {
        let detail = super::inspect(home, text).await?;
        add(&mut images, text, detail)?;
    }
    let lease = Lease::under(home, &lock, "save", images.iter().flat_map(Named::digests))?;
    drop(lock);
    let cancelled = Cancelled::default();
    let _guard = CancelOnDrop(cancelled.clone());
    let saving = Saving {
        blobs: Blobs::of(home),
        headroom: headroom::of(&home.config().disk),
        cancelled,
        format,
        // The work outlives a caller who is gone; what it reads stays until it ends.
        _lease: lease,
    };
    let path = output.clone();
    let saved = failure::blocking(move || saving.run(&images, &path)).await;
    saved.map_err(|failure| failure.during(&format!("save to {}", output.display())))
}

/// An image and the names that it gets in the archive.
#[derive(Debug)]
struct Named {
    manifest: Sha256Digest,
    detail: ImageDetail,
    /// Each with a tag.
    names: Vec<Reference>,
}

impl Named {
    fn digests(&self) -> impl Iterator<Item = Sha256Digest> {
        let layers = self.detail.layers.iter().map(|layer| layer.blob_digest.as_str());
        let config = self.detail.config.as_ref().map(|config| config.digest.as_str());
        let named = layers.chain(config).filter_map(|digest| Sha256Digest::parse(digest).ok());
        named.chain([self.manifest.clone()])
    }
}

/// Adds an image that was asked for as `text`; a digest gives no name.
fn add(images: &mut Vec<Named>, text: &str, detail: ImageDetail) -> MicrosandboxResult<()> {
    let digest = detail.handle.manifest_digest.as_deref().unwrap_or_default();
    let manifest = Sha256Digest::parse(digest)
        .map_err(|_| MicrosandboxError::InvalidState(format!("{text} cannot be saved: its manifest is not known")))?;
    let name = match Sha256Digest::parse(text) {
        Ok(_) => None,
        Err(_) => Reference::parse(text).ok().filter(Reference::has_tag).map(Reference::without_digest),
    };
    let at = match images.iter().position(|image| image.manifest == manifest) {
        Some(at) => at,
        None => {
            images.push(Named { manifest, detail, names: Vec::new() });
            images.len() - 1
        }
    };
    let names = &mut images[at].names;
    names.extend(name.filter(|name| !names.contains(name)));
    Ok(())
}

struct Saving {
    blobs: Blobs,
    headroom: Headroom,
    cancelled: Cancelled,
    format: ImageArchiveFormat,
    _lease: Lease,
}

/// What an archive holds beside its blobs, and the blobs.
#[derive(Debug, Default)]
struct Content {
    index: Vec<Value>,
    docker: Vec<Value>,
    /// With their sizes.
    blobs: BTreeMap<Sha256Digest, u64>,
}

impl Saving {
    fn run(&self, images: &[Named], output: &Path) -> Result<(), Failure> {
        let content = self.content(images)?;
        if output == Path::new(STDOUT) {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned().map_err(|e| io("open", output, e))?;
            return self.write(&content, File::from(stdout), output, None);
        }
        let target = std::fs::canonicalize(output).unwrap_or_else(|_| output.to_owned());
        match target.metadata() {
            Ok(meta) if meta.is_dir() => {
                let text = format!("{} is a directory; give the path of the archive", output.display());
                Err(Failure::Other(MicrosandboxError::InvalidConfig(text)))
            }
            // A pipe or a device is written to, not replaced.
            Ok(meta) if !meta.is_file() => {
                let file = File::options().write(true).open(&target).map_err(|e| io("open", output, e))?;
                self.write(&content, file, output, None)
            }
            _ => self.replace(&content, &target),
        }
    }

    /// Writes beside `target` and renames.
    fn replace(&self, content: &Content, target: &Path) -> Result<(), Failure> {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".msb-save-").tempfile_in(parent);
        let file = file.map_err(|e| io("create a file in", parent, e))?;
        let writer = file.as_file().try_clone().map_err(|e| io("open", target, e))?;
        self.write(content, writer, target, Some(parent))?;
        file.as_file().sync_all().map_err(|e| io("sync", target, e))?;
        failpoint("save_written");
        file.persist(target).map_err(|e| io("write", target, e.error))?;
        Ok(sync_dir(parent)?)
    }

    /// What the archive holds; every blob of it is there.
    fn content(&self, images: &[Named]) -> Result<Content, Failure> {
        let tags = images.iter().flat_map(|image| &image.names).map(Reference::tag);
        let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
        for tag in tags {
            if !once.insert(tag) {
                twice.insert(tag);
            }
        }
        let mut content = Content::default();
        for image in images {
            let what = image.names.first().map_or_else(|| image.manifest.as_str().to_owned(), Reference::canonical);
            let bytes = self.blobs.document(&image.manifest)?.ok_or_else(|| not_kept(&what, &image.manifest))?;
            let (media_type, manifest) = document::stored_manifest(&bytes, &what)?;
            content.blobs.insert(image.manifest.clone(), bytes.len() as u64);
            let config = self.add(&mut content, &manifest.config, &what)?;
            let mut layers = Vec::with_capacity(manifest.layers.len());
            for layer in &manifest.layers {
                layers.push(self.add(&mut content, layer, &what)?.blob_path());
            }
            let entry = json!({"mediaType": media_type, "digest": image.manifest.as_str(), "size": bytes.len()});
            if image.names.is_empty() {
                content.index.push(entry.clone());
            }
            for name in &image.names {
                let tag = name.tag();
                // Tools that know nothing but this annotation find the image by it, so it must be unambiguous.
                let short = if twice.contains(tag) { name.full() } else { tag.to_owned() };
                let mut named = entry.clone();
                named["annotations"] = json!({REF_NAME: short, CONTAINERD_NAME: name.full()});
                content.index.push(named);
            }
            let tags: Vec<String> = image.names.iter().map(Reference::canonical).collect();
            content.docker.push(json!({"Config": config.blob_path(), "RepoTags": tags, "Layers": layers}));
        }
        Ok(content)
    }

    fn add(&self, content: &mut Content, descriptor: &Descriptor, what: &str) -> Result<Sha256Digest, Failure> {
        let digest = Sha256Digest::parse(&descriptor.digest)?;
        let blob = self.blobs.get(&digest)?.ok_or_else(|| not_kept(what, &digest))?;
        if blob.size != descriptor.size {
            return Err(damaged(what, &digest));
        }
        content.blobs.insert(digest.clone(), blob.size);
        Ok(digest)
    }

    /// Writes the archive. `place` is where its file grows.
    fn write(&self, content: &Content, file: File, output: &Path, place: Option<&Path>) -> Result<(), Failure> {
        let check = |file: &File, before, after| match place {
            Some(place) if is_look_due(before, after) => {
                headroom::check_open(self.headroom, file, place, || "save images".into()).map_err(Failure::Other)
            }
            _ => Ok(()),
        };
        let mut out = TarWriter { file, check: &check, failed: &|e| io("write", output, e), written: 0 };
        for (digest, size) in &content.blobs {
            self.blob(&mut out, output, digest, *size)?;
        }
        out.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": content.index});
        out.document("index.json", index.to_string().as_bytes())?;
        if self.format == ImageArchiveFormat::Docker {
            out.document("manifest.json", Value::from(content.docker.clone()).to_string().as_bytes())?;
        }
        out.end()
    }

    /// Copies a blob; its digest is verified on the way.
    fn blob(&self, out: &mut TarWriter<'_>, output: &Path, digest: &Sha256Digest, size: u64) -> Result<(), Failure> {
        let what = output.display().to_string();
        let blob = self.blobs.get(digest)?.ok_or_else(|| not_kept(&what, digest))?;
        out.head(&digest.blob_path(), size)?;
        let mut hash = Sha256::new();
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => damaged(&what, digest),
            _ => io("read", &self.blobs.path(digest), error),
        };
        each_chunk(&blob.file, Extent { offset: 0, length: size }, &failed, &mut |bytes| {
            self.cancelled.check()?;
            hash.update(bytes);
            out.put(bytes)
        })?;
        if Sha256Digest::from_hash(hash.finalize().as_ref()) != *digest {
            return Err(damaged(&what, digest));
        }
        out.fill(size)
    }
}

fn not_kept(what: &str, digest: &Sha256Digest) -> Failure {
    Failure::Other(MicrosandboxError::InvalidState(format!(
        "{what} cannot be saved: its blob {} is not kept (images.keep_blobs is false, or prune removed it); load the image \
         again, or remove it with force and pull it again",
        digest.as_str()
    )))
}

fn damaged(what: &str, digest: &Sha256Digest) -> Failure {
    mismatch(format!(
        "{what}: the stored blob {} is damaged; remove the image with force and load or pull it again",
        digest.as_str()
    ))
}
