//! The unpack job: image layers from files that were handed over into directories of their own, inside the sandbox's id mapping.
//!
//! | module | holds |
//! |---|---|
//! | [`stream`] | from the blob to the bytes of its tar, both digests checked |
//! | [`tree`] | from the entries that [`microsandbox_rooted::tar`] reads to files beneath the layer's directory |
//! | [`lower_layers`] | what the layers beneath say where the archive does not |
//! | [`limits`] | the bounds, and why a job stops |
//! | [`writeback`] | the disk's share of the work, begun before the end |

#[cfg(test)]
mod fuzz;
pub mod limits;
pub mod lower_layers;
pub mod stream;
pub mod tree;
mod writeback;

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use microsandbox_contract::{IdMap, JobError, LAUNCH_VERSION, LayerSource, Report, UnpackSpec};
use microsandbox_rooted::tar;
use rustix::fd::OwnedFd;
use rustix::fs::{self, CWD, Gid, Mode, OFlags, Uid};

use super::in_user_namespace;
use crate::report::Reporter;
use limits::{Budget, Outcome, failed};
use microsandbox_jail::{ids, landlock, seccomp};
use tree::Tree;
use writeback::Writeback;

/// How often progress is reported.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A layer with everything opened that it needs.
struct Layer<'a> {
    source: &'a LayerSource,
    blob: &'a File,
    target: OwnedFd,
    /// Top first.
    beneath: Vec<OwnedFd>,
}

/// Runs the job; the result is the exit code of the process.
pub fn run(spec: &UnpackSpec, sources: Vec<OwnedFd>, reporter: &mut Reporter) -> i32 {
    match unpack_mapped(spec, sources, reporter) {
        Ok(code) => code,
        Err(error) => {
            reporter.send(&Report::Failed(error));
            1
        }
    }
}

fn unpack_mapped(spec: &UnpackSpec, sources: Vec<OwnedFd>, reporter: &mut Reporter) -> Outcome<i32> {
    if spec.version != LAUNCH_VERSION {
        return Err(limits::corrupt(format!("launch contract version {} instead of {LAUNCH_VERSION}", spec.version)));
    }
    let sources: Vec<File> = sources.into_iter().map(File::from).collect();
    // With the caller's rights: the way to these directories may be closed to the mapped ids.
    let layers =
        spec.layers.iter().map(|source| open_layer(source, &sources, &spec.ids)).collect::<Outcome<Vec<_>>>()?;
    in_user_namespace::run(&spec.ids, || match unpack_layers(spec, layers, reporter) {
        Ok(()) => {
            reporter.send(&Report::Done);
            0
        }
        Err(error) => {
            reporter.send(&Report::Failed(error));
            1
        }
    })
}

fn open_layer<'a>(source: &'a LayerSource, sources: &'a [File], map: &IdMap) -> Outcome<Layer<'a>> {
    let open = |path: &Path| {
        fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed("open", path.as_os_str().as_encoded_bytes(), error))
    };
    let blob = sources.get(source.source).ok_or_else(|| limits::corrupt("the file of a layer was not handed over"))?;
    let target = open(&source.target)?;
    let (uid, gid) = ids::root_ids(map);
    let name = source.target.as_os_str().as_encoded_bytes();
    let stat = fs::fstat(&target).map_err(|error| failed("open", name, error))?;
    if (stat.st_uid, stat.st_gid) != (uid, gid) {
        fs::fchown(&target, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|error| failed("set the owner of", name, error))?;
    }
    let beneath = source.beneath.iter().rev().map(|path| open(path)).collect::<Outcome<_>>()?;
    Ok(Layer { source, blob, target, beneath })
}

fn unpack_layers(spec: &UnpackSpec, layers: Vec<Layer<'_>>, reporter: &mut Reporter) -> Outcome<()> {
    // One barrier more between a hostile archive and everything else. Where the kernel lacks it, the writer's own care
    // is all there is.
    let targets: Vec<_> = layers.iter().map(|layer| &layer.target).collect();
    let beneath: Vec<_> = layers.iter().flat_map(|layer| &layer.beneath).collect();
    landlock::confine_writer(&targets, &beneath);
    seccomp::confine_unpacker().map_err(|error| failed("filter the system calls of", b"the unpacker", error))?;
    let mut budget = Budget::new(spec.limits, spec.headroom);
    let writeback = Writeback::start(layers.first().map(|layer| &layer.target));
    let mut last = None;
    for (index, layer) in layers.into_iter().enumerate() {
        let target = rustix::io::fcntl_dupfd_cloexec(&layer.target, 0).map_err(|e| failed("open", b"target", e))?;
        let source = layer.source;
        let entries = unpack_layer(spec, layer, &mut budget, index, reporter)
            .map_err(|error| limits::of_layer(&source.blob_digest, error))?;
        reporter.send(&Report::Unpacked { layer: index, bytes: budget.layer_bytes(), entries });
        last = Some(target);
    }
    drop(writeback);
    // All layers of a job are on one file system; one call makes all of them durable.
    if let Some(target) = last {
        fs::syncfs(&target).map_err(|error| failed("sync", b"the layers", error))?;
    }
    Ok(())
}

fn unpack_layer(
    spec: &UnpackSpec,
    layer: Layer<'_>,
    budget: &mut Budget,
    index: usize,
    reporter: &mut Reporter,
) -> Outcome<u64> {
    let total = layer.source.length;
    let mut reported = Instant::now();
    let mut progress = |read: u64| {
        if reported.elapsed() >= PROGRESS_EVERY || read == total {
            reported = Instant::now();
            reporter.send(&Report::Progress { layer: index, read, total });
        }
    };
    budget.begin_layer();
    stream::with_tar(layer.blob, layer.source, &spec.limits, &mut progress, |bytes| {
        let refused = |error| limits::refused(&spec.limits, error);
        let mut tree = Tree::new(layer.target, layer.beneath, &spec.ids, budget)?;
        let mut entries = 0;
        let mut archive = tar::Archive::new(bytes, spec.limits.pax_bytes);
        while let Some(entry) = archive.next_entry().map_err(refused)? {
            tree.apply(&entry, &mut archive)?;
            entries += 1;
        }
        tree.finish()?;
        Ok::<_, JobError>(entries)
    })
}
