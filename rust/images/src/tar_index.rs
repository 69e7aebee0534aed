//! The offsets of a tar archive's entries, found by a bounded scan of the headers. Nothing is unpacked here.
//!
//! Formats: POSIX ustar and pax, and GNU's long names and binary numbers (`info tar`, "Basic Tar Format"). A size comes
//! from one place: the pax record if there is one, else the header.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::failure::{Failure, corrupt, io, limit};

const BLOCK: u64 = 512;
/// Entries of an image archive: its blobs and documents, not the files in its layers.
const MAX_ENTRIES: usize = 100_000;
/// A pax header, or a long name.
const MAX_EXTENSION: u64 = 1 << 20;
const MAX_NAME: usize = 4096;
/// Links from one name to another.
const MAX_LINKS: usize = 8;

/// The bytes of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

/// What extension headers say about the next entry.
#[derive(Debug, Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl TarIndex {
    /// Reads every header of `file`, which is `length` bytes long.
    pub fn scan(file: &File, path: &Path, length: u64) -> Result<TarIndex, Failure> {
        let mut index = TarIndex::default();
        let mut extended = Extended::default();
        let (mut at, mut count) = (0_u64, 0_usize);
        while let Some(header) = read_header(file, path, at, length)? {
            count += 1;
            if count > MAX_ENTRIES {
                return Err(limit(format!("the archive has more than {MAX_ENTRIES} entries")));
            }
            let own_size =
                number(&header[124..136]).ok_or_else(|| corrupt(format!("bad size in the header at byte {at}")))?;
            let kind = header[156];
            let extension = matches!(kind, b'x' | b'g' | b'L' | b'K');
            // Links and directories carry no data whatever their size field says (as GNU tar reads them).
            let size = match kind {
                _ if extension => own_size,
                b'1' | b'2' | b'3' | b'4' | b'5' | b'6' => 0,
                _ => extended.size.unwrap_or(own_size),
            };
            let extent = Extent { offset: at + BLOCK, length: size };
            let end = extent.offset.checked_add(size).filter(|end| *end <= length);
            let end = end.ok_or_else(|| corrupt(format!("the archive ends inside the entry at byte {at}")))?;
            if extension {
                read_extension(file, path, kind, extent, &mut extended)?;
            } else {
                index.add(&header, extent, std::mem::take(&mut extended))?;
            }
            at = end.next_multiple_of(BLOCK);
        }
        Ok(index)
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

    fn add(&mut self, header: &[u8], extent: Extent, extended: Extended) -> Result<(), Failure> {
        let own_name = || {
            let name = text(&header[0..100]);
            let posix = &header[257..263] == b"ustar\0";
            let prefix = if posix { text(&header[345..500]) } else { String::new() };
            if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
        };
        // A name that leads out of the archive, or is none, is not one that a document can mean.
        let Some(name) = plain(&extended.name.unwrap_or_else(own_name), "") else { return Ok(()) };
        let target = extended.link.unwrap_or_else(|| text(&header[157..257]));
        let entry = match header[156] {
            b'0' | 0 | b'7' => Entry::File(extent),
            b'1' => match plain(&target, "") {
                Some(target) => Entry::Link(target),
                None => return Ok(()),
            },
            b'2' => match plain(&target, name.rsplit_once('/').map_or("", |(dir, _)| dir)) {
                Some(target) => Entry::Link(target),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        match self.entries.insert(name.clone(), entry) {
            None => Ok(()),
            // Which of the two is meant depends on the reader.
            Some(_) => Err(corrupt(format!("the archive holds {name:?} twice"))),
        }
    }
}

/// The header at `at`; `None` at the end of the archive.
fn read_header(file: &File, path: &Path, at: u64, length: u64) -> Result<Option<[u8; 512]>, Failure> {
    let mut header = [0; 512];
    if at == length && at > 0 {
        return Ok(None);
    }
    if at + BLOCK > length {
        return Err(corrupt(if at == 0 { "it is not a tar archive" } else { "the archive is cut short" }));
    }
    file.read_exact_at(&mut header, at).map_err(|e| io("read", path, e))?;
    if header.iter().all(|byte| *byte == 0) {
        return if at == 0 { Err(corrupt("the archive is empty")) } else { Ok(None) };
    }
    let stored = number(&header[148..156]);
    let blanked = |(i, byte): (usize, &u8)| u64::from(if (148..156).contains(&i) { b' ' } else { *byte });
    let sum: u64 = header.iter().enumerate().map(blanked).sum();
    match stored {
        Some(stored) if stored == sum => Ok(Some(header)),
        _ if at == 0 => Err(corrupt("it is not a tar archive")),
        _ => Err(corrupt(format!("bad checksum in the header at byte {at}"))),
    }
}

fn read_extension(file: &File, path: &Path, kind: u8, extent: Extent, out: &mut Extended) -> Result<(), Failure> {
    if extent.length > MAX_EXTENSION {
        return Err(limit(format!(
            "an extension header of {} bytes is over image.pax_bytes = {MAX_EXTENSION}",
            extent.length
        )));
    }
    // At most 1 MiB, checked above.
    let mut content = vec![0; extent.length as usize];
    file.read_exact_at(&mut content, extent.offset).map_err(|e| io("read", path, e))?;
    match kind {
        b'L' => out.name = Some(text(&content)),
        b'K' => out.link = Some(text(&content)),
        b'x' => read_pax(&content, out)?,
        // Global records of image archives are comments.
        _ => {}
    }
    Ok(())
}

/// `<length> <key>=<value>\n`, again and again.
fn read_pax(mut content: &[u8], out: &mut Extended) -> Result<(), Failure> {
    let bad = || corrupt("malformed pax header");
    while !content.is_empty() {
        let space = content.iter().position(|byte| *byte == b' ').filter(|at| (1..=7).contains(at)).ok_or_else(bad)?;
        let length = std::str::from_utf8(&content[..space]).ok().and_then(|digits| digits.parse::<usize>().ok());
        let length = length.filter(|length| *length > space + 1 && *length <= content.len()).ok_or_else(bad)?;
        let record = content[space + 1..length].strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let value = String::from_utf8_lossy(&record[equals + 1..]);
        match &record[..equals] {
            b"path" => out.name = Some(value.into_owned()),
            b"linkpath" => out.link = Some(value.into_owned()),
            b"size" => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                out.size = Some(value.parse().ok().filter(|_| digits).ok_or_else(bad)?);
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(corrupt("sparse files have no place in an image archive"));
            }
            _ => {}
        }
        content = &content[length..];
    }
    Ok(())
}

/// An octal field, or GNU's big-endian binary one; negative and oversized numbers are none.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().checked_sub(8)?);
        let (first, rest) = high.split_first()?;
        if *first != 0x80 || rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        let value = u64::from_be_bytes(low.try_into().ok()?);
        return (value <= i64::MAX as u64).then_some(value);
    }
    let start = field.iter().position(|byte| *byte != b' ')?;
    let digits: &[u8] = field[start..].split(|byte| matches!(byte, 0 | b' ')).next()?;
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Up to the first NUL; what is not UTF-8 matches no name that a document can hold.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
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
