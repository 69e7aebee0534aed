//! Fetching an image from its registry: which one, its documents, its layers, then unpacked and recorded as an import is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};

use super::ResolvedImage;
use super::archive::compression_at;
use super::blobs::{Blob, Blobs};
use super::cache::LayerCache;
use super::choice::{self, Choice, Chosen};
use super::document::{self, Descriptor, Sha256Digest};
use super::endpoints;
use super::failure::{Failure, Near, blocking, corrupt, limit};
use super::leases::Lease;
use super::limits;
use super::load::{self, Import, Step, StepFn, below, distinct, record};
use super::plan::{self, PlannedImage, PlannedLayer, chained, layer_compression};
use super::platform::Wanted;
use super::reference::Reference;
use super::registry::{Document, Upstream};
use super::restricted;
use super::signature;
use super::source::Source;
use super::tar_index::Extent;
use microsandbox_core::backend::PullProgressFn;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{ImageInfo, PullEvent, PullPolicy, PullRequest};
use microsandbox_home::Home;

/// Layers that are downloaded at the same time.
const DOWNLOADS: usize = 3;

/// The image and its layers, for a new sandbox: fetched first as far as the policy asks for it.
pub async fn ready(
    home: &Home,
    request: &PullRequest,
    operation: String,
    progress: Option<PullProgressFn>,
) -> MicrosandboxResult<ResolvedImage> {
    if let Some(source) = source(request)? {
        let (info, _lease) = loaded(home, source).await?;
        return super::resolve(home, &info.reference, operation).await;
    }
    if request.policy != PullPolicy::Always {
        match super::resolve(home, &request.reference, operation.clone()).await {
            Err(MicrosandboxError::ImageNotFound(_)) if request.policy == PullPolicy::IfMissing => {}
            Err(MicrosandboxError::ImageNotFound(_)) if near(request) == Near::Hidden => {
                return Err(super::missing(&request.reference, Near::Hidden));
            }
            Ok(resolved) if is_withheld(home, request, &resolved.detail.handle) => {}
            Ok(resolved) if request.policy == PullPolicy::Never || wanted(request)?.fits(&resolved.detail.handle) => {
                return Ok(resolved);
            }
            Err(error) => return Err(error),
            // That of another machine.
            Ok(_) => {}
        }
    }
    let (info, _lease) = fetched(home, request, progress).await?;
    super::resolve(home, &info.reference, operation).await
}

/// A source that is no registry. Those are files and services of this machine, which a client of a server may not name.
fn source(request: &PullRequest) -> MicrosandboxResult<Option<Source>> {
    match Source::parse(&request.reference) {
        Some(_) if request.access.public_only => Err(MicrosandboxError::InvalidConfig(format!(
            "{:?} names a source on the server's machine; name an image of a registry",
            request.reference
        ))),
        source => source.transpose(),
    }
}

fn near(request: &PullRequest) -> Near {
    if request.access.public_only { Near::Hidden } else { Near::Shown }
}

/// The first image of a source that is no registry; nothing of it is removed while the lease is held.
async fn loaded(home: &Home, source: Source) -> MicrosandboxResult<(ImageInfo, Lease)> {
    let (infos, lease) = load::from_source(home, &source, None, None).await?;
    match infos.into_iter().next() {
        Some(info) => Ok((info, lease)),
        None => Err(MicrosandboxError::ImageNotFound(source.to_string())),
    }
}

/// Fetches an image as far as the policy asks for it.
pub async fn pull(
    home: &Home,
    request: &PullRequest,
    progress: Option<PullProgressFn>,
) -> MicrosandboxResult<ImageInfo> {
    if let Some(source) = source(request)? {
        return Ok(loaded(home, source).await?.0);
    }
    Ok(fetched(home, request, progress).await?.0)
}

/// The image, fetched as far as the policy asks for it. Of what was fetched nothing is removed while the lease is held.
async fn fetched(
    home: &Home,
    request: &PullRequest,
    progress: Option<PullProgressFn>,
) -> MicrosandboxResult<(ImageInfo, Option<Lease>)> {
    let reference = Reference::parse(&request.reference).map_err(MicrosandboxError::InvalidConfig)?;
    let wanted = wanted(request)?;
    let known = super::complete(home, &request.reference).await?.map(|detail| detail.handle);
    let known = known.filter(|info| wanted.fits(info));
    let is_settled = request.policy != PullPolicy::Always || reference.digest().is_some();
    let is_withheld = known.as_ref().is_some_and(|known| is_withheld(home, request, known));
    if request.policy == PullPolicy::Never && (is_withheld || known.is_none()) {
        return Err(super::missing(&request.reference, near(request)));
    }
    match known {
        // What a digest means never changes.
        Some(known) if is_settled && !is_withheld => return Ok((known, None)),
        _ => {}
    }
    let pulled = match Pull::begin(home, request, reference, wanted, progress).await {
        Ok(pull) => pull.run(known).await,
        Err(failure) => Err(failure),
    };
    pulled.map_err(|failure| failure.pulling(&request.reference, near(request)))
}

/// Whether the image is here, but perhaps not for this client.
fn is_withheld(home: &Home, request: &PullRequest, known: &ImageInfo) -> bool {
    request.access.public_only && restricted::is_restricted(home, known.manifest_digest.as_deref())
}

fn wanted(request: &PullRequest) -> MicrosandboxResult<Wanted> {
    match &request.platform {
        Some(text) => Wanted::parse(text).map_err(MicrosandboxError::InvalidConfig),
        None => Ok(Wanted::this_machine()),
    }
}

struct Pull<'a> {
    home: &'a Home,
    reference: Reference,
    /// The reference as it is recorded.
    name: String,
    wanted: Wanted,
    upstream: Upstream,
    /// That the image is here does not mean that this client may have it: the registry decides.
    must_ask: bool,
    /// Fetched with credentials that are a client's.
    is_restricted: bool,
    blobs: Blobs,
    progress: Option<PullProgressFn>,
}

impl<'a> Pull<'a> {
    async fn begin(
        home: &'a Home,
        request: &PullRequest,
        reference: Reference,
        wanted: Wanted,
        progress: Option<PullProgressFn>,
    ) -> Result<Pull<'a>, Failure> {
        let upstream = endpoints::of(home, request, &reference).await?;
        let name = reference.canonical();
        let must_ask = request.access.public_only;
        let is_restricted = must_ask && request.access.auth.is_some();
        Ok(Pull {
            home,
            reference,
            name,
            wanted,
            upstream,
            must_ask,
            is_restricted,
            blobs: Blobs::open(home)?,
            progress,
        })
    }

    fn report(&self, event: PullEvent) {
        if let Some(progress) = &self.progress {
            progress(event);
        }
    }

    async fn run(self, known: Option<ImageInfo>) -> Result<(ImageInfo, Option<Lease>), Failure> {
        let name = self.name.clone();
        self.report(PullEvent::Resolving { reference: name.clone() });
        let found = match (self.choose(known.as_ref()).await?, known) {
            (None, Some(known)) => return Ok((self.unchanged(known), None)),
            (Some(found), _) => found,
            (None, None) => return Err(super::missing(&name, Near::Hidden).into()),
        };
        let cache = LayerCache::open(self.home)?;
        cache.sweep(self.home).await?;
        let image = self.plan(&found).await?;
        // Before anything is looked for in the store, until the rows keep it.
        let mut lease = Lease::take(self.home, format!("pull {name}"), image.digests()).await?;
        let layers = distinct(std::slice::from_ref(&image));
        let missing: Vec<&PlannedLayer> =
            layers.iter().copied().filter(|layer| cache.facts(&layer.chain_id).is_none()).collect();
        self.report(PullEvent::Resolved {
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
        let of_layers: Vec<Sha256Digest> = image.layers.iter().map(|layer| layer.blob_digest.clone()).collect();
        let manifest = image.manifest_digest.clone();
        if !self.is_restricted {
            restricted::release(self.home, &manifest);
        } else if super::by_digest(self.home, manifest.as_str(), None).await?.is_none() {
            restricted::restrict(self.home, &manifest)?;
        }
        let info = record(self.home, &cache, &[image]).await?.into_iter().next();
        super::gc::unless_kept(self.home, &mut lease, &of_layers).await?;
        self.report(PullEvent::Complete { reference: name, layer_count });
        let info = info.ok_or_else(|| MicrosandboxError::Runtime("the image was not recorded".into()))?;
        Ok((info, Some(lease)))
    }

    /// The registry has nothing new.
    fn unchanged(&self, known: ImageInfo) -> ImageInfo {
        let layer_count = known.layer_count as usize;
        self.report(PullEvent::Resolved {
            reference: self.name.clone(),
            manifest_digest: known.manifest_digest.clone().unwrap_or_default(),
            layer_count,
            total_download_bytes: Some(0),
        });
        self.report(PullEvent::Complete { reference: self.name.clone(), layer_count });
        known
    }

    /// The manifest for the wanted platform; `None`: it is that of the known image. What is stored is not asked for: of a tag that
    /// is known, only what it means now.
    async fn choose(&self, known: Option<&ImageInfo>) -> Result<Option<Chosen>, Failure> {
        let choice = self.choice(Some(&self.upstream));
        if let Some(text) = self.reference.digest() {
            let digest = Sha256Digest::parse(text)?;
            self.demand_signature(&digest).await?;
            return Ok(Some(choice.from(self.top(&digest).await?).await?));
        }
        let now = match known {
            Some(_) => self.upstream.digest_of(self.reference.tag()).await?,
            None => None,
        };
        let Some(digest) = now else {
            let top = self.upstream.manifest(self.reference.tag()).await?;
            self.demand_signature(&top.digest).await?;
            return Ok(Some(choice.from(top).await?));
        };
        self.demand_signature(&digest).await?;
        let recorded = known.and_then(|info| info.manifest_digest.as_deref());
        if recorded == Some(digest.as_str()) {
            return Ok(None);
        }
        let top = self.top(&digest).await?;
        let chosen = choice.from(top).await?;
        let is_same = recorded == Some(chosen.manifest.digest.as_str());
        Ok((!is_same).then_some(chosen))
    }

    /// Refuses what the policy of the registries demands a signature of, and has none: before any layer is fetched.
    async fn demand_signature(&self, digest: &Sha256Digest) -> Result<(), Failure> {
        match signature::policy_of(&self.home.config().registries.policy, &self.reference) {
            Some(policy) => signature::verify(&self.upstream, policy, digest).await,
            None => Ok(()),
        }
    }

    fn choice<'b>(&'b self, upstream: Option<&'b Upstream>) -> Choice<'b> {
        Choice { wanted: &self.wanted, blobs: &self.blobs, upstream, name: &self.name }
    }

    /// What a digest names: stored, or fetched.
    async fn top(&self, digest: &Sha256Digest) -> Result<Document, Failure> {
        match choice::stored_document(&self.blobs, digest).await {
            Some(document) if !self.must_ask => Ok(document),
            _ => self.upstream.manifest(digest.as_str()).await,
        }
    }

    /// The image that a manifest describes.
    async fn plan(&self, found: &Chosen) -> Result<PlannedImage, Failure> {
        let digest = &found.manifest.digest;
        let what = format!("manifest {}", digest.as_str());
        let manifest = document::manifest(&found.manifest.bytes, &what, &found.manifest.media_type)?;
        let config_digest = Sha256Digest::parse(&manifest.config.digest)?;
        let config_name = format!("config {}", config_digest.as_str());
        let bytes = match choice::stored(&self.blobs, &config_digest).await {
            Some(bytes) => bytes,
            None => self.upstream.document(&manifest.config, &config_name).await?,
        };
        let config = document::config(&bytes, &config_name, manifest.layers.len())?;
        if !self.wanted.is(&config.os, &config.architecture, config.variant.as_deref()) {
            let only = super::platform::named(&config.os, &config.architecture, config.variant.as_deref());
            return Err(self.choice(None).nothing(&format!("for {only}")));
        }
        let blobs = self.blobs.clone();
        blocking(move || blobs.put(&bytes)).await?;
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
        image.references = vec![self.name.clone()];
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
        let grown = |downloaded_bytes: u64| {
            self.report(PullEvent::LayerDownloadProgress {
                layer_index: layer.source,
                digest: digest.clone(),
                downloaded_bytes,
                total_bytes: Some(size),
            });
        };
        let blob = self.upstream.layer(&self.blobs, &layer.blob_digest, size, &grown).await?;
        if blob.size != size {
            let stored = blob.size;
            return Err(super::failure::mismatch(format!("{digest} has {stored} bytes, its descriptor says {size}")));
        }
        let actual = compression_at(&blob.file, &self.blobs.path(&layer.blob_digest), layer.extent)?;
        if actual != layer.compression {
            return Err(corrupt(format!(
                "layer {digest} is declared {:?} but its content is {actual:?}",
                layer.compression
            )));
        }
        self.report(PullEvent::LayerDownloadComplete { layer_index: layer.source, digest, downloaded_bytes: size });
        Ok(blob)
    }

    /// The steps of the unpacking, as events of the pull.
    fn unpacking(&self, layers: &[&PlannedLayer]) -> Option<StepFn> {
        let progress = self.progress.clone()?;
        let named: Vec<(usize, String, u64)> =
            layers.iter().map(|layer| (layer.source, layer.diff_id.as_str().to_owned(), layer.extent.length)).collect();
        let begun = Mutex::new(BTreeSet::new());
        Some(Arc::new(move |step| {
            let (Step::Reading { layer, .. } | Step::Unpacked { layer }) = step else { return };
            let (layer_index, diff_id, total_bytes) = named[layer].clone();
            if begun.lock().unwrap_or_else(PoisonError::into_inner).insert(layer) {
                progress(PullEvent::LayerMaterializeStarted { layer_index, diff_id: diff_id.clone() });
            }
            progress(match step {
                Step::Reading { read, .. } => {
                    let bytes_read = read.min(total_bytes);
                    PullEvent::LayerMaterializeProgress { layer_index, diff_id, bytes_read, total_bytes }
                }
                _ => PullEvent::LayerMaterializeComplete { layer_index, diff_id },
            });
        }))
    }

    /// Stores the manifest and the indexes that lead to it: a digest of theirs names the image from now on.
    async fn keep(&self, found: &Chosen) -> Result<(), Failure> {
        let documents: Vec<Vec<u8>> =
            found.indexes.iter().chain([&found.manifest]).map(|document| document.bytes.clone()).collect();
        let blobs = self.blobs.clone();
        blocking(move || documents.iter().try_for_each(|document| blobs.put(document).map(drop))).await
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
