//! Blobs of images as their authors stored them, by digest: `<cache>/blobs/`.
//!
//! | name in `blobs/` | what |
//! |---|---|
//! | `sha256/<hex>` | a complete blob; its digest was verified before it got this name |
//! | `.part/<hex>` | a blob that is being written, or whose writer ended; locked (`flock`) by the process that writes it |
//! | `.part/.tmp-*` | a document that is being written |
//!
//! One process writes a blob. Another that needs it waits, and takes over at the same offset when the writer ends.
//! File work here blocks: asynchronous callers use [`microsandbox_home::blocking`].

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use microsandbox_contract::Headroom;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::document::{MAX_DOCUMENT, Sha256Digest};
use super::failure::{self, Failure, io, mismatch};
use super::limits::{CHUNK, is_look_due};
use super::registry::STALL;
use microsandbox_core::error::{ImageErrorKind, MicrosandboxError, MicrosandboxResult};
use microsandbox_home::layer_tree::sync_dir;
use microsandbox_home::{Home, headroom, make_private_directory};

const WAIT_PAUSE: Duration = Duration::from_millis(20);
/// Start of the names of documents that are being written.
const TEMPORARY: &str = ".tmp-";

/// The blob store of a home. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Blobs {
    whole: PathBuf,
    parts: PathBuf,
    headroom: Headroom,
}

/// A complete blob.
#[derive(Debug)]
pub struct Blob {
    pub file: File,
    pub size: u64,
}

/// What [`Blobs::begin`] found.
#[derive(Debug)]
pub enum Begun {
    /// Stored already, maybe by the process that was waited for.
    AlreadyThere(Blob),
    Part(Box<Part>),
}

/// A blob on disk, complete or not, for clean-up and usage.
#[derive(Debug, Clone)]
pub struct Stored {
    pub path: PathBuf,
    pub size: u64,
    /// What it occupies on the disk.
    pub allocated: u64,
    pub changed: SystemTime,
}

impl Blobs {
    /// The blob store of this home; its directories are made if need be.
    pub fn open(home: &Home) -> MicrosandboxResult<Blobs> {
        let blobs = Blobs::of(home);
        make_private_directory(&blobs.whole)?;
        make_private_directory(&blobs.parts)?;
        Ok(blobs)
    }

    /// As [`Blobs::open`], made or not: for reading and clean-up.
    pub fn of(home: &Home) -> Blobs {
        let root = home.cache_dir().join("blobs");
        let headroom = headroom::of(&home.config().disk);
        Blobs { whole: root.join("sha256"), parts: root.join(".part"), headroom }
    }

    /// Where a complete blob is, stored or not.
    pub fn path(&self, digest: &Sha256Digest) -> PathBuf {
        self.whole.join(digest.hex())
    }

    fn part_path(&self, digest: &Sha256Digest) -> PathBuf {
        self.parts.join(digest.hex())
    }

    /// A complete blob.
    pub fn get(&self, digest: &Sha256Digest) -> MicrosandboxResult<Option<Blob>> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => {
                let size = file.metadata().map_err(|e| MicrosandboxError::io("inspect", &path, e))?.len();
                Ok(Some(Blob { file, size }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(MicrosandboxError::io("open", &path, error)),
        }
    }

    /// A stored document, at most 4 MiB; its digest is verified again.
    pub fn document(&self, digest: &Sha256Digest) -> Result<Option<Vec<u8>>, Failure> {
        let Some(blob) = self.get(digest)? else { return Ok(None) };
        if blob.size > MAX_DOCUMENT {
            return Err(super::failure::limit(format!(
                "{} has {} bytes, more than image.manifest_bytes = {MAX_DOCUMENT}",
                digest.as_str(),
                blob.size
            )));
        }
        // At most 4 MiB, checked above.
        let mut bytes = vec![0; blob.size as usize];
        blob.file.read_exact_at(&mut bytes, 0).map_err(|e| io("read", &self.path(digest), e))?;
        super::document::verify(&bytes, digest, "the stored document")?;
        Ok(Some(bytes))
    }

    /// Stores a document that is in memory.
    pub fn put(&self, bytes: &[u8]) -> Result<Sha256Digest, Failure> {
        let digest = Sha256Digest::of(bytes);
        let target = self.path(&digest);
        if self.get(&digest)?.is_some_and(|blob| blob.size == bytes.len() as u64) {
            return Ok(digest);
        }
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.parts)
            .map_err(|e| io("create a file in", &self.parts, e))?;
        file.write_all(bytes).map_err(|e| io("write", &target, e))?;
        file.as_file().sync_all().map_err(|e| io("sync", &target, e))?;
        file.persist(&target).map_err(|e| io("write", &target, e.error))?;
        sync_dir(&self.whole)?;
        Ok(digest)
    }

    /// Begins to write a blob of `size` bytes, or continues where an earlier writer ended. While another process writes it,
    /// this waits and calls `growth` with the bytes that are there. The caller holds a lease on the digest.
    pub async fn begin(
        &self,
        digest: &Sha256Digest,
        size: u64,
        growth: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Begun, Failure> {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let (blobs, wanted) = (self.clone(), digest.clone());
            let now = match failure::blocking(move || blobs.try_begin(&wanted, size)).await? {
                Attempt::Begun(begun) => return Ok(begun),
                Attempt::Busy(now) => now,
            };
            if now != seen {
                (seen, since) = (now, Instant::now());
                growth(now);
            } else if since.elapsed() >= STALL {
                return Err(Failure::of(
                    ImageErrorKind::Stalled,
                    format!(
                        "another process that downloads {} has received nothing for {} s (registry.stall); end it and try \
                         again, the download continues where it is",
                        digest.as_str(),
                        STALL.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(WAIT_PAUSE).await;
        }
    }

    fn try_begin(&self, digest: &Sha256Digest, size: u64) -> Result<Attempt, Failure> {
        if let Some(blob) = self.get(digest)? {
            return Ok(Attempt::Begun(Begun::AlreadyThere(blob)));
        }
        let path = self.part_path(digest);
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| io("open", &path, e))?;
        let length = || file.metadata().map(|meta| meta.len()).map_err(|e| io("inspect", &path, e));
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(Attempt::Busy(length()?)),
            Err(error) => return Err(io("lock", &path, error.into())),
        }
        if !is_at(&file, &path)? {
            // Published or removed between the opening and the lock: look again.
            return Ok(Attempt::Busy(0));
        }
        // Published between the look and the opening: then this file is new, and of no blob that is missing.
        if let Some(blob) = self.get(digest)? {
            fs::remove_file(&path).map_err(|e| io("remove", &path, e))?;
            return Ok(Attempt::Begun(Begun::AlreadyThere(blob)));
        }
        let mut part = Box::new(Part {
            blobs: self.clone(),
            digest: digest.clone(),
            file,
            path,
            size,
            offset: 0,
            hash: Sha256::new(),
            keep: true,
        });
        part.resume()?;
        part.room()?;
        Ok(Attempt::Begun(Begun::Part(part)))
    }

    /// Every complete blob.
    pub fn stored(&self) -> MicrosandboxResult<Vec<(Sha256Digest, Stored)>> {
        let listed = list(&self.whole)?;
        let named = |stored: Stored| {
            let name = stored.path.file_name()?.to_str()?;
            Some((Sha256Digest::parse(&format!("sha256:{name}")).ok()?, stored))
        };
        Ok(listed.into_iter().filter_map(named).collect())
    }

    /// Every blob and document that is not complete.
    pub fn parts(&self) -> MicrosandboxResult<Vec<Stored>> {
        list(&self.parts)
    }

    /// Removes a complete blob. The caller holds the exclusive lock of the cache and nothing needs it.
    pub fn remove(&self, path: &Path) -> MicrosandboxResult<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(MicrosandboxError::io("remove", path, error)),
            _ => Ok(()),
        }
    }

    /// Whether a process writes this part.
    pub fn is_being_written(&self, path: &Path) -> bool {
        let Ok(file) = File::open(path) else { return false };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Removes a part that no process writes; false: one does, or it is gone.
    pub fn remove_part(&self, path: &Path) -> MicrosandboxResult<bool> {
        let file = match File::options().write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(MicrosandboxError::io("open", path, error)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(false),
            Err(error) => return Err(MicrosandboxError::io("lock", path, error.into())),
        }
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(MicrosandboxError::io("remove", path, error)),
        }
    }
}

enum Attempt {
    Begun(Begun),
    /// Another process has it; the bytes that it has written.
    Busy(u64),
}

/// A blob that this process writes. Dropped before [`Part::finish`], what was written stays for the next writer.
#[derive(Debug)]
pub struct Part {
    blobs: Blobs,
    digest: Sha256Digest,
    file: File,
    path: PathBuf,
    /// What the blob has when it is complete.
    size: u64,
    /// Bytes that are written and hashed.
    offset: u64,
    hash: Sha256,
    /// False: the content is wrong or the disk is full, and it goes.
    keep: bool,
}

impl Part {
    /// Where the next byte belongs.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn digest(&self) -> &Sha256Digest {
        &self.digest
    }

    /// Appends; what would make the blob longer than it may be is refused and the part removed.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let end = self.offset + bytes.len() as u64;
        if end > self.size {
            self.keep = false;
            return Err(mismatch(format!(
                "{} has more than the {} bytes of its descriptor",
                self.digest.as_str(),
                self.size
            )));
        }
        if let Err(error) = self.file.write_all_at(bytes, self.offset) {
            let failure = io("write", &self.path, error);
            // A full disk is not left full for a download that may never come.
            self.keep = !matches!(failure, Failure::Other(MicrosandboxError::ResourceExhausted { .. }));
            return Err(failure);
        }
        self.hash.update(bytes);
        let before = std::mem::replace(&mut self.offset, end);
        if is_look_due(before, end) { self.room() } else { Ok(()) }
    }

    /// Forgets everything that was written: the source cannot continue.
    pub fn restart(&mut self) -> Result<(), Failure> {
        self.file.set_len(0).map_err(|e| io("truncate", &self.path, e))?;
        (self.offset, self.hash) = (0, Sha256::new());
        Ok(())
    }

    /// Removes what was written.
    pub fn discard(mut self) {
        self.keep = false;
    }

    /// Checks size and digest and makes the blob visible. Wrong content is removed.
    pub fn finish(mut self) -> Result<Blob, Failure> {
        if self.offset != self.size {
            let text = format!("{} has {} bytes, its descriptor says {}", self.digest.as_str(), self.offset, self.size);
            // Too short is what a cut connection leaves: the next writer continues.
            return Err(mismatch(text));
        }
        let found = Sha256Digest::from_hash(std::mem::take(&mut self.hash).finalize().as_ref());
        if found != self.digest {
            self.keep = false;
            return Err(mismatch(format!("the content of {} has the digest {}", self.digest.as_str(), found.as_str())));
        }
        self.file.sync_data().map_err(|e| io("sync", &self.path, e))?;
        let target = self.blobs.path(&self.digest);
        fs::rename(&self.path, &target).map_err(|e| io("publish", &target, e))?;
        sync_dir(&self.blobs.whole)?;
        let file = File::open(&target).map_err(|e| io("open", &target, e))?;
        Ok(Blob { file, size: self.size })
    }

    /// Reads what an earlier writer left.
    fn resume(&mut self) -> Result<(), Failure> {
        let there = self.file.metadata().map_err(|e| io("inspect", &self.path, e))?.len();
        if there > self.size {
            return self.restart();
        }
        let mut buffer = vec![0; CHUNK];
        while self.offset < there {
            let want = buffer.len().min(usize::try_from(there - self.offset).unwrap_or(usize::MAX));
            let read = self.file.read_at(&mut buffer[..want], self.offset).map_err(|e| io("read", &self.path, e))?;
            if read == 0 {
                break;
            }
            self.hash.update(&buffer[..read]);
            self.offset += read as u64;
        }
        Ok(())
    }

    /// Refuses more where too little is free. What is there is removed: it would keep the disk full.
    fn room(&mut self) -> Result<(), Failure> {
        let what = || format!("store blob {}", self.digest.as_str());
        let checked = headroom::check_open(self.blobs.headroom, &self.file, &self.blobs.parts, what);
        checked.inspect_err(|_| self.keep = false).map_err(Failure::Other)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After `finish` the file has its other name; an empty one helps no next writer.
        if (!self.keep || self.offset == 0) && is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether the open file still has this name.
fn is_at(file: &File, path: &Path) -> Result<bool, Failure> {
    let own = file.metadata().map_err(|e| io("inspect", path, e))?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("inspect", path, error)),
    }
}

fn list(directory: &Path) -> MicrosandboxResult<Vec<Stored>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(MicrosandboxError::io("list", directory, error)),
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        // One that went meanwhile is none.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_file() {
            let changed = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Stored { path: entry.path(), size: meta.len(), allocated: meta.blocks() * 512, changed });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use microsandbox_core::config::LocalConfig;

    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        blobs: Blobs,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let mut config = LocalConfig::default_for_home(dir.path());
        config.disk.host_headroom_mib = Some(0);
        Place { blobs: Blobs::open(&Home::new(config)).unwrap(), _dir: dir }
    }

    async fn part(blobs: &Blobs, digest: &Sha256Digest, size: u64) -> Box<Part> {
        match blobs.begin(digest, size, &|_| {}).await.unwrap() {
            Begun::Part(part) => part,
            Begun::AlreadyThere(_) => panic!("the blob is there already"),
        }
    }

    #[tokio::test]
    async fn a_blob_appears_when_it_is_complete() {
        let place = place();
        let digest = Sha256Digest::of(b"hello world");
        let mut part = part(&place.blobs, &digest, 11).await;
        part.append(b"hello ").unwrap();
        assert!(place.blobs.get(&digest).unwrap().is_none());
        part.append(b"world").unwrap();
        assert_eq!(part.finish().unwrap().size, 11);
        assert_eq!(fs::read(place.blobs.path(&digest)).unwrap(), b"hello world");
        assert!(place.blobs.parts().unwrap().is_empty());
        assert!(matches!(place.blobs.begin(&digest, 11, &|_| {}).await.unwrap(), Begun::AlreadyThere(_)));
    }

    #[tokio::test]
    async fn a_cut_download_continues_at_its_offset() {
        let place = place();
        let digest = Sha256Digest::of(b"hello world");
        let mut first = part(&place.blobs, &digest, 11).await;
        first.append(b"hello ").unwrap();
        drop(first);
        let mut second = part(&place.blobs, &digest, 11).await;
        assert_eq!(second.offset(), 6);
        second.append(b"world").unwrap();
        second.finish().unwrap();
    }

    // hazard: I11
    #[tokio::test]
    async fn wrong_content_never_becomes_a_blob() {
        let place = place();
        let digest = Sha256Digest::of(b"hello world");
        let mut wrong = part(&place.blobs, &digest, 11).await;
        wrong.append(b"hello_world").unwrap();
        assert_eq!(wrong.finish().unwrap_err().kind(), Some(ImageErrorKind::DigestMismatch));
        let mut long = part(&place.blobs, &digest, 11).await;
        assert_eq!(long.offset(), 0, "what was wrong is gone");
        assert_eq!(long.append(b"hello world!").unwrap_err().kind(), Some(ImageErrorKind::DigestMismatch));
        drop(long);
        let mut short = part(&place.blobs, &digest, 11).await;
        short.append(b"hello").unwrap();
        assert_eq!(short.finish().unwrap_err().kind(), Some(ImageErrorKind::DigestMismatch));
        assert!(place.blobs.get(&digest).unwrap().is_none());
        assert_eq!(part(&place.blobs, &digest, 11).await.offset(), 5, "a short one is continued");
    }

    #[tokio::test]
    async fn the_second_writer_waits_and_takes_over() {
        let place = place();
        let digest = Sha256Digest::of(b"hello world");
        let mut first = part(&place.blobs, &digest, 11).await;
        first.append(b"hello ").unwrap();
        let seen = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let (blobs, wanted, growth) = (place.blobs.clone(), digest.clone(), seen.clone());
        let second = tokio::spawn(async move {
            let note = |bytes| growth.store(bytes, std::sync::atomic::Ordering::Relaxed);
            blobs.begin(&wanted, 11, &note).await
        });
        while seen.load(std::sync::atomic::Ordering::Relaxed) != 6 {
            assert!(!second.is_finished());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(first);
        let Begun::Part(mut second) = second.await.unwrap().unwrap() else { panic!("nothing was published") };
        assert_eq!(second.offset(), 6);
        second.append(b"world").unwrap();
        second.finish().unwrap();
    }

    #[tokio::test]
    async fn the_second_writer_finds_what_the_first_published() {
        let place = place();
        let digest = Sha256Digest::of(b"hello world");
        let mut first = part(&place.blobs, &digest, 11).await;
        let (blobs, wanted) = (place.blobs.clone(), digest.clone());
        let second = tokio::spawn(async move { blobs.begin(&wanted, 11, &|_| {}).await });
        tokio::time::sleep(WAIT_PAUSE * 2).await;
        first.append(b"hello world").unwrap();
        first.finish().unwrap();
        assert!(matches!(second.await.unwrap().unwrap(), Begun::AlreadyThere(blob) if blob.size == 11));
    }

    #[tokio::test]
    async fn a_part_in_use_is_not_cleaned_up() {
        let place = place();
        let digest = Sha256Digest::of(b"hello world");
        let mut writer = part(&place.blobs, &digest, 11).await;
        writer.append(b"hello").unwrap();
        let path = place.blobs.parts().unwrap().remove(0).path;
        assert!(!place.blobs.remove_part(&path).unwrap());
        drop(writer);
        assert!(place.blobs.remove_part(&path).unwrap());
        assert!(!place.blobs.remove_part(&path).unwrap());
    }

    #[test]
    fn a_document_is_stored_once_and_verified_when_read() {
        let place = place();
        let digest = place.blobs.put(b"{}").unwrap();
        assert_eq!(place.blobs.put(b"{}").unwrap(), digest);
        assert_eq!(place.blobs.document(&digest).unwrap().unwrap(), b"{}");
        fs::write(place.blobs.path(&digest), b"[]").unwrap();
        assert_eq!(place.blobs.document(&digest).unwrap_err().kind(), Some(ImageErrorKind::DigestMismatch));
        assert_eq!(place.blobs.stored().unwrap().len(), 1);
        assert!(place.blobs.document(&Sha256Digest::of(b"other")).unwrap().is_none());
    }
}
