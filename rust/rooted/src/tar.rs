//! Reading tar headers: ustar, GNU long names and PAX records. Where two readers of the same archive could disagree on
//! what an entry is, how long it is or what it is called, the archive is refused (CVE-2025-62518 and its kin).

use std::fmt;

const BLOCK: usize = 512;

/// Why an archive is not read any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// It is damaged, or two readers could disagree about it.
    Malformed(String),
    /// A name in it cannot be a name of a file.
    UnsafeName(String),
    /// An extended header is longer than the caller allows.
    ExtensionTooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Malformed(text) | Error::UnsafeName(text) => f.write_str(text),
            Error::ExtensionTooLong => f.write_str("an extended header is too long"),
        }
    }
}

impl std::error::Error for Error {}

type Outcome<T> = Result<T, Error>;

fn corrupt(text: impl Into<String>) -> Error {
    Error::Malformed(text.into())
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

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// As it stands in the archive.
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes, by full name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What extension headers said about the next entry.
#[derive(Default)]
struct Pending {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax_path: Option<Vec<u8>>,
    pax_link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The next entry; `None` at the end of the archive. The caller takes `size` bytes of content and then calls
/// [`skip_padding`].
pub fn next_entry(bytes: &mut impl Source, longest_extension: u64) -> Outcome<Option<Entry>> {
    let mut pending = Pending::default();
    let mut extended = false;
    loop {
        let mut block = [0u8; BLOCK];
        let first = bytes.next(BLOCK as u64);
        if first.is_empty() {
            return if extended { Err(corrupt("the tar ends after an extended header")) } else { Ok(None) };
        }
        let got = first.len();
        block[..got].copy_from_slice(first);
        if !bytes.fill(&mut block[got..]) {
            return Err(corrupt("the tar ends inside a header"));
        }
        if block == [0; BLOCK] {
            return if extended { Err(corrupt("the tar ends after an extended header")) } else { Ok(None) };
        }
        let header = Header(&block);
        header.check()?;
        let size = number(header.field(124, 12), "size")?;
        match header.kind_byte() {
            b'x' => {
                let records = read_extension(bytes, size, longest_extension)?;
                parse_pax(&records, &mut pending)?;
            }
            b'g' => refuse_global(&read_extension(bytes, size, longest_extension)?)?,
            b'L' => set_once(&mut pending.long_name, until_nul(read_extension(bytes, size, longest_extension)?))?,
            b'K' => set_once(&mut pending.long_link, until_nul(read_extension(bytes, size, longest_extension)?))?,
            _ => return header.entry(size, pending).map(Some),
        }
        extended = true;
    }
}

/// Passes over what fills an entry's content up to a whole block.
pub fn skip_padding(bytes: &mut impl Source, size: u64) -> Outcome<()> {
    let rest = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    if bytes.skip(rest) { Ok(()) } else { Err(corrupt("the tar ends inside an entry")) }
}

struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn field(&self, offset: usize, len: usize) -> &[u8] {
        &self.0[offset..offset + len]
    }

    fn kind_byte(&self) -> u8 {
        self.0[156]
    }

    fn check(&self) -> Outcome<()> {
        let sum: u64 =
            self.0.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u64::from(b) }).sum();
        if number(self.field(148, 8), "checksum")? != sum {
            return Err(corrupt("a tar header has a wrong checksum"));
        }
        Ok(())
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100).to_vec());
        // GNU archives use the room of the prefix for other things.
        let prefix =
            if self.field(257, 6) == b"ustar\0" { until_nul(self.field(345, 155).to_vec()) } else { Vec::new() };
        if prefix.is_empty() {
            return name;
        }
        [&prefix[..], b"/", &name].concat()
    }

    fn entry(&self, header_size: u64, pending: Pending) -> Outcome<Entry> {
        let path = one_name(pending.long_name, pending.pax_path, self.path())?;
        let link = one_name(pending.long_link, pending.pax_link, until_nul(self.field(157, 100).to_vec()))?;
        for (what, name) in [("name", &path), ("link target", &link)] {
            if name.contains(&0) {
                return Err(Error::UnsafeName(format!("the {what} {} holds a NUL", quoted(name))));
            }
        }
        let size = pending.size.unwrap_or(header_size);
        let slash = path.last() == Some(&b'/');
        let kind = match self.kind_byte() {
            b'0' | 0 | b'7' if slash => Kind::Dir,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => {
                let text = format!("{} is of type {:?}, which is not supported", quoted(&path), char::from(other));
                return Err(corrupt(text));
            }
        };
        if kind != Kind::File && size != 0 {
            // Some readers pass over this content, others read it as headers.
            return Err(corrupt(format!("{} is no file and yet has content", quoted(&path))));
        }
        let id = |pending: Option<u32>, offset, what| match pending {
            Some(id) => Ok(id),
            None => {
                u32::try_from(number(self.field(offset, 8), what)?).map_err(|_| corrupt(format!("{what} too large")))
            }
        };
        let mtime = match pending.mtime {
            Some(mtime) => mtime,
            None => (i64::try_from(signed_time(self.field(136, 12))).unwrap_or(i64::MAX), 0),
        };
        Ok(Entry {
            kind,
            link,
            size,
            mode: (number(self.field(100, 8), "mode")? & 0o7777) as u32,
            uid: id(pending.uid, 108, "uid")?,
            gid: id(pending.gid, 116, "gid")?,
            mtime,
            xattrs: pending.xattrs,
            path,
        })
    }
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

/// A number field: octal text, or base 256 where the highest bit of the first byte is set.
fn number(field: &[u8], what: &str) -> Outcome<u64> {
    if field[0] & 0x80 != 0 {
        if field[0] & 0x40 != 0 {
            return Err(corrupt(format!("a tar header has a negative {what}")));
        }
        let mut value = u64::from(field[0] & 0x3f);
        for &byte in &field[1..] {
            let wider =
                value.checked_mul(256).ok_or_else(|| corrupt(format!("a tar header has a too large {what}")))?;
            value = wider | u64::from(byte);
        }
        return Ok(value);
    }
    let text: Vec<u8> = field.iter().copied().skip_while(|&byte| byte == b' ').collect();
    let end = text.iter().position(|&byte| byte == 0 || byte == b' ').unwrap_or(text.len());
    let mut value: u64 = 0;
    for &byte in &text[..end] {
        if !(b'0'..=b'7').contains(&byte) {
            return Err(corrupt(format!("a tar header has a {what} that is no number")));
        }
        // Twelve octal digits fit.
        value = value * 8 + u64::from(byte - b'0');
    }
    Ok(value)
}

/// Times are not worth refusing an archive for: what cannot be read is the epoch.
fn signed_time(field: &[u8]) -> u64 {
    number(field, "time").unwrap_or(0)
}

fn read_extension(bytes: &mut impl Source, size: u64, longest: u64) -> Outcome<Vec<u8>> {
    if size > longest {
        return Err(Error::ExtensionTooLong);
    }
    let mut records = vec![0; usize::try_from(size).map_err(|_| corrupt("an extended header is too long"))?];
    if !bytes.fill(&mut records) {
        return Err(corrupt("the tar ends inside an extended header"));
    }
    skip_padding(bytes, size)?;
    Ok(records)
}

/// Calls `take` with every `length key=value\n` record.
fn each_record(mut records: &[u8], mut take: impl FnMut(&[u8], &[u8]) -> Outcome<()>) -> Outcome<()> {
    let broken = || corrupt("an extended header is malformed");
    while !records.is_empty() {
        let space = records.iter().take(20).position(|&byte| byte == b' ').ok_or_else(broken)?;
        let digits = std::str::from_utf8(&records[..space]).map_err(|_| broken())?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(broken());
        }
        let len: usize = digits.parse().map_err(|_| broken())?;
        if len <= space + 1 || len > records.len() || records[len - 1] != b'\n' {
            return Err(broken());
        }
        let record = &records[space + 1..len - 1];
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(broken)?;
        take(&record[..equals], &record[equals + 1..])?;
        records = &records[len..];
    }
    Ok(())
}

fn parse_pax(records: &[u8], pending: &mut Pending) -> Outcome<()> {
    each_record(records, |key, value| {
        match key {
            b"path" => pending.pax_path = Some(value.to_vec()),
            b"linkpath" => pending.pax_link = Some(value.to_vec()),
            b"size" => pending.size = Some(decimal(value, "size")?),
            b"uid" => pending.uid = Some(decimal_id(value, "uid")?),
            b"gid" => pending.gid = Some(decimal_id(value, "gid")?),
            b"mtime" => pending.mtime = Some(time(value)),
            _ if key.starts_with(b"GNU.sparse.") => return Err(corrupt("sparse tar entries are not supported")),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    pending.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    })
}

/// A global header may say nothing that changes what the entries are: readers differ on how far it reaches.
fn refuse_global(records: &[u8]) -> Outcome<()> {
    each_record(records, |key, _| match key {
        b"path" | b"linkpath" | b"size" | b"uid" | b"gid" => Err(corrupt("a global header renames or resizes entries")),
        _ if key.starts_with(b"GNU.sparse.") => Err(corrupt("sparse tar entries are not supported")),
        _ => Ok(()),
    })
}

fn decimal(value: &[u8], what: &str) -> Outcome<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| corrupt(format!("an extended header has a {what} that is no number")))
}

fn decimal_id(value: &[u8], what: &str) -> Outcome<u32> {
    u32::try_from(decimal(value, what)?).map_err(|_| corrupt(format!("an extended header has a too large {what}")))
}

/// `[-]seconds[.fraction]`; what cannot be read is the epoch.
fn time(value: &[u8]) -> (i64, u32) {
    let text = std::str::from_utf8(value).unwrap_or("0");
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().unwrap_or(0);
    let digits: String = fraction.chars().filter(char::is_ascii_digit).chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().unwrap_or(0);
    // Before the epoch the fraction counts backwards.
    if text.starts_with('-') && nanos > 0 { (seconds - 1, 1_000_000_000 - nanos) } else { (seconds, nanos) }
}
