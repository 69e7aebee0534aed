//! The headers that this product writes: GNU's, whose names and numbers are bytes without limits, and one extended header
//! for times that are not whole seconds. GNU tar, libarchive and Python read all of it.

use super::sparse::{BLOCK_MORE_AT, Extent, IN_BLOCK, IN_HEADER, MORE_AT, PAIR, PAIRS_AT, SIZE_AT};
use super::{BLOCK, Kind, padding};

/// What a header says of its entry.
pub struct Head<'a> {
    pub kind: Kind,
    pub path: &'a [u8],
    /// Of a link; else empty.
    pub link: &'a [u8],
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// The parts of a sparse file, each but the last a multiple of a block long.
    pub extents: Option<&'a [Extent]>,
}

impl Head<'_> {
    /// Bytes of content that have to follow, without what fills the last block.
    pub fn stored(&self) -> u64 {
        match self.extents {
            Some(extents) => extents.iter().map(|extent| extent.length).sum(),
            None => self.size,
        }
    }

    /// Adds the header, and those that it needs before and after it.
    pub fn write(&self, out: &mut Vec<u8>) {
        if self.mtime.1 != 0 {
            let record = record(b"mtime", pax_time(self.mtime).as_bytes());
            extension(out, b'x', b"././@PaxHeader", &record);
        }
        if self.link.len() > 100 {
            extension(out, b'K', b"././@LongLink", &[self.link, b"\0"].concat());
        }
        if self.path.len() > 100 {
            extension(out, b'L', b"././@LongLink", &[self.path, b"\0"].concat());
        }
        let mut block = [0; BLOCK];
        let kind = match (self.kind, self.extents) {
            (Kind::File, Some(_)) => b'S',
            (Kind::File, None) => b'0',
            (Kind::Hardlink, _) => b'1',
            (Kind::Symlink, _) => b'2',
            (Kind::Device, _) => b'3',
            (Kind::Dir, _) => b'5',
            (Kind::Fifo, _) => b'6',
        };
        put(&mut block, 0, 100, self.path);
        put_number(&mut block, 100, 8, i64::from(self.mode & 0o7777));
        put_number(&mut block, 108, 8, i64::from(self.uid));
        put_number(&mut block, 116, 8, i64::from(self.gid));
        put_number(&mut block, 124, 12, self.stored() as i64);
        put_number(&mut block, 136, 12, self.mtime.0);
        block[156] = kind;
        put(&mut block, 157, 100, self.link);
        put(&mut block, 257, 8, b"ustar  \0");
        let rest = self.extents.map(|extents| self.put_map(&mut block, extents));
        seal(&mut block);
        out.extend_from_slice(&block);
        for part in rest.unwrap_or_default() {
            out.extend_from_slice(&part);
        }
    }

    /// The map of a sparse file: four parts in the header, twenty-one in each of the blocks that are returned.
    fn put_map(&self, block: &mut [u8; BLOCK], extents: &[Extent]) -> Vec<[u8; BLOCK]> {
        let (first, rest) = extents.split_at(extents.len().min(IN_HEADER));
        put_pairs(block, PAIRS_AT, first);
        block[MORE_AT] = u8::from(!rest.is_empty());
        put_number(block, SIZE_AT, 12, self.size as i64);
        let count = rest.chunks(IN_BLOCK).count();
        let blocks = rest.chunks(IN_BLOCK).enumerate().map(|(index, part)| {
            let mut block = [0; BLOCK];
            put_pairs(&mut block, 0, part);
            block[BLOCK_MORE_AT] = u8::from(index + 1 < count);
            block
        });
        blocks.collect()
    }
}

/// A comment for whoever reads the archive, as a global header.
pub fn comment(out: &mut Vec<u8>, text: &[u8]) {
    extension(out, b'g', b"././@PaxHeader", &record(b"comment", text));
}

/// The mark of the end.
pub fn end(out: &mut Vec<u8>) {
    out.resize(out.len() + 2 * BLOCK, 0);
}

fn extension(out: &mut Vec<u8>, kind: u8, name: &[u8], content: &[u8]) {
    let mut block = [0; BLOCK];
    put(&mut block, 0, 100, name);
    for (at, len) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
        put_number(&mut block, at, len, 0);
    }
    put_number(&mut block, 124, 12, content.len() as i64);
    block[156] = kind;
    put(&mut block, 257, 8, b"ustar  \0");
    seal(&mut block);
    out.extend_from_slice(&block);
    out.extend_from_slice(content);
    // Less than a block.
    out.resize(out.len() + padding(content.len() as u64) as usize, 0);
}

fn put_pairs(block: &mut [u8; BLOCK], at: usize, extents: &[Extent]) {
    for (index, extent) in extents.iter().enumerate() {
        put_number(block, at + index * PAIR, 12, extent.offset as i64);
        put_number(block, at + index * PAIR + PAIR / 2, 12, extent.length as i64);
    }
}

/// As much as fits; a longer name stands in a header before this one.
fn put(block: &mut [u8; BLOCK], at: usize, len: usize, text: &[u8]) {
    let count = text.len().min(len);
    block[at..at + count].copy_from_slice(&text[..count]);
}

/// Octal digits and a NUL, or base 256 where they do not suffice.
fn put_number(block: &mut [u8; BLOCK], at: usize, len: usize, value: i64) {
    let digits = format!("{value:0width$o}", width = len - 1);
    if value >= 0 && digits.len() < len {
        put(block, at, len, digits.as_bytes());
        return;
    }
    let field = &mut block[at..at + len];
    field.fill(if value < 0 { 0xff } else { 0 });
    let bytes = value.to_be_bytes();
    let room = len.min(8);
    field[len - room..].copy_from_slice(&bytes[8 - room..]);
    field[0] |= 0x80;
}

fn seal(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    // At most 512 times 255: six digits.
    put(block, 148, 8, format!("{sum:06o}\0 ").as_bytes());
}

/// `length key=value\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn pax_time((seconds, nanos): (i64, u32)) -> String {
    if seconds < 0 {
        // The fraction counts away from zero there.
        let (seconds, nanos) = (-(seconds + 1), 1_000_000_000 - nanos);
        return format!("-{seconds}.{nanos:09}");
    }
    format!("{seconds}.{nanos:09}")
}
