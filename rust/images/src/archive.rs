//! An image archive as a seekable file with an index: plain archives are used where they lie, compressed ones and
//! streams are first written to an unnamed file in the cache.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use microsandbox_contract::{Compression, ImageLimits};
use rustix::event::{PollFd, PollFlags, Timespec};
use sha2::{Digest as _, Sha256};

use super::document::{MAX_DOCUMENT, Sha256Digest, verify};
use super::failure::{Failure, corrupt, io, limit, mismatch};
use super::limits::{CHUNK, is_look_due};
use super::tar_index::{Extent, TarIndex};
use microsandbox_core::error::MicrosandboxError;

/// How often a wait for a slow writer looks whether the caller has gone.
const CANCEL_CHECK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// The ratio limit begins here: small archives may compress as well as they like.
const RATIO_FREE: u64 = 64 << 20;
/// Standard input, by its usual name.
pub const STDIN: &str = "-";

/// Set when the caller has gone: file work then ends at its next step.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Failure::Other(MicrosandboxError::InvalidState("the import was cancelled".into())));
        }
        Ok(())
    }
}

/// Where unnamed files may be made.
pub struct Spool<'a> {
    pub place: &'a Path,
    /// Refuses more where too little is free.
    pub room: &'a dyn Fn(&Path) -> Result<(), Failure>,
}

/// An indexed archive.
#[derive(Debug)]
pub struct Archive {
    file: File,
    path: PathBuf,
    index: TarIndex,
    cancelled: Cancelled,
}

impl Archive {
    /// Opens and indexes `path`, or standard input for `-`. A stream and a compressed archive go to `spool` first.
    pub fn open(
        path: &Path,
        spool: &Spool<'_>,
        limits: &ImageLimits,
        cancelled: Cancelled,
    ) -> Result<Archive, Failure> {
        let source = open_source(path)?;
        let kind = source.metadata().map_err(|e| io("inspect", path, e))?.file_type();
        if kind.is_dir() {
            let message = format!("{} is a directory; an OCI image layout is loaded as oci:DIR", path.display());
            return Err(Failure::Other(MicrosandboxError::InvalidConfig(message)));
        }
        let mut file = source;
        if kind.is_fifo() || kind.is_socket() || kind.is_char_device() {
            let stream = Stream { file: &file, cancelled: &cancelled };
            file = spooled(stream, spool, limits.total_bytes, &cancelled)?;
        }
        if let Some(plain) = decompressed(&file, path, spool, limits, &cancelled)? {
            file = plain;
        }
        Archive::of(file, path, cancelled)
    }

    /// Indexes a plain archive.
    pub fn of(file: File, path: &Path, cancelled: Cancelled) -> Result<Archive, Failure> {
        let length = file.metadata().map_err(|e| io("inspect", path, e))?.len();
        let index = TarIndex::scan(&file, path, length)?;
        Ok(Archive { file, path: path.to_owned(), index, cancelled })
    }

    /// For the unpacking process.
    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn find(&self, name: &str) -> Option<Extent> {
        self.index.get(name)
    }

    /// A document of the archive, `None` if there is none of that name.
    pub fn document(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.find(name).map(|extent| self.read(extent, name)).transpose()
    }

    /// A document of an image layout, its size and digest checked.
    pub fn blob(&self, digest: &Sha256Digest, size: u64, what: &str) -> Result<Vec<u8>, Failure> {
        let extent = self.blob_extent(digest, size, what)?;
        let bytes = self.read(extent, what)?;
        verify(&bytes, digest, what)?;
        Ok(bytes)
    }

    /// Where a blob of an image layout lies; its size is checked, its content not yet.
    pub fn blob_extent(&self, digest: &Sha256Digest, size: u64, what: &str) -> Result<Extent, Failure> {
        let name = digest.blob_path();
        let extent = self.find(&name).ok_or_else(|| corrupt(format!("{what} ({name}) is not in the archive")))?;
        if extent.length != size {
            return Err(mismatch(format!("{what} ({name}) has {} bytes, its descriptor says {size}", extent.length)));
        }
        Ok(extent)
    }

    fn read(&self, extent: Extent, what: &str) -> Result<Vec<u8>, Failure> {
        if extent.length > MAX_DOCUMENT {
            let length = extent.length;
            return Err(limit(format!("{what} has {length} bytes, more than image.manifest_bytes = {MAX_DOCUMENT}")));
        }
        // At most 4 MiB, checked above.
        let mut bytes = vec![0; extent.length as usize];
        self.file.read_exact_at(&mut bytes, extent.offset).map_err(|e| io("read", &self.path, e))?;
        Ok(bytes)
    }

    /// How the bytes are compressed, by their first ones (RFC 1952, RFC 8878).
    pub fn compression(&self, extent: Extent) -> Result<Compression, Failure> {
        compression_at(&self.file, &self.path, extent)
    }

    /// Digest of the bytes as stored.
    pub fn digest(&self, extent: Extent) -> Result<Sha256Digest, Failure> {
        let mut hash = Sha256::new();
        self.each_chunk(extent, 0, &mut |bytes| {
            self.cancelled.check()?;
            hash.update(bytes);
            Ok(())
        })?;
        Ok(Sha256Digest::from_hash(hash.finalize().as_ref()))
    }

    /// The bytes from `skip` on, in pieces of at most 1 MiB.
    pub fn each_chunk(
        &self,
        extent: Extent,
        skip: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (offset, length) = (extent.offset.saturating_add(skip), extent.length.saturating_sub(skip));
        each_chunk(&self.file, Extent { offset, length }, &|e| io("read", &self.path, e), take)
    }
}

/// These bytes of a file, in pieces of at most 1 MiB. A file that ends before them is an error of the kind `UnexpectedEof`.
pub fn each_chunk(
    file: &File,
    extent: Extent,
    failed: &dyn Fn(std::io::Error) -> Failure,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut at, mut left) = (extent.offset, extent.length);
    let mut buffer = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
    while left > 0 {
        let part = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.read_exact_at(&mut buffer[..part], at).map_err(failed)?;
        take(&buffer[..part])?;
        at += part as u64;
        left -= part as u64;
    }
    Ok(())
}

/// How these bytes of a file are compressed.
pub fn compression_at(file: &File, path: &Path, extent: Extent) -> Result<Compression, Failure> {
    let mut magic = [0; 4];
    let length = magic.len().min(usize::try_from(extent.length).unwrap_or(usize::MAX));
    file.read_exact_at(&mut magic[..length], extent.offset).map_err(|e| io("read", path, e))?;
    Ok(compression_of(&magic))
}

fn open_source(path: &Path) -> Result<File, Failure> {
    if path == Path::new(STDIN) {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| io("open", path, e))?;
        return Ok(File::from(stdin));
    }
    // Without blocking: opening a named pipe that no process writes to must not block for ever.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    File::options().read(true).custom_flags(flags).open(path).map_err(|e| io("open", path, e))
}

/// Reads a pipe so that a cancelled import ends even if no process writes to the pipe.
struct Stream<'a> {
    file: &'a File,
    cancelled: &'a Cancelled,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if self.cancelled.check().is_err() {
                return Err(std::io::Error::other("the import was cancelled"));
            }
            let mut wanted = [PollFd::new(self.file, PollFlags::IN)];
            match rustix::event::poll(&mut wanted, Some(&CANCEL_CHECK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            match self.file.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                result => return result,
            }
        }
    }
}

fn compression_of(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// The decompressed archive, if it was compressed as a whole.
fn decompressed(
    file: &File,
    path: &Path,
    spool: &Spool<'_>,
    limits: &ImageLimits,
    cancelled: &Cancelled,
) -> Result<Option<File>, Failure> {
    let mut magic = [0; 6];
    let read = file.read_at(&mut magic, 0).map_err(|e| io("read", path, e))?;
    if magic.starts_with(b"BZh") || magic == *b"\xfd7zXZ\0" {
        return Err(corrupt("it is compressed with bzip2 or xz; decompress it first (gzip and zstd are understood)"));
    }
    let packed = file.metadata().map_err(|e| io("inspect", path, e))?.len();
    let most = limits.total_bytes.min(packed.saturating_mul(limits.ratio).max(RATIO_FREE));
    let source = BufReader::with_capacity(CHUNK, At { file, offset: 0 });
    let plain = match compression_of(&magic[..read.min(4)]) {
        Compression::None => return Ok(None),
        Compression::Gzip => spooled(flate2::bufread::MultiGzDecoder::new(source), spool, most, cancelled)?,
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(source).map_err(|e| io("decompress", path, e))?;
            let window = limits.zstd_window_bytes.max(1).ilog2();
            decoder.window_log_max(window).map_err(|e| io("decompress", path, e))?;
            spooled(decoder, spool, most, cancelled)?
        }
    };
    Ok(Some(plain))
}

/// Reads a file from a place of its own: the descriptor's position may be shared with other processes.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Copies `source` into an unnamed file, at most `most` bytes.
pub fn spooled(mut source: impl Read, spool: &Spool<'_>, most: u64, cancelled: &Cancelled) -> Result<File, Failure> {
    let place = spool.place;
    let mut target = tempfile::tempfile_in(place).map_err(|e| io("create a file in", place, e))?;
    let mut buffer = vec![0; CHUNK];
    let mut written = 0_u64;
    loop {
        cancelled.check()?;
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(target),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                cancelled.check()?;
                return Err(corrupt(format!("it cannot be read: {error}")));
            }
        };
        written += read as u64;
        if written > most {
            return Err(limit(format!(
                "the archive is larger than {most} bytes when decompressed (image.total_bytes, image.ratio; raise them \
                 with {})",
                super::limits::VARIABLE
            )));
        }
        if is_look_due(written - read as u64, written) {
            (spool.room)(place)?;
        }
        target.write_all(&buffer[..read]).map_err(|e| io("write a temporary file in", place, e))?;
    }
}
