//! What is known about a library file, until the file changes.
//!
//! An inspection reads and hashes twenty megabytes: tens of milliseconds that every `msb run` would pay. So the result
//! is kept in this process and, where the cache directory exists, in `<cache>/libkrunfw.json`. The result is valid for
//! a file of the same device, inode, size and times; the time of change (`st_ctime`) cannot be set by a program that
//! rewrites a file.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use microsandbox_contract::KernelSpec;
use serde::{Deserialize, Serialize};

use super::{inspect, load};
use microsandbox_core::error::Lack;

/// Larger files are no kernels: reading one would only eat memory.
const SIZE_MAX: u64 = 512 << 20;
/// Raised whenever a file is judged differently than before.
const FORMAT: u32 = 1;
const FILE: &str = "libkrunfw.json";

/// The result of an inspection of a library file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub spec: KernelSpec,
    /// `sha256:<hex>` of the file.
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    format: u32,
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    of: Known,
    facts: Facts,
}

static LAST: Mutex<Option<Entry>> = Mutex::new(None);

/// The facts about `file`, open from `path`. The error completes the sentence "the file …, ".
pub fn facts(path: &Path, file: &File, cache: &Path) -> Result<Facts, Lack> {
    let of = known(path, file)?;
    if let Some(entry) = LAST.lock().unwrap_or_else(PoisonError::into_inner).as_ref().filter(|entry| entry.of == of) {
        return Ok(entry.facts.clone());
    }
    let entry = match stored(cache).filter(|entry| entry.of == of && fits(&entry.facts, of.size)) {
        Some(entry) => entry,
        None => {
            let entry = Entry { facts: look(file, of.size)?, of };
            store(cache, &entry);
            entry
        }
    };
    let facts = entry.facts.clone();
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
    Ok(facts)
}

fn known(path: &Path, file: &File) -> Result<Known, Lack> {
    let meta = file
        .metadata()
        .map_err(|error| Lack::new(format!("which cannot be read: {error}"), "make it readable for this user"))?;
    if !meta.is_file() {
        return Err(Lack::new("which is not a regular file", "name the library itself"));
    }
    if meta.len() > SIZE_MAX {
        let reason = format!("which is no guest kernel: it has {} bytes", meta.len());
        return Err(Lack::new(reason, super::INSTALL_HINT));
    }
    Ok(Known {
        format: FORMAT,
        path: path.to_owned(),
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

fn look(file: &File, size: u64) -> Result<Facts, Lack> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    (&mut &*file)
        .take(SIZE_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| Lack::new(format!("which cannot be read: {error}"), "copy it again"))?;
    let spec = load::kernel(file, &inspect::layout(&bytes)?)?;
    use sha2::Digest as _;
    Ok(Facts { spec, digest: format!("sha256:{}", hex::encode(sha2::Sha256::digest(&bytes))) })
}

/// Whatever the cache says, nothing beyond the file is ever mapped.
fn fits(facts: &Facts, size: u64) -> bool {
    facts.spec.offset.checked_add(facts.spec.size).is_some_and(|end| end <= size)
}

fn stored(cache: &Path) -> Option<Entry> {
    serde_json::from_slice(&std::fs::read(cache.join(FILE)).ok()?).ok()
}

/// For other processes. A failure costs them the look, nothing else.
fn store(cache: &Path, entry: &Entry) {
    let Ok(text) = serde_json::to_vec(entry) else { return };
    // Not made here: asking a question must not create a home.
    let Ok(mut file) = tempfile::NamedTempFile::new_in(cache) else { return };
    if file.write_all(&text).is_ok() {
        let _ = file.persist(cache.join(FILE));
    }
}
