//! Importing an archive: plan, unpack what is missing, publish, record.

use microsandbox_contract::{ImageLimits, Job, JobError, LAUNCH_VERSION, LayerSource, Report, UnpackSpec};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use super::archive::{Archive, Cancelled, Spool};
use super::cache::{LayerCache, LayerFacts, Temporary};
use super::document::Sha256Digest;
use super::failure::{self, Failure};
use super::keep::Keeping;
use super::leases::Lease;
use super::plan::{self, PlannedImage, PlannedLayer};
use super::reference::{HOST, Reference};
use super::source::Source;
use super::{gc, limits, same_image};
use microsandbox_core::backend::ProgressFn;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{ImageInfo, ImageProgress};
use microsandbox_home::{Home, failpoint, headroom};
use microsandbox_store::{ImageRecord, LayerRecord};

/// Directories that one unpacking process holds open: well below the usual limit of 1024 descriptors.
const MAX_DESCRIPTORS: usize = 400;

/// Imports a Docker or OCI archive, plain or compressed with gzip or zstd; `-` is standard input. Other sources are named by a
/// prefix ([`Source::parse`]). Gives every imported reference; `tag` is added to the first image. An image without a name is called `imported:<digest>`.
pub async fn load(
    home: &Home,
    archive: &Path,
    tag: Option<String>,
    progress: Option<ProgressFn>,
) -> MicrosandboxResult<Vec<ImageInfo>> {
    check_tag(tag.as_deref())?;
    let source = Source::of_path(archive)?;
    Ok(from_source(home, &source, tag, progress).await?.0)
}

/// As [`load`]; nothing of the images is removed while the lease is held.
pub async fn from_source(
    home: &Home,
    source: &Source,
    tag: Option<String>,
    progress: Option<ProgressFn>,
) -> MicrosandboxResult<(Vec<ImageInfo>, Lease)> {
    import(home, source, tag, progress).await.map_err(|failure| failure.during(&format!("load {source}")))
}

fn check_tag(tag: Option<&str>) -> MicrosandboxResult<()> {
    let Some(tag) = tag else { return Ok(()) };
    if tag == HOST {
        return Err(MicrosandboxError::InvalidConfig("the name host means this machine's own image".into()));
    }
    match Reference::parse(tag) {
        Ok(reference) if reference.digest().is_none() => Ok(()),
        Ok(_) => Err(MicrosandboxError::InvalidConfig(format!("{tag:?}: a tag cannot have a digest"))),
        Err(why) => Err(MicrosandboxError::InvalidConfig(why)),
    }
}

async fn import(
    home: &Home,
    source: &Source,
    tag: Option<String>,
    progress: Option<ProgressFn>,
) -> Result<(Vec<ImageInfo>, Lease), Failure> {
    let limits = limits::current()?;
    let cache = LayerCache::open(home)?;
    cache.sweep(home).await?;
    let operation = format!("load {source}");
    let (archive, mut images) = open(home, source.clone(), limits).await?;
    name(&mut images, tag);
    // Before anything is looked for in the cache, until the rows keep it.
    let lease = Lease::take(home, operation, images.iter().flat_map(PlannedImage::digests)).await?;
    let distinct = distinct(&images);
    let below = below(&images);
    let archive = Arc::new(archive);
    let keeping = Keeping::new(home, archive.clone())?;
    let files = BTreeMap::from([(0, archive.file())]);
    let steps = progress.map(|progress| steps(progress, &distinct));
    let import = Import { home, cache: &cache, files, layers: &distinct, below, limits };
    let done = tokio::try_join!(import.unpack(steps), keeping.keep(&images, &distinct));
    failpoint::pause("image_unpacked").await;
    let recorded = match done {
        Ok(_) => record(home, &cache, &images).await,
        Err(failure) => Err(failure),
    };
    match recorded {
        Ok(infos) => Ok((infos, lease)),
        Err(failure) => {
            drop(lease);
            gc::forget(home, &keeping.added()).await?;
            Err(failure)
        }
    }
}

/// Sets the flag when the future that waits for file work is dropped.
pub struct CancelOnDrop(pub Cancelled);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

async fn open(home: &Home, source: Source, limits: ImageLimits) -> Result<(Archive, Vec<PlannedImage>), Failure> {
    let spool = home.cache_dir().join("tmp");
    microsandbox_home::make_private_directory(&spool)?;
    let cancelled = Cancelled::default();
    let _guard = CancelOnDrop(cancelled.clone());
    let home = home.clone();
    let work = move || {
        let room = |place: &Path| {
            let what = || format!("load {source}");
            headroom::check(&home, place, what).map_err(Failure::Other)
        };
        room(&spool)?;
        let archive = source.open(&Spool { place: &spool, room: &room }, &limits, cancelled)?;
        let images = source.select(plan::read(&archive)?)?;
        Ok((archive, images))
    };
    failure::blocking(work).await
}

/// Adds the caller's tag, and gives nameless images a name.
fn name(images: &mut [PlannedImage], tag: Option<String>) {
    if let (Some(first), Some(tag)) = (images.first_mut(), tag)
        && !first.references.contains(&tag)
    {
        // In the spelling of the caller.
        first.references.retain(|known| !same_image(known, &tag));
        first.references.push(tag);
    }
    for image in images {
        if image.references.is_empty() {
            image.references.push(format!("imported:{}", &image.manifest_digest.hex()[..12]));
        }
    }
}

/// Every layer once, each after those beneath it.
pub fn distinct(images: &[PlannedImage]) -> Vec<&PlannedLayer> {
    let mut distinct: Vec<&PlannedLayer> = Vec::new();
    for layer in images.iter().flat_map(|image| &image.layers) {
        if !distinct.iter().any(|known| known.chain_id == layer.chain_id) {
            distinct.push(layer);
        }
    }
    distinct
}

/// For every layer of the archive the ones beneath it, bottom first.
pub fn below(images: &[PlannedImage]) -> BTreeMap<Sha256Digest, Vec<Sha256Digest>> {
    let mut below = BTreeMap::new();
    for image in images {
        let chain: Vec<Sha256Digest> = image.layers.iter().map(|layer| layer.chain_id.clone()).collect();
        for (depth, id) in chain.iter().enumerate() {
            below.entry(id.clone()).or_insert_with(|| chain[..depth].to_vec());
        }
    }
    below
}

/// What unpacking needs to know.
pub struct Import<'a> {
    pub home: &'a Home,
    pub cache: &'a LayerCache,
    /// The files of the layers, by their numbers.
    pub files: BTreeMap<usize, &'a File>,
    /// Each once, every one after those beneath it.
    pub layers: &'a [&'a PlannedLayer],
    pub below: BTreeMap<Sha256Digest, Vec<Sha256Digest>>,
    pub limits: ImageLimits,
}

impl Import<'_> {
    /// Unpacks the layers that the cache lacks, all of them or none.
    pub async fn unpack(self, steps: Option<StepFn>) -> Result<(), Failure> {
        let layers = self.layers;
        let missing: Vec<usize> =
            (0..layers.len()).filter(|i| self.cache.facts(&layers[*i].chain_id).is_none()).collect();
        let log = Log { steps, missing: &missing };
        log.begin(layers.len());
        if missing.is_empty() {
            return Ok(());
        }
        let temporary = self.cache.temporary(missing.len())?;
        let result = match self.run(&missing, &temporary, &log).await {
            Ok(facts) => self.publish(&temporary, &missing, &facts),
            Err(failure) => Err(failure),
        };
        let discarded = temporary.discard(self.home).await;
        result?;
        Ok(discarded?)
    }

    /// Runs the unpacking processes; returns the facts of each layer.
    async fn run(&self, missing: &[usize], temporary: &Temporary, log: &Log<'_>) -> Result<Vec<LayerFacts>, Failure> {
        let mut sources: Vec<LayerSource> =
            (0..missing.len()).map(|number| self.source(missing, number, temporary)).collect();
        sources.reverse();
        let mut facts: Vec<LayerFacts> = Vec::with_capacity(missing.len());
        while !sources.is_empty() {
            let mut descriptors = 0;
            let mut batch = Vec::new();
            while let Some(source) =
                sources.pop_if(|source| batch.is_empty() || descriptors + source.beneath.len() < MAX_DESCRIPTORS)
            {
                descriptors += source.beneath.len() + 1;
                batch.push(source);
            }
            let used: u64 = facts.iter().map(|facts| facts.bytes).sum();
            let total_bytes = self.limits.total_bytes.saturating_sub(used).max(1);
            let limits = ImageLimits { total_bytes, ..self.limits };
            let headroom = headroom::of(&self.home.config().disk);
            let (files, batch) = self.numbered(batch)?;
            let ids = self.home.id_map()?;
            let sources = files.len();
            let spec = UnpackSpec { version: LAUNCH_VERSION, ids, sources, layers: batch, limits, headroom };
            facts.extend(self.job(spec, &files, facts.len(), log).await?);
        }
        Ok(facts)
    }

    fn source(&self, missing: &[usize], number: usize, temporary: &Temporary) -> LayerSource {
        let layer = self.layers[missing[number]];
        // Of this import, or in the cache.
        let place = |id: &Sha256Digest| match missing.iter().position(|i| self.layers[*i].chain_id == *id) {
            Some(number) => temporary.target(number),
            None => self.cache.layer_dir(id),
        };
        LayerSource {
            source: layer.source,
            offset: layer.extent.offset,
            length: layer.extent.length,
            compression: layer.compression,
            blob_digest: layer.blob_digest.as_str().to_owned(),
            diff_id: layer.diff_id.as_str().to_owned(),
            target: temporary.target(number),
            beneath: self.below.get(&layer.chain_id).into_iter().flatten().map(place).collect(),
        }
    }

    /// The files of a batch, and its layers with the numbers of those.
    fn numbered(&self, mut batch: Vec<LayerSource>) -> Result<(Vec<BorrowedFd<'_>>, Vec<LayerSource>), Failure> {
        let mut numbers: Vec<usize> = Vec::new();
        let mut files = Vec::new();
        for layer in &mut batch {
            let known = numbers.iter().position(|number| *number == layer.source);
            let number = match known {
                Some(number) => number,
                None => {
                    let file = self.files.get(&layer.source).ok_or_else(|| {
                        MicrosandboxError::Runtime(format!("the file of {} is not open", layer.blob_digest))
                    })?;
                    numbers.push(layer.source);
                    files.push(file.as_fd());
                    files.len() - 1
                }
            };
            layer.source = number;
        }
        Ok((files, batch))
    }

    /// Runs one unpacking process, for the layers from number `first` on.
    async fn job(
        &self,
        spec: UnpackSpec,
        files: &[BorrowedFd<'_>],
        first: usize,
        log: &Log<'_>,
    ) -> Result<Vec<LayerFacts>, Failure> {
        let mut facts: Vec<Option<LayerFacts>> = vec![None; spec.layers.len()];
        let mut failed: Option<JobError> = None;
        let job = Job::Unpack(spec);
        self.home
            .run_job(&job, files, &mut |report| match report {
                Report::Progress { layer, read, .. } => log.reading(first.saturating_add(layer), read),
                Report::Unpacked { layer, bytes, entries } => {
                    log.unpacked(first.saturating_add(layer));
                    if let Some(slot) = facts.get_mut(layer) {
                        *slot = Some(LayerFacts { bytes, entries });
                    }
                }
                Report::Failed(error) => failed = Some(error),
                _ => {}
            })
            .await?;
        if let Some(error) = failed {
            return Err(failure::job(error));
        }
        let facts: Option<Vec<LayerFacts>> = facts.into_iter().collect();
        facts.ok_or_else(|| Failure::Other(MicrosandboxError::Runtime("msb-runtime left a layer out".into())))
    }

    fn publish(&self, temporary: &Temporary, missing: &[usize], facts: &[LayerFacts]) -> Result<(), Failure> {
        for (number, (i, facts)) in missing.iter().zip(facts).enumerate() {
            self.cache.publish(temporary, number, &self.layers[*i].chain_id, facts)?;
        }
        Ok(())
    }
}

/// A step of unpacking; layers are numbered as they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Before anything is unpacked; whether the cache has the layer.
    Begin {
        layer: usize,
        is_there: bool,
    },
    /// So many packed bytes are read.
    Reading {
        layer: usize,
        read: u64,
    },
    Unpacked {
        layer: usize,
    },
}

/// Called from the importing task, must not block.
pub type StepFn = Arc<dyn Fn(Step) + Send + Sync>;

/// The steps of an import as its progress.
fn steps(progress: ProgressFn, layers: &[&PlannedLayer]) -> StepFn {
    let lengths: Vec<u64> = layers.iter().map(|layer| layer.extent.length).collect();
    Arc::new(move |step| {
        let (phase, layer_index, completed) = match step {
            Step::Begin { layer, is_there } => ("verify", layer, if is_there { u64::MAX } else { 0 }),
            Step::Reading { layer, read } => ("unpack", layer, read),
            Step::Unpacked { layer } => ("unpack", layer, u64::MAX),
        };
        let total_bytes = lengths[layer_index];
        let (layer_count, completed_bytes) = (lengths.len(), completed.min(total_bytes));
        progress(ImageProgress { phase, layer_index, layer_count, completed_bytes, total_bytes });
    })
}

/// Reports the steps; the unpacking process numbers only the layers that are missing.
struct Log<'a> {
    steps: Option<StepFn>,
    missing: &'a [usize],
}

impl Log<'_> {
    fn say(&self, step: Step) {
        if let Some(steps) = &self.steps {
            steps(step);
        }
    }

    fn begin(&self, layers: usize) {
        for layer in 0..layers {
            self.say(Step::Begin { layer, is_there: !self.missing.contains(&layer) });
        }
    }

    fn reading(&self, number: usize, read: u64) {
        if let Some(&layer) = self.missing.get(number) {
            self.say(Step::Reading { layer, read });
        }
    }

    fn unpacked(&self, number: usize) {
        if let Some(&layer) = self.missing.get(number) {
            self.say(Step::Unpacked { layer });
        }
    }
}

/// Stores the images. Another spelling of a name that moves to the new image would be ambiguous, so it goes.
pub async fn record(home: &Home, cache: &LayerCache, images: &[PlannedImage]) -> Result<Vec<ImageInfo>, Failure> {
    let store = home.store().await?;
    let mut infos = Vec::new();
    for image in images {
        infos.extend(store.upsert_image(&image_record(cache, image)).await?);
        for known in store.images().await? {
            let reference = &known.reference;
            if !image.references.contains(reference) && image.references.iter().any(|new| same_image(new, reference)) {
                store.remove_image_names(std::slice::from_ref(reference)).await?;
            }
        }
    }
    Ok(infos)
}

fn image_record(cache: &LayerCache, image: &PlannedImage) -> ImageRecord {
    let layers = image.layers.iter().map(|layer| LayerRecord {
        diff_id: layer.diff_id.as_str().to_owned(),
        blob_digest: layer.blob_digest.as_str().to_owned(),
        media_type: layer.media_type.clone(),
        compressed_size: layer.extent.length,
        unpacked_size: cache.facts(&layer.chain_id).unwrap_or_default().bytes,
    });
    ImageRecord {
        references: image.references.clone(),
        digest: image.manifest_digest.as_str().to_owned(),
        media_type: image.media_type.clone(),
        architecture: Some(image.architecture.clone()),
        os: Some(image.os.clone()),
        variant: image.variant.clone(),
        config: image.config.clone(),
        layers: layers.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_must_be_a_reference_of_its_own() {
        for tag in ["host", "UPPER", "", "a@sha256:0", "../x"] {
            assert!(matches!(check_tag(Some(tag)), Err(MicrosandboxError::InvalidConfig(_))), "{tag}");
        }
        assert!(check_tag(Some("debian-python:12")).is_ok() && check_tag(None).is_ok());
    }
}
