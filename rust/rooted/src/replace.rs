//! A file that becomes visible under its name in one step, complete, or never; where a rename cannot replace it (something is
//! mounted at the name), its content is replaced in place.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// Names that are tried.
const TRIES: usize = 16;
/// Bytes that are copied in one call.
const CHUNK: usize = 256 << 10;

/// A name that no other entry of a directory has: `make` is called with names until one is free.
pub fn with_free_name<T>(mut make: impl FnMut(&str) -> Result<T, Errno>) -> Result<(String, T), Errno> {
    for _ in 0..TRIES {
        let name = format!(".msb-{:016x}.tmp", RandomState::new().build_hasher().finish());
        match make(&name) {
            Err(Errno::EXIST) => {}
            other => return other.map(|made| (name, made)),
        }
    }
    Err(Errno::EXIST)
}

/// How a file got its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is the new file, with the new file's owner and mode.
    Renamed,
    /// It is the old file with the new content.
    InPlace,
}

/// An unfinished sibling of the target; removed unless it is published.
pub struct Temporary {
    dir: OwnedFd,
    name: String,
    file: OwnedFd,
    is_published: bool,
}

impl Temporary {
    /// Creates one in `dir` with the mode 0600.
    pub fn new(dir: OwnedFd) -> Result<Temporary, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (name, file) = with_free_name(|name| rustix::fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR))?;
        Ok(Temporary { dir, name, file, is_published: false })
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Gives the file its final name, replacing what is there.
    pub fn publish(mut self, name: impl Arg + Copy) -> Result<Published, Errno> {
        match rustix::fs::renameat(&self.dir, self.name.as_str(), &self.dir, name) {
            Ok(()) => {
                self.is_published = true;
                Ok(Published::Renamed)
            }
            // The name is a mount point.
            Err(Errno::BUSY | Errno::XDEV) => {
                let target = open_existing(&self.dir, name)?;
                overwrite(&self.file, &target).map(|()| Published::InPlace)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_published {
            // No other code uses the name; if the file cannot be removed, a drop has no caller to report that to.
            let _ = rustix::fs::unlinkat(&self.dir, self.name.as_str(), AtFlags::empty());
        }
    }
}

/// The regular file `name` in `dir`, never through a link, to be written in place. Nothing else is opened for writing.
pub fn open_existing(dir: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(Errno::INVAL),
    }
}

/// Whether the directory refuses a new name although a file in it may be written: it is read-only, or another user's.
pub fn refuses_names(error: Errno) -> bool {
    matches!(error, Errno::ROFS | Errno::ACCESS | Errno::PERM)
}

/// Gives `to` the content of `from`. The end is cut last, so that a reader never sees the file empty.
fn overwrite(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let old = rustix::fs::fstat(to)?.st_size as u64;
    let mut buffer = vec![0; CHUNK];
    let (mut at, mut holes) = (0, Holes::default());
    loop {
        let got = match rustix::io::pread(from, &mut buffer[..], at) {
            Ok(0) => break,
            Ok(got) => got,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        write_over(to, &buffer[..got], at, old, &mut holes)?;
        at += got as u64;
    }
    rustix::fs::ftruncate(to, at)
}

/// Writes all of `data` at `offset`.
pub fn write_all(to: impl AsFd, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::pwrite(&to, data, offset) {
            Ok(written) => {
                data = &data[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Zeros in runs of this size become holes of a new file.
const HOLE: usize = 64 << 10;

/// Zeros of one file that were left out. They need no room, but the file system must have it: a file must not get a content that
/// cannot be written there.
#[derive(Debug, Default)]
pub struct Holes(u64);

impl Holes {
    fn have_room(&self, file: impl AsFd) -> Result<(), Errno> {
        let of = rustix::fs::fstatvfs(file)?;
        // A file system without a size says zero.
        match of.f_blocks > 0 && self.0 > of.f_bfree.saturating_mul(of.f_frsize) {
            true => Err(Errno::NOSPC),
            false => Ok(()),
        }
    }
}

/// The same into a new file, which has holes for long runs of zeros, where there is room for the zeros. Its length is to be set at
/// the end.
pub fn write_sparsely(to: impl AsFd, data: &[u8], offset: u64, holes: &mut Holes) -> Result<(), Errno> {
    let before = holes.0;
    for (piece, at) in data.chunks(HOLE).zip((offset..).step_by(HOLE)) {
        if piece.len() < HOLE || piece.iter().any(|&byte| byte != 0) {
            write_all(&to, piece, at)?;
        } else {
            holes.0 += HOLE as u64;
        }
    }
    if holes.0 > before { holes.have_room(to) } else { Ok(()) }
}

/// The same over a file that had `old` bytes: zeros take the place of its content, and become holes only beyond it. What is
/// left of it is to be cut at the end, so that a writer that never begins changes nothing.
pub fn write_over(to: impl AsFd, data: &[u8], offset: u64, old: u64, holes: &mut Holes) -> Result<(), Errno> {
    // At most the length of `data`.
    let below = old.saturating_sub(offset).min(data.len() as u64) as usize;
    let (over, beyond) = data.split_at(below);
    write_all(&to, over, offset)?;
    write_sparsely(&to, beyond, offset + below as u64, holes)
}

/// Zeros over what a file has from `start` to `end`.
pub fn write_zeros(to: impl AsFd, start: u64, end: u64) -> Result<(), Errno> {
    let zeros = [0; HOLE];
    let mut at = start;
    while at < end {
        // At most HOLE.
        let count = (end - at).min(HOLE as u64) as usize;
        write_all(&to, &zeros[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_replace_old_content_and_are_holes_beyond_it() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("f"), vec![7; 100_000]).unwrap();
        let file = open_existing(std::fs::File::open(directory.path()).unwrap(), "f").unwrap();
        let data = vec![0; 8 << 20];
        write_over(&file, &data, 0, 100_000, &mut Holes::default()).unwrap();
        rustix::fs::ftruncate(&file, data.len() as u64).unwrap();
        assert!(std::fs::read(directory.path().join("f")).unwrap() == data);
        let blocks = std::fs::metadata(directory.path().join("f")).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
    }
}
