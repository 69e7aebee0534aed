//! What an archive holds: images, each with its references, configuration and the places of its layers.

use std::collections::BTreeMap;

use microsandbox_contract::Compression;

use super::archive::Archive;
use super::document::{self, Config, Descriptor, DockerEntry, Kind, MAX_INDEX_DEPTH, Sha256Digest};
use super::failure::{Failure, corrupt};
use super::reference::{HOST, Reference};
use super::same_image;
use super::tar_index::Extent;
use microsandbox_core::error::MicrosandboxError;
use microsandbox_core::model::ImageConfigDetail;

/// Images of one archive.
const MAX_IMAGES: usize = 1024;
/// References of one archive.
const MAX_REFERENCES: usize = 4096;
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// One image of the archive, for this machine.
#[derive(Debug)]
pub struct PlannedImage {
    pub references: Vec<String>,
    /// Every name that the archive gives it, as it spells them.
    pub names: Vec<String>,
    pub manifest_digest: Sha256Digest,
    pub media_type: Option<String>,
    pub architecture: String,
    pub os: String,
    pub variant: Option<String>,
    pub config: ImageConfigDetail,
    pub documents: Documents,
    /// Bottom first.
    pub layers: Vec<PlannedLayer>,
}

/// Where the documents of an image are in its archive.
#[derive(Debug, Default)]
pub struct Documents {
    pub config: Extent,
    /// `None`: the archive has none, and [`made_manifest`] describes the image.
    pub manifest: Option<Extent>,
}

impl PlannedImage {
    /// Manifest, configuration, compressed layers and chain ids: what an import uses and makes.
    pub fn digests(&self) -> impl Iterator<Item = Sha256Digest> {
        let config = Sha256Digest::parse(&self.config.digest).ok();
        let layers = self.layers.iter().flat_map(|layer| [layer.blob_digest.clone(), layer.chain_id.clone()]);
        layers.chain(config).chain([self.manifest_digest.clone()])
    }

    /// The manifest of an image whose archive has none.
    pub fn made_manifest(&self) -> Vec<u8> {
        made_manifest(&self.config.digest, self.documents.config.length, &self.layers)
    }
}

#[derive(Debug, Clone)]
pub struct PlannedLayer {
    /// Which file holds it.
    pub source: usize,
    pub diff_id: Sha256Digest,
    /// Of this layer on those beneath it; see [`Sha256Digest::chain`].
    pub chain_id: Sha256Digest,
    pub blob_digest: Sha256Digest,
    pub media_type: Option<String>,
    pub extent: Extent,
    pub compression: Compression,
}

/// The images of `archive` that run on this machine; at least one.
pub fn read(archive: &Archive) -> Result<Vec<PlannedImage>, Failure> {
    let docker = archive.document("manifest.json")?.map(|bytes| document::docker(&bytes)).transpose()?;
    let mut reader = Reader { archive, images: Vec::new(), foreign: Vec::new() };
    if let Some(bytes) = archive.document("index.json")? {
        let tags = docker.as_deref().map(tags_by_config).unwrap_or_default();
        reader.layout(&document::index(&bytes, "index.json", None)?, &tags)?;
    } else if let Some(entries) = docker {
        for entry in &entries {
            reader.docker(entry)?;
        }
    } else {
        return Err(corrupt("it is neither an OCI image layout (index.json) nor a Docker archive (manifest.json)"));
    }
    if reader.images.is_empty() && !reader.foreign.is_empty() {
        return Err(Failure::Other(MicrosandboxError::ImageNotFound(format!(
            "the archive has no image for {}, only for {}",
            this_platform(),
            reader.foreign.join(", ")
        ))));
    }
    if reader.images.is_empty() {
        return Err(corrupt("the archive has no image"));
    }
    if reader.images.iter().map(|image| image.references.len()).sum::<usize>() > MAX_REFERENCES {
        return Err(super::failure::limit(format!("the archive has more than {MAX_REFERENCES} references")));
    }
    Ok(reader.images)
}

struct Reader<'a> {
    archive: &'a Archive,
    images: Vec<PlannedImage>,
    /// Platforms that were left out.
    foreign: Vec<String>,
}

impl Reader<'_> {
    /// The descriptors of `index.json`: an image each.
    fn layout(&mut self, top: &[Descriptor], tags: &BTreeMap<Sha256Digest, Vec<String>>) -> Result<(), Failure> {
        for descriptor in top {
            let Some(manifest) = self.select(descriptor, 0)? else { continue };
            let digest = Sha256Digest::parse(&manifest.digest)?;
            let named = references(descriptor);
            if let Some(known) = self.images.iter_mut().find(|image| image.manifest_digest == digest) {
                add_references(&mut known.references, named);
                known.names.extend(names(descriptor));
                continue;
            }
            let Some(mut image) = self.manifest(&manifest, &digest)? else { continue };
            // Docker names its images here even where it writes a layout beside it, and as its users spell them.
            if let Ok(config) = Sha256Digest::parse(&image.config.digest) {
                add_references(&mut image.references, tags.get(&config).cloned().unwrap_or_default());
            }
            add_references(&mut image.references, named);
            image.names = image.references.iter().cloned().chain(names(descriptor)).collect();
            self.push(image)?;
        }
        Ok(())
    }

    /// The manifest for this machine that `descriptor` leads to.
    fn select(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Option<Descriptor>, Failure> {
        if let Some(platform) = &descriptor.platform
            && !runs_here(&platform.os, &platform.architecture)
        {
            // Attestations have the platform `unknown`, which no machine has.
            if platform.os != "unknown" {
                self.leave_out(&platform.os, &platform.architecture, platform.variant.as_deref());
            }
            return Ok(None);
        }
        match descriptor.kind() {
            Kind::Manifest => Ok(Some(descriptor.clone())),
            Kind::Other => Err(corrupt(format!("an index names a {:?}", descriptor.media_type))),
            Kind::Index if depth >= MAX_INDEX_DEPTH => {
                Err(super::failure::limit(format!("indexes are nested deeper than {MAX_INDEX_DEPTH}")))
            }
            Kind::Index => {
                let digest = Sha256Digest::parse(&descriptor.digest)?;
                let what = format!("index {}", digest.as_str());
                let bytes = self.archive.blob(&digest, descriptor.size, &what)?;
                for inner in document::index(&bytes, &what, Some(&descriptor.media_type))? {
                    if let Some(found) = self.select(&inner, depth + 1)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }

    /// An image of the layout; `None` if it is for another machine.
    fn manifest(&mut self, descriptor: &Descriptor, digest: &Sha256Digest) -> Result<Option<PlannedImage>, Failure> {
        let what = format!("manifest {}", digest.as_str());
        let extent = self.archive.blob_extent(digest, descriptor.size, &what)?;
        let bytes = self.archive.blob(digest, descriptor.size, &what)?;
        let manifest = document::manifest(&bytes, &what, &descriptor.media_type)?;
        let config_digest = Sha256Digest::parse(&manifest.config.digest)?;
        let config_name = format!("config {}", config_digest.as_str());
        let documents = Documents {
            config: self.archive.blob_extent(&config_digest, manifest.config.size, &config_name)?,
            manifest: Some(extent),
        };
        let bytes = self.archive.blob(&config_digest, manifest.config.size, &config_name)?;
        let config = document::config(&bytes, &config_name, manifest.layers.len())?;
        if !self.accept(&config) {
            return Ok(None);
        }
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for (layer, (diff_id, chain_id)) in manifest.layers.into_iter().zip(chained(&config)?) {
            layers.push(self.layer(layer, diff_id, chain_id)?);
        }
        let media_type = Some(descriptor.media_type.clone());
        Ok(Some(PlannedImage { documents, ..planned(digest.clone(), media_type, config, &config_digest, layers) }))
    }

    fn layer(
        &self,
        descriptor: Descriptor,
        diff_id: Sha256Digest,
        chain_id: Sha256Digest,
    ) -> Result<PlannedLayer, Failure> {
        let blob_digest = Sha256Digest::parse(&descriptor.digest)?;
        let what = format!("layer {}", blob_digest.as_str());
        let compression = layer_compression(&descriptor.media_type)
            .ok_or_else(|| corrupt(format!("{what} is a {:?}, which is no layer", descriptor.media_type)))?;
        let extent = self.archive.blob_extent(&blob_digest, descriptor.size, &what)?;
        let actual = self.archive.compression(extent)?;
        if actual != compression {
            return Err(corrupt(format!("{what} is declared {compression:?} but its content is {actual:?}")));
        }
        Ok(PlannedLayer {
            source: 0,
            diff_id,
            chain_id,
            blob_digest,
            media_type: Some(descriptor.media_type),
            extent,
            compression,
        })
    }

    /// An image of a Docker archive without a layout.
    fn docker(&mut self, entry: &DockerEntry) -> Result<(), Failure> {
        let absent = || corrupt(format!("config {:?} is not in the archive", entry.config));
        let extent = self.archive.find(&entry.config).ok_or_else(absent)?;
        let bytes = self.archive.document(&entry.config)?.ok_or_else(absent)?;
        let config_digest = Sha256Digest::of(&bytes);
        // Docker names the file by the digest of its content.
        let stem = entry.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if let Ok(named) = Sha256Digest::parse(&format!("sha256:{stem}")) {
            document::verify(&bytes, &named, &format!("config {:?}", entry.config))?;
        }
        let config = document::config(&bytes, &format!("config {:?}", entry.config), entry.layers.len())?;
        if !self.accept(&config) {
            return Ok(());
        }
        let mut layers = Vec::with_capacity(entry.layers.len());
        for (name, (diff_id, chain_id)) in entry.layers.iter().zip(chained(&config)?) {
            layers.push(self.docker_layer(name, diff_id, chain_id)?);
        }
        let manifest = made_manifest(config_digest.as_str(), extent.length, &layers);
        let (digest, media_type) = (Sha256Digest::of(&manifest), Some(document::OCI_MANIFEST.to_owned()));
        let documents = Documents { config: extent, manifest: None };
        let mut image = PlannedImage { documents, ..planned(digest, media_type, config, &config_digest, layers) };
        add_references(&mut image.references, entry.repo_tags.clone().unwrap_or_default());
        image.names = image.references.clone();
        self.push(image)
    }

    fn docker_layer(&self, name: &str, diff_id: Sha256Digest, chain_id: Sha256Digest) -> Result<PlannedLayer, Failure> {
        let extent = self.archive.find(name).ok_or_else(|| corrupt(format!("layer {name:?} is not in the archive")))?;
        let compression = self.archive.compression(extent)?;
        // Uncompressed, the layer's own digest is that of its content, which the unpacker checks; a compressed one
        // carries none, so it is the one that is found.
        let blob_digest = match compression {
            Compression::None => diff_id.clone(),
            Compression::Gzip | Compression::Zstd => self.archive.digest(extent)?,
        };
        let media_type = Some(media_type(compression).to_owned());
        Ok(PlannedLayer { source: 0, diff_id, chain_id, blob_digest, media_type, extent, compression })
    }

    fn accept(&mut self, config: &Config) -> bool {
        let ours = runs_here(&config.os, &config.architecture);
        if !ours {
            self.leave_out(&config.os, &config.architecture, config.variant.as_deref());
        }
        ours
    }

    fn leave_out(&mut self, os: &str, architecture: &str, variant: Option<&str>) {
        let mut name: String = format!("{os}/{architecture}").chars().take(64).collect();
        if let Some(variant) = variant {
            name = format!("{name}/{variant}").chars().take(64).collect();
        }
        if self.foreign.len() < 16 && !self.foreign.contains(&name) {
            self.foreign.push(name);
        }
    }

    fn push(&mut self, image: PlannedImage) -> Result<(), Failure> {
        if self.images.len() >= MAX_IMAGES {
            return Err(super::failure::limit(format!("the archive has more than {MAX_IMAGES} images")));
        }
        self.images.push(image);
        Ok(())
    }
}

/// The layers' own digests with those of the chain up to each, bottom first.
pub fn chained(config: &Config) -> Result<Vec<(Sha256Digest, Sha256Digest)>, Failure> {
    let diff_ids: Vec<_> = config.rootfs.diff_ids.iter().map(|id| Sha256Digest::parse(id)).collect::<Result<_, _>>()?;
    let chain_ids = Sha256Digest::chain(&diff_ids);
    Ok(diff_ids.into_iter().zip(chain_ids).collect())
}

pub fn planned(
    manifest_digest: Sha256Digest,
    media_type: Option<String>,
    config: Config,
    config_digest: &Sha256Digest,
    layers: Vec<PlannedLayer>,
) -> PlannedImage {
    let run = config.config.unwrap_or_default();
    PlannedImage {
        references: Vec::new(),
        names: Vec::new(),
        manifest_digest,
        media_type,
        architecture: config.architecture,
        os: config.os,
        variant: config.variant,
        config: ImageConfigDetail {
            digest: config_digest.as_str().to_owned(),
            env: run.env.unwrap_or_default(),
            cmd: run.cmd,
            entrypoint: run.entrypoint,
            working_dir: run.working_dir,
            user: run.user,
            labels: run.labels,
            stop_signal: run.stop_signal,
        },
        documents: Documents::default(),
        layers,
    }
}

/// Both of them, for whoever asks by one.
fn names(descriptor: &Descriptor) -> impl Iterator<Item = String> {
    [descriptor.annotation(REF_NAME), descriptor.annotation(CONTAINERD_NAME)].into_iter().flatten().map(str::to_owned)
}

/// The names that a descriptor of `index.json` carries.
fn references(descriptor: &Descriptor) -> Vec<String> {
    let full = descriptor.annotation(CONTAINERD_NAME);
    let short = descriptor.annotation(REF_NAME);
    match (full, short) {
        // Beside the full name the other one is only its tag.
        (Some(full), _) => vec![full.to_owned()],
        // A tag alone names nothing.
        (None, Some("latest")) | (None, None) => Vec::new(),
        (None, Some(short)) => vec![short.to_owned()],
    }
}

/// Adds names that are references, each in one spelling; others are no way to reach an image and are left out.
fn add_references(to: &mut Vec<String>, names: Vec<String>) {
    for name in names {
        let known = to.iter().any(|known| same_image(known, &name));
        if name != HOST && Reference::parse(&name).is_ok() && !known {
            to.push(name);
        }
    }
}

fn tags_by_config(entries: &[DockerEntry]) -> BTreeMap<Sha256Digest, Vec<String>> {
    let mut tags: BTreeMap<Sha256Digest, Vec<String>> = BTreeMap::new();
    for entry in entries {
        let hex = entry.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if let Ok(digest) = Sha256Digest::parse(&format!("sha256:{hex}")) {
            tags.entry(digest).or_default().extend(entry.repo_tags.iter().flatten().cloned());
        }
    }
    tags
}

/// Docker archives have no manifest: the one that describes the same content, so that equal archives give equal images.
fn made_manifest(config: &str, size: u64, layers: &[PlannedLayer]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            let digest = layer.blob_digest.as_str();
            serde_json::json!({"mediaType": layer.media_type, "digest": digest, "size": layer.extent.length})
        })
        .collect();
    let document = serde_json::json!({
        "schemaVersion": 2, "mediaType": document::OCI_MANIFEST,
        "config": {"mediaType": document::OCI_CONFIG, "digest": config, "size": size}, "layers": layers,
    });
    document.to_string().into_bytes()
}

/// Of a layer that is stored like this.
fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

pub fn layer_compression(media_type: &str) -> Option<Compression> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Some(Compression::None),
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Compression::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// This machine as Go names it (`GOARCH`), which is what images use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

fn this_platform() -> String {
    format!("linux/{}", architecture())
}

pub fn runs_here(os: &str, arch: &str) -> bool {
    os == "linux" && arch == architecture()
}
