//! Fetching an image from its registry: which one, its documents, its layers, then unpacked and recorded as an import is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};

use super::ResolvedImage;
use super::archive::compression_of;
use super::blobs::{Begun, Blob, Blobs};
use super::cache::LayerCache;
use super::credentials;
use super::document::{self, Descriptor, Kind, Sha256Digest};
use super::failure::{Failure, corrupt, limit};
use super::leases::Lease;
use super::limits;
use super::load::{Import, below, distinct, record};
use super::plan::{self, PlannedImage, PlannedLayer, chained, layer_compression};
use super::platform::{Others, Wanted};
use super::reference::Reference;
use super::registry::reach::Reach;
use super::registry::{self, Client, Document, Settings};
use super::tar_index::Extent;
use microsandbox_core::backend::PullProgressFn;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{ImageInfo, ImageProgress, PullEvent, PullPolicy, PullRequest};
use microsandbox_home::Home;

/// Indexes inside indexes.
const MAX_INDEX_DEPTH: usize = 4;
/// Manifests and indexes of one pull.
const MAX_DOCUMENTS: usize = 32;
/// Layers that are downloaded at the same time.
const DOWNLOADS: usize = 3;

/// The image and its layers, for a new sandbox: fetched first as far as the policy asks for it.
pub async fn ready(
    home: &Home,
    request: &PullRequest,
    progress: Option<PullProgressFn>,
) -> MicrosandboxResult<ResolvedImage> {
    if request.policy != PullPolicy::Always {
        match super::resolve(home, &request.reference).await {
            Err(MicrosandboxError::ImageNotFound(_)) if request.policy == PullPolicy::IfMissing => {}
            resolved => return resolved,
        }
    }
    let info = pull(home, request, progress).await?;
    super::resolve(home, &info.reference).await
}

/// Fetches an image as far as the policy asks for it.
pub async fn pull(
    home: &Home,
    request: &PullRequest,
    progress: Option<PullProgressFn>,
) -> MicrosandboxResult<ImageInfo> {
    let reference = Reference::parse(&request.reference).map_err(MicrosandboxError::InvalidConfig)?;
    let known = match request.policy {
        PullPolicy::Always => None,
        PullPolicy::IfMissing | PullPolicy::Never => super::complete(home, &request.reference).await?,
    };
    if let Some(known) = known {
        return Ok(known.handle);
    }
    if request.policy == PullPolicy::Never {
        return Err(super::missing(&request.reference));
    }
    let pulled = Pull::begin(home, request, reference, progress).await;
    let pulled = match pulled {
        Ok(pull) => pull.run().await,
        Err(failure) => Err(failure),
    };
    pulled.map_err(|failure| failure.pulling(&request.reference))
}

struct Pull<'a> {
    home: &'a Home,
    reference: Reference,
    wanted: Wanted,
    client: Client,
    blobs: Blobs,
    progress: Option<PullProgressFn>,
}

/// What the registry has for this machine.
struct Found {
    manifest: Document,
    /// Indexes that lead to it, outermost first.
    indexes: Vec<Document>,
}

impl<'a> Pull<'a> {
    async fn begin(
        home: &'a Home,
        request: &PullRequest,
        reference: Reference,
        progress: Option<PullProgressFn>,
    ) -> Result<Pull<'a>, Failure> {
        let wanted = match &request.platform {
            Some(text) => Wanted::parse(text).map_err(MicrosandboxError::InvalidConfig)?,
            None => Wanted::this_machine(),
        };
        let (host, repository) = (reference.domain().to_owned(), reference.path().to_owned());
        let registries = &home.config().registries;
        let entry = registries.hosts.get(&host);
        let credential = match &request.access.auth {
            Some(auth) => Some(credentials::Credential::Basic {
                username: auth.username.clone(),
                password: auth.password.clone(),
            }),
            None if request.access.anonymous => None,
            None => credentials::find(home, &host, &repository).await?,
        };
        let mut ca_certs = request.access.ca_certs.clone();
        let of_host = entry.and_then(|entry| entry.ca_certs.as_ref());
        for path in registries.ca_certs.iter().chain(of_host) {
            ca_certs.push(std::fs::read(path).map_err(|e| MicrosandboxError::io("read", path, e))?);
        }
        let is_allowed = !request.access.public_only || entry.is_some_and(|entry| entry.for_clients);
        let most_internal = if is_allowed { Reach::Loopback } else { Reach::Public };
        let settings = Settings {
            host,
            repository,
            insecure: request.access.insecure || entry.is_some_and(|entry| entry.insecure),
            ca_certs,
            credential,
            token_host: entry.and_then(|entry| entry.token_host.clone()),
            mirrored: None,
            most_internal,
            stall: registry::stall()?,
        };
        let client = Client::new(settings)?;
        Ok(Pull { home, reference, wanted, client, blobs: Blobs::open(home)?, progress })
    }

    fn tell(&self, event: PullEvent) {
        if let Some(progress) = &self.progress {
            progress(event);
        }
    }

    async fn run(self) -> Result<ImageInfo, Failure> {
        let name = self.reference.canonical();
        self.tell(PullEvent::Resolving { reference: name.clone() });
        let target = self.reference.digest().unwrap_or_else(|| self.reference.tag());
        let found = self.find(self.client.manifest(target).await?).await?;
        let cache = LayerCache::open(self.home)?;
        cache.sweep(self.home).await?;
        let image = self.plan(&found).await?;
        // Before anything is looked for in the store, until the rows keep it.
        let _lease = Lease::take(self.home, format!("pull {name}"), digests(&image)).await?;
        let layers = distinct(std::slice::from_ref(&image));
        let missing: Vec<&PlannedLayer> =
            layers.iter().copied().filter(|layer| cache.facts(&layer.chain_id).is_none()).collect();
        self.tell(PullEvent::Resolved {
            reference: name.clone(),
            manifest_digest: image.manifest_digest.as_str().to_owned(),
            layer_count: image.layers.len(),
            total_download_bytes: Some(missing.iter().map(|layer| layer.extent.length).sum()),
        });
        let blobs = self.download(&missing).await?;
        let files: BTreeMap<usize, File> = blobs.into_iter().map(|(source, blob)| (source, blob.file)).collect();
        let import = Import {
            home: self.home,
            cache: &cache,
            files: files.iter().map(|(source, file)| (*source, file)).collect(),
            layers: &layers,
            below: below(std::slice::from_ref(&image)),
            limits: limits::current()?,
        };
        import.unpack(self.unpacking(&layers)).await?;
        self.keep(&found).await?;
        let layer_count = image.layers.len();
        let info = record(self.home, &cache, &[image]).await?.into_iter().next();
        self.tell(PullEvent::Complete { reference: name, layer_count });
        info.ok_or_else(|| Failure::Other(MicrosandboxError::Runtime("the image was not recorded".into())))
    }

    /// Follows indexes to the manifest for this machine.
    async fn find(&self, top: Document) -> Result<Found, Failure> {
        let mut others = Others::default();
        let mut seen = BTreeSet::from([top.digest.clone()]);
        let mut indexes = Vec::new();
        let mut queue = VecDeque::from([(top, 0_usize)]);
        let mut documents = 1;
        while let Some((document, depth)) = queue.pop_front() {
            let what = format!("index {}", document.digest.as_str());
            match document::kind_of(&document.media_type) {
                Kind::Manifest => return Ok(Found { manifest: document, indexes }),
                Kind::Other => {
                    return Err(corrupt(format!(
                        "manifest {} is a {:?}, which is no image",
                        document.digest.as_str(),
                        document.media_type
                    )));
                }
                Kind::Index if depth >= MAX_INDEX_DEPTH => {
                    return Err(limit(format!("indexes are nested deeper than {MAX_INDEX_DEPTH}")));
                }
                Kind::Index => {}
            }
            let named = document::index(&document.bytes, &what, Some(&document.media_type))?;
            for descriptor in self.candidates(named, &mut others) {
                if !seen.insert(Sha256Digest::parse(&descriptor.digest)?) {
                    continue;
                }
                documents += 1;
                if documents > MAX_DOCUMENTS {
                    return Err(limit(format!("the image has more than {MAX_DOCUMENTS} manifests and indexes")));
                }
                let inner = self.inner(&descriptor).await?;
                let is_manifest = descriptor.kind() == Kind::Manifest;
                queue.push_back((inner, depth + 1));
                if is_manifest {
                    break;
                }
            }
            indexes.push(document);
        }
        Err(Failure::Other(MicrosandboxError::ImageNotFound(format!(
            "{} has no image for {}, only for {}",
            self.reference.canonical(),
            self.wanted.describe(),
            if others.is_empty() { "no platform".to_owned() } else { others.list() }
        ))))
    }

    /// The descriptors of an index that may lead to an image for this machine, the best first.
    fn candidates(&self, named: Vec<Descriptor>, others: &mut Others) -> Vec<Descriptor> {
        let mut ranked = Vec::new();
        for descriptor in named {
            match (&descriptor.platform, descriptor.kind()) {
                (_, Kind::Other) => {}
                (Some(platform), _) => match self.wanted.rank(platform) {
                    Some(rank) => ranked.push((rank, descriptor)),
                    None => others.note(&platform.os, &platform.architecture, platform.variant.as_deref()),
                },
                // What an index without a platform leads to is seen when it is read.
                (None, _) => ranked.push((2, descriptor)),
            }
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, descriptor)| descriptor).collect()
    }

    /// A document that an index names.
    async fn inner(&self, descriptor: &Descriptor) -> Result<Document, Failure> {
        let digest = Sha256Digest::parse(&descriptor.digest)?;
        let document = self.client.manifest(digest.as_str()).await?;
        if document.bytes.len() as u64 != descriptor.size {
            let (actual, named) = (document.bytes.len(), descriptor.size);
            return Err(super::failure::mismatch(format!(
                "{} has {actual} bytes, its descriptor says {named}",
                digest.as_str()
            )));
        }
        if document.media_type != descriptor.media_type {
            return Err(corrupt(format!(
                "{} came as {:?}, its descriptor says {:?}",
                digest.as_str(),
                document.media_type,
                descriptor.media_type
            )));
        }
        Ok(document)
    }

    /// The image that a manifest describes.
    async fn plan(&self, found: &Found) -> Result<PlannedImage, Failure> {
        let digest = &found.manifest.digest;
        let what = format!("manifest {}", digest.as_str());
        let manifest = document::manifest(&found.manifest.bytes, &what, &found.manifest.media_type)?;
        let config_digest = Sha256Digest::parse(&manifest.config.digest)?;
        let config_name = format!("config {}", config_digest.as_str());
        let bytes = match self.blobs.document(&config_digest) {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(_) => self.client.document(&manifest.config, &config_name).await?,
        };
        let config = document::config(&bytes, &config_name, manifest.layers.len())?;
        if !self.wanted.is(&config.os, &config.architecture, config.variant.as_deref()) {
            let only = super::platform::named(&config.os, &config.architecture, config.variant.as_deref());
            return Err(Failure::Other(MicrosandboxError::ImageNotFound(format!(
                "{} has no image for {}, only for {only}",
                self.reference.canonical(),
                self.wanted.describe()
            ))));
        }
        let blobs = self.blobs.clone();
        let stored = tokio::task::spawn_blocking(move || blobs.put(&bytes)).await;
        stored.map_err(|e| MicrosandboxError::Runtime(format!("storing a configuration: {e}")))??;
        let mut layers = Vec::with_capacity(manifest.layers.len());
        let limits = limits::current()?;
        let mut total = 0_u64;
        for (source, (layer, (diff_id, chain_id))) in manifest.layers.into_iter().zip(chained(&config)?).enumerate() {
            total = total.saturating_add(layer.size);
            if layer.size > limits.layer_bytes || total > limits.total_bytes {
                return Err(limit(format!(
                    "the layers of {what} are larger than image.layer_bytes or image.total_bytes; raise them with {}",
                    limits::VARIABLE
                )));
            }
            layers.push(layer_of(layer, source, diff_id, chain_id)?);
        }
        let media_type = Some(found.manifest.media_type.clone());
        let mut image = plan::planned(digest.clone(), media_type, config, &config_digest, layers);
        image.references = vec![self.reference.canonical()];
        Ok(image)
    }

    /// Every missing layer's blob, by the number of its layer.
    async fn download(&self, missing: &[&PlannedLayer]) -> Result<Vec<(usize, Blob)>, Failure> {
        let mut work: Vec<BoxFuture<'_, Result<(usize, Blob), Failure>>> = Vec::with_capacity(missing.len());
        for layer in missing {
            work.push(Box::pin(async move { Ok((layer.source, self.blob(layer).await?)) }));
        }
        futures::stream::iter(work).buffer_unordered(DOWNLOADS).try_collect().await
    }

    /// The blob of one layer: stored already, or downloaded by this process or another.
    async fn blob(&self, layer: &PlannedLayer) -> Result<Blob, Failure> {
        let (digest, size) = (layer.blob_digest.as_str().to_owned(), layer.extent.length);
        let told = |downloaded_bytes: u64| {
            self.tell(PullEvent::LayerDownloadProgress {
                layer_index: layer.source,
                digest: digest.clone(),
                downloaded_bytes,
                total_bytes: Some(size),
            });
        };
        let blob = match self.blobs.begin(&layer.blob_digest, size, &told).await? {
            Begun::AlreadyThere(blob) => blob,
            Begun::Part(part) => self.client.download(part, &told).await?,
        };
        if blob.size != size {
            let stored = blob.size;
            return Err(super::failure::mismatch(format!("{digest} has {stored} bytes, its descriptor says {size}")));
        }
        let mut magic = [0; 4];
        let length = magic.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        let path = self.blobs.path(&layer.blob_digest);
        blob.file.read_exact_at(&mut magic[..length], 0).map_err(|e| super::failure::io("read", &path, e))?;
        let actual = compression_of(&magic);
        if actual != layer.compression {
            return Err(corrupt(format!(
                "layer {digest} is declared {:?} but its content is {actual:?}",
                layer.compression
            )));
        }
        self.tell(PullEvent::LayerDownloadComplete { layer_index: layer.source, digest, downloaded_bytes: size });
        Ok(blob)
    }

    /// The progress of the unpacking, as events of the pull.
    fn unpacking(&self, layers: &[&PlannedLayer]) -> Option<microsandbox_core::backend::ProgressFn> {
        let progress = self.progress.clone()?;
        let named: Vec<(usize, String)> =
            layers.iter().map(|layer| (layer.source, layer.diff_id.as_str().to_owned())).collect();
        let begun = std::sync::Mutex::new(BTreeSet::new());
        Some(std::sync::Arc::new(move |now: ImageProgress| {
            let Some((layer_index, diff_id)) = named.get(now.layer_index).cloned() else { return };
            if now.phase != "unpack" {
                return;
            }
            let mut begun = begun.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if begun.insert(layer_index) {
                progress(PullEvent::LayerMaterializeStarted { layer_index, diff_id: diff_id.clone() });
            }
            if now.completed_bytes < now.total_bytes {
                progress(PullEvent::LayerMaterializeProgress {
                    layer_index,
                    diff_id,
                    bytes_read: now.completed_bytes,
                    total_bytes: now.total_bytes,
                });
            } else {
                progress(PullEvent::LayerMaterializeComplete { layer_index, diff_id });
            }
        }))
    }

    /// Stores the manifest and the indexes that lead to it: a digest of theirs names the image from now on.
    async fn keep(&self, found: &Found) -> Result<(), Failure> {
        let documents: Vec<Vec<u8>> =
            found.indexes.iter().chain([&found.manifest]).map(|document| document.bytes.clone()).collect();
        let blobs = self.blobs.clone();
        let stored =
            tokio::task::spawn_blocking(move || documents.iter().try_for_each(|d| blobs.put(d).map(drop))).await;
        stored.map_err(|e| MicrosandboxError::Runtime(format!("storing a manifest: {e}")))?
    }
}

fn layer_of(
    descriptor: Descriptor,
    source: usize,
    diff_id: Sha256Digest,
    chain_id: Sha256Digest,
) -> Result<PlannedLayer, Failure> {
    let blob_digest = Sha256Digest::parse(&descriptor.digest)?;
    let compression = layer_compression(&descriptor.media_type).ok_or_else(|| {
        corrupt(format!("layer {} is a {:?}, which is no layer", blob_digest.as_str(), descriptor.media_type))
    })?;
    let extent = Extent { offset: 0, length: descriptor.size };
    let media_type = Some(descriptor.media_type);
    Ok(PlannedLayer { source, diff_id, chain_id, blob_digest, media_type, extent, compression })
}

/// What a pull uses and makes.
fn digests(image: &PlannedImage) -> Vec<Sha256Digest> {
    let config = Sha256Digest::parse(&image.config.digest).ok();
    let layers = image.layers.iter().flat_map(|layer| [layer.blob_digest.clone(), layer.chain_id.clone()]);
    layers.chain(config).chain([image.manifest_digest.clone()]).collect()
}
