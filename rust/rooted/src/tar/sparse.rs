//! Sparse files of GNU tar: which parts of the file the archive holds. Four forms exist: in the header and blocks after
//! it (old GNU), in pairs of records (pax 0.0), in one record (pax 0.1), and at the begin of the content (pax 1.0).

use super::header::{Header, number};
use super::pax::{decimal, list, name, once};
use super::{BLOCK, Error, Outcome, Source, corrupt, padding, quoted, unsupported};

/// Bytes of a pair of numbers in a header, and of pairs in a header and in a block after it.
pub const PAIR: usize = 24;
pub const IN_HEADER: usize = 4;
pub const IN_BLOCK: usize = 21;
/// Where the header keeps its pairs, whether blocks follow, and the size of the file; blocks have the second of these elsewhere.
pub const PAIRS_AT: usize = 386;
pub const MORE_AT: usize = 482;
pub const SIZE_AT: usize = 483;
pub const BLOCK_MORE_AT: usize = 504;

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// A sparse file as records describe it.
#[derive(Debug)]
pub struct Sparse {
    pub size: u64,
    /// The true name; that of the header is one for tools that do not know the form.
    pub name: Option<Vec<u8>>,
    /// Absent: the map is in the content.
    pub extents: Option<Vec<Extent>>,
}

/// The records `GNU.sparse.*` of one entry.
#[derive(Default)]
pub struct Keys {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    count: Option<u64>,
    map: Option<Vec<Extent>>,
    /// Pairs of records: an offset waits for its length.
    pairs: Vec<Extent>,
    offset: Option<u64>,
    is_any: bool,
}

impl Keys {
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Outcome<()> {
        self.is_any = true;
        match key {
            b"major" => once(&mut self.major, decimal(value, "version")?, "the version of a sparse file"),
            b"minor" => once(&mut self.minor, decimal(value, "version")?, "the version of a sparse file"),
            b"name" => once(&mut self.name, name(value, "name of a sparse file")?, "the name of a sparse file"),
            // The second is that of pax 1.0.
            b"size" | b"realsize" => once(&mut self.size, decimal(value, "size")?, "the size of a sparse file"),
            b"numblocks" => once(&mut self.count, decimal(value, "count")?, "the parts of a sparse file"),
            b"map" => once(&mut self.map, list(value)?, "the map of a sparse file"),
            b"offset" if self.offset.is_none() => {
                self.offset = Some(decimal(value, "offset")?);
                Ok(())
            }
            b"numbytes" if self.offset.is_some() => {
                let offset = self.offset.take().unwrap_or_default();
                self.pairs.push(Extent { offset, length: decimal(value, "length")? });
                Ok(())
            }
            b"offset" | b"numbytes" => Err(corrupt("the map of a sparse file is incomplete")),
            other => Err(unsupported(format!("sparse files with the record {} are not supported", quoted(other)))),
        }
    }

    /// Which of the three forms it is; `None`: the file is not sparse.
    pub fn form(&self) -> Outcome<Option<Sparse>> {
        if !self.is_any {
            return Ok(None);
        }
        let size = self.size.ok_or_else(|| corrupt("a sparse file without its size"))?;
        let name = self.name.clone();
        let has_map = self.map.is_some() || !self.pairs.is_empty() || self.count.is_some() || self.offset.is_some();
        match (self.major, self.minor) {
            (Some(1), Some(0)) if has_map => Err(corrupt("a sparse file has two maps")),
            (Some(1), Some(0)) => Ok(Some(Sparse { size, name, extents: None })),
            (None, None) | (Some(0), Some(0 | 1)) => {
                let extents = match (&self.map, &self.pairs[..]) {
                    (Some(_), [_, ..]) => return Err(corrupt("a sparse file has two maps")),
                    (Some(map), []) => map.clone(),
                    (None, pairs) => pairs.to_vec(),
                };
                if self.offset.is_some() || self.count != Some(extents.len() as u64) {
                    return Err(corrupt("the map of a sparse file is incomplete"));
                }
                Ok(Some(Sparse { size, name, extents: Some(extents) }))
            }
            (major, minor) => {
                let version = |part: Option<u64>| part.map_or("?".to_owned(), |part| part.to_string());
                let text = format!("sparse files of version {}.{}", version(major), version(minor));
                Err(unsupported(format!("{text} are not supported")))
            }
        }
    }
}

/// The map of an old sparse file, and the file's size.
pub fn map_in_header(header: &Header<'_>, bytes: &mut impl Source, longest: u64) -> Outcome<(u64, Vec<Extent>)> {
    let size = number(header.field(SIZE_AT, 12), "size")?;
    let mut extents = Vec::new();
    let mut is_full = add_pairs(&mut extents, header.field(PAIRS_AT, IN_HEADER * PAIR))?;
    let mut more = header.0[MORE_AT] != 0;
    let mut read = 0;
    while more {
        if !is_full {
            // Some readers end here, others go on.
            return Err(corrupt("the map of a sparse file has a gap"));
        }
        read += BLOCK as u64;
        if read > longest {
            return Err(Error::ExtensionTooLong);
        }
        let mut block = [0; BLOCK];
        if !bytes.fill(&mut block) {
            return Err(corrupt("the tar ends inside the map of a sparse file"));
        }
        is_full = add_pairs(&mut extents, &block[..IN_BLOCK * PAIR])?;
        more = block[BLOCK_MORE_AT] != 0;
    }
    Ok((size, extents))
}

/// Adds the pairs of a field; false if it has room for more.
fn add_pairs(extents: &mut Vec<Extent>, field: &[u8]) -> Outcome<bool> {
    let mut is_full = true;
    for pair in field.chunks_exact(PAIR) {
        let (offset, length) = pair.split_at(PAIR / 2);
        match (offset[0] == 0, length[0] == 0) {
            (true, true) => is_full = false,
            (false, false) if is_full => extents.push(Extent {
                offset: number(offset, "offset of a sparse file")?,
                length: number(length, "length of a part of a sparse file")?,
            }),
            _ => return Err(corrupt("the map of a sparse file has a gap")),
        }
    }
    Ok(is_full)
}

/// The map at the begin of the content, which has `stored` bytes, and how many of them it takes: decimal numbers, a line each,
/// the count of pairs first, filled up to a whole block.
pub fn map_in_content(bytes: &mut impl Source, stored: u64, longest: u64) -> Outcome<(Vec<Extent>, u64)> {
    let mut lines = Lines { bytes, taken: 0, most: stored.min(longest), block: [0; BLOCK], at: BLOCK };
    let count = lines.number(stored)?;
    let mut extents = Vec::new();
    for _ in 0..count {
        extents.push(Extent { offset: lines.number(stored)?, length: lines.number(stored)? });
    }
    let taken = lines.taken;
    Ok((extents, taken))
}

struct Lines<'a, S> {
    bytes: &'a mut S,
    taken: u64,
    most: u64,
    block: [u8; BLOCK],
    at: usize,
}

impl<S: Source> Lines<'_, S> {
    fn number(&mut self, stored: u64) -> Outcome<u64> {
        let mut value: Option<u64> = None;
        loop {
            if self.at == BLOCK {
                self.taken += BLOCK as u64;
                if self.taken > self.most {
                    let too_long = self.taken <= stored;
                    return Err(if too_long { Error::ExtensionTooLong } else { broken() });
                }
                if !self.bytes.fill(&mut self.block) {
                    return Err(corrupt("the tar ends inside the map of a sparse file"));
                }
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let wider = value.unwrap_or(0).checked_mul(10).and_then(|wider| wider.checked_add(digit));
                    value = Some(wider.filter(|wider| *wider <= i64::MAX as u64).ok_or_else(broken)?);
                }
                b'\n' => return value.ok_or_else(broken),
                _ => return Err(broken()),
            }
        }
    }
}

fn broken() -> Error {
    corrupt("the map of a sparse file is malformed")
}

/// A map is ascending, within the file, and accounts for every byte of content.
pub fn check(extents: &[Extent], size: u64, stored: u64) -> Outcome<()> {
    let (mut end, mut sum, mut is_ragged) = (0u64, 0u64, false);
    for extent in extents {
        if extent.offset < end {
            return Err(corrupt("the parts of a sparse file overlap"));
        }
        let beyond = || corrupt("a part of a sparse file lies beyond its end");
        end = extent.offset.checked_add(extent.length).filter(|end| *end <= size).ok_or_else(beyond)?;
        if extent.length > 0 && is_ragged {
            // GNU tar begins every part with a block, others read on.
            return Err(corrupt(
                "a part of a sparse file does not fill its blocks: readers interpret that differently",
            ));
        }
        is_ragged |= padding(extent.length) != 0;
        sum += extent.length;
    }
    if sum != stored {
        return Err(corrupt("the map of a sparse file does not account for its content"));
    }
    Ok(())
}
