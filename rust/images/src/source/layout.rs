//! An OCI image layout in a directory: what the wanted images consist of is copied to an archive of our own, so that nothing
//! can change between its verification and its use.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use microsandbox_contract::ImageLimits;
use microsandbox_rooted::open::{self, Rule};
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::json;

use super::super::archive::{Cancelled, Spool, each_chunk};
use super::super::document::{self, Descriptor, Kind, MAX_DOCUMENT, OCI_INDEX, Sha256Digest};
use super::super::failure::{Failure, corrupt, io, limit};
use super::super::limits::is_look_due;
use super::super::plan::{REF_NAME, runs_here};
use super::super::tar_index::Extent;
use super::super::tar_writer::TarWriter;

/// Indexes and manifests that are read.
const MAX_DOCUMENTS: usize = 1024;

/// The images of `directory`, or the one that is named `image`, as an unnamed archive.
pub fn pack(
    directory: &Path,
    image: Option<&str>,
    spool: &Spool<'_>,
    limits: &ImageLimits,
    cancelled: &Cancelled,
) -> Result<File, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, directory, flags, Mode::empty()).map_err(|e| io("open", directory, e.into()))?;
    let file = tempfile::tempfile_in(spool.place).map_err(|e| io("create a file in", spool.place, e))?;
    let most = limits.total_bytes;
    let check = |_: &File, before, after| {
        if after > most {
            let variable = super::super::limits::VARIABLE;
            return Err(limit(format!(
                "the images have more than {most} bytes (image.total_bytes; raise it with {variable})"
            )));
        }
        if is_look_due(before, after) { (spool.room)(spool.place) } else { Ok(()) }
    };
    let failed = |error| io("write a temporary file in", spool.place, error);
    let out = TarWriter { file, check: &check, failed: &failed, written: 0 };
    let mut copy = Copy { root, directory, cancelled, out, done: BTreeSet::new() };
    let index = copy.document("index.json")?;
    let top: Vec<Descriptor> = document::index(&index, "index.json", None)?;
    let named = |descriptor: &Descriptor| image.is_none_or(|image| descriptor.annotation(REF_NAME) == Some(image));
    // A name may also be one that an annotation spells otherwise: then all are copied, and the right one is taken later.
    let few = top.iter().any(named);
    let mut pending: Vec<Descriptor> = top.into_iter().filter(|descriptor| !few || named(descriptor)).collect();
    let kept: Vec<_> = pending
        .iter()
        .map(|d| json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size, "annotations": d.annotations}))
        .collect();
    let mut documents = 0;
    while let Some(descriptor) = pending.pop() {
        if descriptor.platform.as_ref().is_some_and(|platform| !runs_here(&platform.os, &platform.architecture)) {
            continue;
        }
        documents += 1;
        if documents > MAX_DOCUMENTS {
            return Err(limit(format!("the layout has more than {MAX_DOCUMENTS} manifests")));
        }
        let digest = Sha256Digest::parse(&descriptor.digest)?;
        if !copy.done.insert(digest.clone()) {
            continue;
        }
        let what = format!("document {}", digest.as_str());
        let bytes = copy.document(&digest.blob_path())?;
        document::verify(&bytes, &digest, &what)?;
        copy.out.document(&digest.blob_path(), &bytes)?;
        match descriptor.kind() {
            Kind::Index => pending.extend(document::index(&bytes, &what, Some(&descriptor.media_type))?),
            Kind::Manifest => {
                let manifest = document::manifest(&bytes, &what, &descriptor.media_type)?;
                copy.blob(&manifest.config)?;
                for layer in &manifest.layers {
                    copy.blob(layer)?;
                }
            }
            Kind::Other => return Err(corrupt(format!("an index names a {:?}", descriptor.media_type))),
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": kept});
    copy.out.document("index.json", index.to_string().as_bytes())?;
    copy.out.end()?;
    Ok(copy.out.file)
}

struct Copy<'a> {
    root: OwnedFd,
    directory: &'a Path,
    cancelled: &'a Cancelled,
    out: TarWriter<'a>,
    done: BTreeSet<Sha256Digest>,
}

impl Copy<'_> {
    fn open(&self, name: &str) -> Result<(File, u64), Failure> {
        let path = self.directory.join(name);
        // Nothing but a file: opening a pipe must not block.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open::open(&self.root, name, flags, Mode::empty(), Rule::BENEATH)
            .map_err(|e| io("open", &path, e.into()))?;
        let file = File::from(file);
        let meta = file.metadata().map_err(|e| io("inspect", &path, e))?;
        if !meta.is_file() {
            return Err(corrupt(format!("{name} of the layout is not a file")));
        }
        Ok((file, meta.len()))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let (file, length) = self.open(name)?;
        let mut bytes = Vec::new();
        let read = file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        read.map_err(|e| io("read", &self.directory.join(name), e))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(limit(format!("{name} has {length} bytes, more than image.manifest_bytes = {MAX_DOCUMENT}")));
        }
        Ok(bytes)
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<(), Failure> {
        let digest = Sha256Digest::parse(&descriptor.digest)?;
        if !self.done.insert(digest.clone()) {
            return Ok(());
        }
        let name = digest.blob_path();
        let (file, length) = self.open(&name)?;
        self.out.head(&name, length)?;
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => corrupt(format!("{name} of the layout became shorter")),
            _ => io("read", &self.directory.join(&name), error),
        };
        each_chunk(&file, Extent { offset: 0, length }, &failed, &mut |bytes| {
            self.cancelled.check()?;
            self.out.put(bytes)
        })?;
        self.out.fill(length)
    }
}
