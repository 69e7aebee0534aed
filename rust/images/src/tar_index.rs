//! The offsets of a tar archive's entries, found by a bounded scan of the headers. Nothing is unpacked here. The headers
//! are read by the one reader, [`microsandbox_rooted::tar`].

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use microsandbox_rooted::tar::{self, Archive, Kind, Source};

use super::failure::{Failure, corrupt, io, limit};

/// Entries of an image archive: its blobs and documents, not the files in its layers.
const MAX_ENTRIES: usize = 100_000;
/// A pax header, or a long name.
const MAX_EXTENSION: u64 = 1 << 20;
const MAX_NAME: usize = 4096;
/// All names and targets of links.
const MAX_NAME_BYTES: usize = 16 << 20;
/// Links from one name to another.
const MAX_LINKS: usize = 8;
/// Bytes of headers that are read in one call.
const CHUNK: u64 = 8 << 10;

/// The bytes of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    File(Extent),
    Link(String),
}

/// The files of an archive by their name, without leading `./`.
#[derive(Debug, Default)]
pub struct TarIndex {
    entries: BTreeMap<String, Entry>,
    name_bytes: usize,
}

impl TarIndex {
    /// Reads every header of `file`, which is `length` bytes long.
    pub fn scan(file: &File, path: &Path, length: u64) -> Result<TarIndex, Failure> {
        let mut index = TarIndex::default();
        let mut archive =
            Archive::new(Scan { file, at: 0, length, held: Vec::new(), used: 0, error: None }, MAX_EXTENSION);
        let mut count = 0;
        loop {
            let begin = archive.source().at;
            let entry = match archive.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => return Err(refused(error, archive.source(), path, begin)),
            };
            count += 1;
            if count > MAX_ENTRIES {
                return Err(limit(format!("the archive has more than {MAX_ENTRIES} entries")));
            }
            let offset = archive.source().at;
            if entry.kind == Kind::File && entry.is_sparse {
                let text = format!("{} is a sparse file; pack the archive without them", tar::quoted(&entry.path));
                return Err(corrupt(text));
            }
            index.add(&entry, Extent { offset, length: entry.size })?;
        }
        match archive.source().error.take() {
            Some(error) => Err(io("read", path, error)),
            None if count == 0 => Err(corrupt("the archive is empty")),
            None => Ok(index),
        }
    }

    /// The file of that name; links inside the archive are followed.
    pub fn get(&self, name: &str) -> Option<Extent> {
        let mut name = name.to_owned();
        for _ in 0..MAX_LINKS {
            match self.entries.get(&name)? {
                Entry::File(extent) => return Some(*extent),
                Entry::Link(target) => name = target.clone(),
            }
        }
        None
    }

    fn add(&mut self, entry: &tar::Entry, extent: Extent) -> Result<(), Failure> {
        // A name that leads out of the archive, or is none, is not one that a document can mean.
        let Some(name) = plain(&text(&entry.path), "") else { return Ok(()) };
        let base = match entry.kind {
            Kind::Symlink => name.rsplit_once('/').map_or("", |(dir, _)| dir),
            _ => "",
        };
        let found = match entry.kind {
            Kind::File => Entry::File(extent),
            Kind::Hardlink | Kind::Symlink => match plain(&text(&entry.link), base) {
                Some(target) => Entry::Link(target),
                None => return Ok(()),
            },
            Kind::Dir | Kind::Fifo | Kind::Device => return Ok(()),
        };
        self.name_bytes += name.len() + if let Entry::Link(target) = &found { target.len() } else { 0 };
        if self.name_bytes > MAX_NAME_BYTES {
            return Err(limit(format!("the names in the archive have more than {MAX_NAME_BYTES} bytes")));
        }
        match self.entries.insert(name.clone(), found) {
            None => Ok(()),
            // Which of the two is meant depends on the reader.
            Some(_) => Err(corrupt(format!("the archive holds {name:?} twice"))),
        }
    }
}

/// The archive's file. What is passed over is not read.
struct Scan<'a> {
    file: &'a File,
    /// Of the next byte.
    at: u64,
    length: u64,
    /// Bytes from the file, `used` of which are behind `at`.
    held: Vec<u8>,
    used: usize,
    error: Option<std::io::Error>,
}

impl Source for Scan<'_> {
    fn next(&mut self, most: u64) -> &[u8] {
        if self.used == self.held.len() {
            let want = self.length.saturating_sub(self.at).min(CHUNK);
            // At most 8 KiB.
            self.held.resize(want as usize, 0);
            self.used = 0;
            if let Err(error) = self.file.read_exact_at(&mut self.held, self.at) {
                self.error = Some(error);
                self.held.clear();
            }
        }
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.held.len() - self.used);
        let start = self.used;
        self.used += count;
        self.at += count as u64;
        &self.held[start..start + count]
    }

    fn skip(&mut self, count: u64) -> bool {
        let Some(end) = self.at.checked_add(count).filter(|end| *end <= self.length) else { return false };
        match usize::try_from(count).ok().filter(|count| *count <= self.held.len() - self.used) {
            Some(count) => self.used += count,
            None => {
                self.held.clear();
                self.used = 0;
            }
        }
        self.at = end;
        true
    }
}

/// Why the entry whose headers begin at `begin`, or the content before them, cannot be read.
fn refused(error: tar::Error, source: &mut Scan<'_>, path: &Path, begin: u64) -> Failure {
    if let Some(error) = source.error.take() {
        return io("read", path, error);
    }
    match error {
        tar::Error::Malformed(_) if begin == 0 && source.at <= 512 => corrupt("it is not a tar archive"),
        tar::Error::ExtensionTooLong => {
            limit(format!("the header of an entry is over image.pax_bytes = {MAX_EXTENSION}"))
        }
        tar::Error::Malformed(text) | tar::Error::Unsupported(text) | tar::Error::UnsafeName(text) => {
            corrupt(format!("{text} (near byte {})", source.at))
        }
    }
}

/// What is not UTF-8 matches no name that a document can hold.
fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// `path`, seen from directory `base`, without `.` and `..`; `None` if it is empty, absolute or leads out.
fn plain(path: &str, base: &str) -> Option<String> {
    if path.starts_with('/') || path.len() > MAX_NAME {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
