//! From a blob to the bytes of its tar: reading, checking the blob's digest and unpacking happen in one
//! thread, checking the tar's digest and writing files in another, with a few buffers between them.

use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use microsandbox_contract::{Compression, ImageLimits, JobError, LayerSource};
use microsandbox_rooted::tar::Source;
use sha2::{Digest, Sha256};

use super::limits::{self, Outcome, corrupt, digest_mismatch};

/// Packed bytes read at a time.
const PACKED_CHUNK: usize = 256 << 10;
/// Unpacked bytes handed over at a time.
const CHUNK: usize = 256 << 10;
/// Unpacked chunks on their way between the threads.
const IN_FLIGHT: usize = 8;
/// zstd's code for a frame that needs a larger window than allowed.
const ZSTD_WINDOW_TEXT: &str = "requires too much memory";

/// The packed bytes of one layer: hashed while it is read.
struct Packed<'a> {
    blob: &'a std::fs::File,
    at: u64,
    end: u64,
    hash: Sha256,
    buffer: Vec<u8>,
    from: usize,
    progress: &'a mut dyn FnMut(u64),
    start: u64,
}

impl Packed<'_> {
    fn taken(&self) -> u64 {
        self.at - self.start
    }
}

impl BufRead for Packed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.from == self.buffer.len() {
            let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(PACKED_CHUNK);
            self.buffer.resize(want, 0);
            self.from = 0;
            self.blob.read_exact_at(&mut self.buffer, self.at)?;
            self.hash.update(&self.buffer);
            self.at += want as u64;
            (self.progress)(self.at - self.start);
        }
        Ok(&self.buffer[self.from..])
    }

    fn consume(&mut self, count: usize) {
        self.from += count;
    }
}

impl Read for Packed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// The digest in hexadecimal, or a refusal of anything but lower-case SHA-256.
pub fn expected_digest(text: &str) -> Outcome<&str> {
    let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    hex.filter(|hex| hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        .ok_or_else(|| digest_mismatch(format!("{text:?} is not a SHA-256 digest (sha256: and 64 lower-case digits)")))
}

fn check_digest(what: &str, expected: &str, hash: Sha256) -> Outcome<()> {
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == expected_digest(expected)? {
        return Ok(());
    }
    Err(digest_mismatch(format!("the {what} is sha256:{found} instead of {expected}")))
}

/// Unpacks `layer` and hands its tar to `consume`; both digests are checked before this returns well.
pub fn with_tar<T>(
    blob: &std::fs::File,
    layer: &LayerSource,
    limits: &ImageLimits,
    progress: &mut (dyn FnMut(u64) + Send),
    consume: impl FnOnce(&mut TarBytes) -> Outcome<T>,
) -> Outcome<T> {
    expected_digest(&layer.blob_digest)?;
    expected_digest(&layer.diff_id)?;
    let (full_send, full) = sync_channel::<Vec<u8>>(IN_FLIGHT);
    let (empty_send, empty) = sync_channel::<Vec<u8>>(IN_FLIGHT + 2);
    std::thread::scope(|scope| {
        let producer = scope.spawn(move || produce(blob, layer, limits, progress, &full_send, &empty));
        let mut bytes = TarBytes { full, empty: empty_send, chunk: Vec::new(), from: 0, hash: Sha256::new() };
        let result = consume(&mut bytes).map(|value| {
            bytes.drain();
            (value, std::mem::take(&mut bytes.hash))
        });
        // Ends the producer if it still has something to say.
        drop(bytes);
        let produced = match producer.join() {
            Ok(produced) => produced,
            Err(_) => Err(corrupt("the unpacking thread failed")),
        };
        match (produced, result) {
            // The consumer sees a broken stream as an early end; the producer knows why it ended.
            (Err(error), _) => Err(error),
            (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok((value, hash))) => check_digest("unpacked layer", &layer.diff_id, hash).map(|()| value),
        }
    })
}

fn produce(
    blob: &std::fs::File,
    layer: &LayerSource,
    limits: &ImageLimits,
    progress: &mut dyn FnMut(u64),
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Outcome<()> {
    let end =
        layer.offset.checked_add(layer.length).ok_or_else(|| corrupt("the layer ends past the largest offset"))?;
    let mut packed = Packed {
        blob,
        at: layer.offset,
        end,
        hash: Sha256::new(),
        buffer: Vec::new(),
        from: 0,
        progress,
        start: layer.offset,
    };
    let stopped = match layer.compression {
        Compression::None => pump(&mut packed, |packed, out| packed.read(out), limits, full, empty)?,
        Compression::Gzip => {
            let mut gzip = flate2::bufread::MultiGzDecoder::new(packed);
            let stopped = pump(&mut gzip, |gzip, out| gzip.read(out), limits, full, empty)?;
            packed = gzip.into_inner();
            stopped
        }
        Compression::Zstd => {
            let mut zstd =
                zstd::stream::read::Decoder::with_buffer(packed).map_err(|e| corrupt(format!("zstd: {e}")))?;
            zstd.window_log_max(limits.zstd_window_bytes.max(1024).ilog2())
                .map_err(|e| corrupt(format!("zstd: {e}")))?;
            let stopped = pump(&mut zstd, |zstd, out| zstd.read(out), limits, full, empty)?;
            packed = zstd.finish();
            stopped
        }
    };
    if stopped {
        return Ok(());
    }
    while !packed.fill_buf().map_err(|e| unreadable(&e, limits))?.is_empty() {
        let count = packed.buffer.len() - packed.from;
        packed.consume(count);
    }
    check_digest("blob", &layer.blob_digest, packed.hash)
}

/// A source whose progress through the packed bytes can be asked.
trait Progress {
    fn taken(&self) -> u64;
}

impl Progress for Packed<'_> {
    fn taken(&self) -> u64 {
        Packed::taken(self)
    }
}

impl Progress for flate2::bufread::MultiGzDecoder<Packed<'_>> {
    fn taken(&self) -> u64 {
        self.get_ref().taken()
    }
}

impl Progress for zstd::stream::read::Decoder<'_, Packed<'_>> {
    fn taken(&self) -> u64 {
        self.get_ref().taken()
    }
}

/// Fills chunks until the source ends. True when the receiver of the chunks is gone.
fn pump<S: Progress>(
    source: &mut S,
    mut read: impl FnMut(&mut S, &mut [u8]) -> io::Result<usize>,
    limits: &ImageLimits,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Outcome<bool> {
    let mut unpacked = 0;
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        let mut ended = false;
        while filled < CHUNK && !ended {
            match read(source, &mut chunk[filled..]) {
                Ok(0) => ended = true,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&error, limits)),
            }
        }
        unpacked += filled as u64;
        limits::check_ratio(limits, source.taken(), unpacked)?;
        chunk.truncate(filled);
        if filled > 0 && full.send(chunk).is_err() {
            return Ok(true);
        }
        if ended {
            return Ok(false);
        }
    }
}

fn unreadable(error: &io::Error, limits: &ImageLimits) -> JobError {
    let text = error.to_string();
    if text.contains(ZSTD_WINDOW_TEXT) {
        return limits::window_exceeded(limits);
    }
    if let Some(errno) = rustix::io::Errno::from_io_error(error) {
        return limits::failed("read the blob of", b"layer", errno);
    }
    corrupt(format!("the layer cannot be unpacked: {text}"))
}

/// The bytes of a tar, hashed as they are taken.
pub struct TarBytes {
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    from: usize,
    hash: Sha256,
}

impl Source for TarBytes {
    fn next(&mut self, most: u64) -> &[u8] {
        if self.from == self.chunk.len() && !self.refill() {
            return &[];
        }
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.chunk.len() - self.from);
        let start = self.from;
        self.from += count;
        &self.chunk[start..start + count]
    }
}

impl TarBytes {
    fn refill(&mut self) -> bool {
        let Ok(chunk) = self.full.recv() else { return false };
        self.hash.update(&chunk);
        let old = std::mem::replace(&mut self.chunk, chunk);
        self.from = 0;
        // The producer may have ended; then the buffer is no longer needed.
        let _ = self.empty.try_send(old);
        true
    }

    /// Takes what is left: it belongs to the digest.
    fn drain(&mut self) {
        while !self.next(u64::MAX).is_empty() {}
    }
}
