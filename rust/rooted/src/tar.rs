//! Reading tar archives as tools make them: v7, ustar, POSIX pax and GNU. A form is read as every reader reads it, or it
//! is refused by its name. Where two readers of the same archive could disagree on what an entry is, how long it is or
//! what it is called, the archive is refused (CVE-2025-62518 and its kin).
//!
//! | module | holds |
//! |---|---|
//! | [`header`] | one block of a header: its numbers, its names, and which tool's dialect it is |
//! | [`pax`] | the records of extended headers |
//! | [`sparse`] | maps of sparse files, in the four forms of GNU tar |
//! | [`write`] | the other direction: the headers that this product writes |

mod header;
mod pax;
mod sparse;
pub mod write;

use std::fmt;

use header::{Header, Meaning};
use pax::{Global, Local};
pub use sparse::Extent;
use sparse::Sparse;

pub(crate) const BLOCK: usize = 512;
/// Volume labels and global headers that may follow each other.
const MAX_METADATA: usize = 1000;

/// Why an archive is not read any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// It is damaged, or two readers could disagree about it.
    Malformed(String),
    /// It is of a form that this reader does not know.
    Unsupported(String),
    /// A name in it cannot be a name of a file.
    UnsafeName(String),
    /// An extended header, or the map of a sparse file, is longer than the caller allows.
    ExtensionTooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Malformed(text) | Error::Unsupported(text) | Error::UnsafeName(text) => f.write_str(text),
            Error::ExtensionTooLong => f.write_str("an extended header or the map of a sparse file is too long"),
        }
    }
}

impl std::error::Error for Error {}

type Outcome<T> = Result<T, Error>;

fn corrupt(text: impl Into<String>) -> Error {
    Error::Malformed(text.into())
}

fn unsupported(text: impl Into<String>) -> Error {
    Error::Unsupported(text.into())
}

/// A name out of an archive, safe to show.
pub fn quoted(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name).chars().take(200).collect();
    format!("{text:?}")
}

/// Where the bytes of an archive come from. An error of the source looks like its end; the source keeps the reason.
pub trait Source {
    /// Up to `most` bytes that come next; empty at the end.
    fn next(&mut self, most: u64) -> &[u8];

    /// Fills `out`; false if the archive ends before it is full.
    fn fill(&mut self, out: &mut [u8]) -> bool {
        let mut filled = 0;
        while filled < out.len() {
            let piece = self.next((out.len() - filled) as u64);
            if piece.is_empty() {
                return false;
            }
            let count = piece.len();
            out[filled..filled + count].copy_from_slice(piece);
            filled += count;
        }
        true
    }

    /// Passes over `count` bytes; false if the archive ends before.
    fn skip(&mut self, mut count: u64) -> bool {
        while count > 0 {
            let passed = self.next(count).len() as u64;
            if passed == 0 {
                return false;
            }
            count -= passed;
        }
        true
    }
}

/// Longest extended header of an archive of files that a user or a guest made: names, times and attributes of one entry.
pub const LONGEST_EXTENSION: u64 = 1 << 20;

/// An archive that arrives in pieces: `next` waits for one, and gives an empty one at the end. A stream that broke off looks like
/// the end, which makes an unfinished archive an error.
pub struct Pieces<P, N> {
    next: N,
    piece: P,
    /// What was taken of the piece.
    at: usize,
}

impl<P: AsRef<[u8]> + Default, N: FnMut() -> P> Pieces<P, N> {
    pub fn new(next: N) -> Pieces<P, N> {
        Pieces { next, piece: P::default(), at: 0 }
    }
}

impl<P: AsRef<[u8]>, N: FnMut() -> P> Source for Pieces<P, N> {
    fn next(&mut self, most: u64) -> &[u8] {
        if self.at == self.piece.as_ref().len() {
            self.piece = (self.next)();
            self.at = 0;
        }
        let rest = &self.piece.as_ref()[self.at..];
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(rest.len());
        self.at += count;
        &rest[..count]
    }
}

impl<S: Source> Source for &mut S {
    fn next(&mut self, most: u64) -> &[u8] {
        (**self).next(most)
    }
    fn skip(&mut self, count: u64) -> bool {
        (**self).skip(count)
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Hardlink,
    Fifo,
    /// A character or block device.
    Device,
}

/// One entry, with everything that was said about it resolved.
#[derive(Debug, Clone)]
pub struct Entry {
    pub kind: Kind,
    /// As it stands in the archive; never empty.
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    /// Bytes of the file once it is unpacked. Those that no piece covers are zeros.
    pub size: u64,
    /// Not every byte of the file is in the archive.
    pub is_sparse: bool,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes, by full name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive being read, entry by entry. Content that the caller does not take is passed over.
pub struct Archive<S> {
    source: S,
    longest_extension: u64,
    global: Global,
    /// Bytes of the present entry's content that were not taken, and what fills it up to a whole block.
    left: u64,
    padding: u64,
    /// Where the rest of the content belongs, the next part at the end.
    extents: Vec<Extent>,
}

impl<S: Source> Archive<S> {
    /// `longest_extension` bounds an extended header and the map of a sparse file, in bytes.
    pub fn new(source: S, longest_extension: u64) -> Archive<S> {
        Archive { source, longest_extension, global: Global::default(), left: 0, padding: 0, extents: Vec::new() }
    }

    /// The source: at the first byte of content after [`Archive::next_entry`] returned an entry.
    pub fn source(&mut self) -> &mut S {
        &mut self.source
    }

    /// The comments on the whole archive that were read so far.
    pub fn comments(&self) -> &[Vec<u8>] {
        &self.global.comments
    }

    /// The next entry; `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Outcome<Option<Entry>> {
        if !self.source.skip(self.left) || !self.source.skip(self.padding) {
            return Err(corrupt("the tar ends inside an entry"));
        }
        (self.left, self.padding) = (0, 0);
        self.extents.clear();
        let mut said = Said::default();
        for _ in 0..MAX_METADATA {
            let Some(block) = self.block()? else {
                return if said.is_empty() { Ok(None) } else { Err(corrupt("the tar ends after an extended header")) };
            };
            let header = Header(&block);
            header.check()?;
            match header.meaning()? {
                Meaning::Pax => said.add_pax(&self.extension(&header)?)?,
                Meaning::Global => {
                    let records = self.extension(&header)?;
                    self.global.read(&records)?;
                }
                Meaning::LongName => said.add_name(self.extension(&header)?)?,
                Meaning::LongLink => said.add_link(self.extension(&header)?)?,
                Meaning::Label if said.is_empty() => {}
                Meaning::Label => return Err(corrupt("an extended header describes the label of a volume")),
                Meaning::Entry(kind) => return self.entry(&header, kind, said, false).map(Some),
                Meaning::Sparse => return self.entry(&header, Kind::File, said, true).map(Some),
            }
        }
        Err(corrupt(format!("more than {MAX_METADATA} headers describe no entry")))
    }

    /// The next piece of the present entry's content, and its place in the file; `None` when there is no more.
    pub fn piece(&mut self) -> Outcome<Option<(u64, &[u8])>> {
        while self.extents.last().is_some_and(|extent| extent.length == 0) {
            self.extents.pop();
        }
        let Some(extent) = self.extents.last_mut() else { return Ok(None) };
        let piece = self.source.next(extent.length);
        if piece.is_empty() {
            return Err(corrupt("the tar ends inside an entry"));
        }
        let (at, count) = (extent.offset, piece.len() as u64);
        extent.offset += count;
        extent.length -= count;
        self.left -= count;
        Ok(Some((at, piece)))
    }

    /// The next header; `None` at the end of the archive, which a block of zeros marks.
    fn block(&mut self) -> Outcome<Option<[u8; BLOCK]>> {
        let mut block = [0u8; BLOCK];
        let first = self.source.next(BLOCK as u64);
        if first.is_empty() {
            return Ok(None);
        }
        let got = first.len();
        block[..got].copy_from_slice(first);
        if !self.source.fill(&mut block[got..]) {
            return Err(corrupt("the tar ends inside a header"));
        }
        Ok((block != [0; BLOCK]).then_some(block))
    }

    /// The content of an extended header.
    fn extension(&mut self, header: &Header<'_>) -> Outcome<Vec<u8>> {
        let size = header.size()?;
        if size > self.longest_extension {
            return Err(Error::ExtensionTooLong);
        }
        let mut content = vec![0; usize::try_from(size).map_err(|_| Error::ExtensionTooLong)?];
        if !self.source.fill(&mut content) || !self.source.skip(padding(size)) {
            return Err(corrupt("the tar ends inside an extended header"));
        }
        Ok(content)
    }

    fn entry(&mut self, header: &Header<'_>, kind: Kind, said: Said, old_sparse: bool) -> Outcome<Entry> {
        let Said { long_name, long_link, mut pax, .. } = said;
        let sparse = pax.sparse()?;
        let is_sparse = old_sparse || sparse.is_some();
        let path = match sparse.as_ref().and_then(|sparse| sparse.name.clone()) {
            Some(_) if long_name.is_some() => return Err(corrupt("a sparse file has two names")),
            Some(name) => usable("name", name)?,
            None => usable("name", one_name(long_name, pax.path.take(), header.path()?)?)?,
        };
        let link = usable("link target", one_name(long_link, pax.link.take(), header.link())?)?;
        if path.is_empty() {
            return Err(corrupt("an entry has no name"));
        }
        // A name with a slash at its end is a directory also where the header says "file" (v7 knows nothing else).
        let kind = if kind == Kind::File && path.last() == Some(&b'/') { Kind::Dir } else { kind };
        let stored = pax.size.map_or_else(|| header.size(), Ok)?;
        let contradiction = match kind {
            Kind::File if old_sparse && sparse.is_some() => Some("sparse in two forms"),
            Kind::File => None,
            _ if is_sparse => Some("no file and yet sparse"),
            // Some readers pass over this content, others read it as headers.
            _ if stored != 0 && !header.is_dump_directory() => Some("no file and yet has content"),
            _ => None,
        };
        if let Some(what) = contradiction {
            return Err(corrupt(format!("{} is {what}", quoted(&path))));
        }
        let size = if is_sparse {
            self.begin_sparse(header, sparse, stored).map_err(|error| error.about(&path))?
        } else {
            let size = if kind == Kind::File { stored } else { 0 };
            self.begin(stored, vec![Extent { offset: 0, length: size }]);
            size
        };
        Ok(Entry {
            kind,
            link,
            size,
            is_sparse,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: pax.mtime.or(self.global.mtime).map_or_else(|| header.mtime(), Ok)?,
            xattrs: pax.xattrs.into_iter().collect(),
            path,
        })
    }
}

impl<S: Source> Archive<S> {
    /// `stored` bytes of content begin here.
    fn begin(&mut self, stored: u64, extents: Vec<Extent>) {
        self.left = stored;
        self.padding = padding(stored);
        self.extents = extents;
        self.extents.reverse();
    }

    /// The same of a sparse file, whose map may come first; the file's size is returned.
    fn begin_sparse(&mut self, header: &Header<'_>, said: Option<Sparse>, stored: u64) -> Outcome<u64> {
        let longest = self.longest_extension;
        let (size, extents, map) = match said {
            Some(Sparse { size, extents: Some(extents), .. }) => (size, extents, 0),
            Some(Sparse { size, extents: None, .. }) => {
                let (extents, map) = sparse::map_in_content(&mut self.source, stored, longest)?;
                (size, extents, map)
            }
            None => {
                let (size, extents) = sparse::map_in_header(header, &mut self.source, longest)?;
                (size, extents, 0)
            }
        };
        sparse::check(&extents, size, stored - map)?;
        self.begin(stored - map, extents);
        Ok(size)
    }
}

impl Error {
    /// Of damage: which entry is damaged.
    fn about(self, path: &[u8]) -> Error {
        match self {
            Error::Malformed(text) => Error::Malformed(format!("{}: {text}", quoted(path))),
            other => other,
        }
    }
}

/// What fills `size` bytes up to a whole block.
pub(crate) fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// What extension headers said about the next entry.
#[derive(Default)]
struct Said {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    has_pax: bool,
    pax: Local,
}

impl Said {
    fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && !self.has_pax
    }

    fn add_pax(&mut self, records: &[u8]) -> Outcome<()> {
        if std::mem::replace(&mut self.has_pax, true) {
            // Some readers add them up, others keep the last one.
            return Err(corrupt("an entry has two extended headers"));
        }
        self.pax.read(records)
    }

    fn add_name(&mut self, name: Vec<u8>) -> Outcome<()> {
        set_once(&mut self.long_name, until_nul(name))
    }

    fn add_link(&mut self, link: Vec<u8>) -> Outcome<()> {
        set_once(&mut self.long_link, until_nul(link))
    }
}

/// A name that a file can have.
fn usable(what: &str, name: Vec<u8>) -> Outcome<Vec<u8>> {
    if name.contains(&0) {
        return Err(Error::UnsafeName(format!("the {what} {} holds a NUL", quoted(&name))));
    }
    Ok(name)
}

fn one_name(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>, plain: Vec<u8>) -> Outcome<Vec<u8>> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => {
            Err(corrupt(format!("an entry is called both {} and {}", quoted(&gnu), quoted(&pax))))
        }
        (_, Some(name)) | (Some(name), None) => Ok(name),
        (None, None) => Ok(plain),
    }
}

fn set_once(slot: &mut Option<Vec<u8>>, value: Vec<u8>) -> Outcome<()> {
    if slot.is_some() {
        return Err(corrupt("an entry has two long names"));
    }
    *slot = Some(value);
    Ok(())
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
        bytes.truncate(end);
    }
    bytes
}
