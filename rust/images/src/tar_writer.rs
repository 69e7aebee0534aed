//! An archive of plain files that is being written: what `save` gives out, and what an image layout is copied to.

use std::fs::File;
use std::io::Write as _;

use microsandbox_rooted::tar::Kind;
use microsandbox_rooted::tar::write::{self, Head};

use super::failure::Failure;

/// Asked before each piece, with the bytes that are written without it and with it.
pub type Check<'a> = dyn Fn(&File, u64, u64) -> Result<(), Failure> + 'a;

pub struct TarWriter<'a> {
    pub file: File,
    pub check: &'a Check<'a>,
    /// The error of a write.
    pub failed: &'a dyn Fn(std::io::Error) -> Failure,
    pub written: u64,
}

impl TarWriter<'_> {
    /// Begins a file of `size` bytes, which follow in calls of [`TarWriter::put`] with [`TarWriter::fill`] behind them.
    pub fn head(&mut self, name: &str, size: u64) -> Result<(), Failure> {
        let mut header = Vec::new();
        let (path, mtime) = (name.as_bytes(), (0, 0));
        let head = Head { kind: Kind::File, path, link: b"", size, mode: 0o644, uid: 0, gid: 0, mtime, extents: None };
        head.write(&mut header);
        self.put(&header)
    }

    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let before = self.written;
        self.written += bytes.len() as u64;
        (self.check)(&self.file, before, self.written)?;
        self.file.write_all(bytes).map_err(self.failed)
    }

    /// Zeros up to the end of the last block of a file of `size` bytes.
    pub fn fill(&mut self, size: u64) -> Result<(), Failure> {
        // Below 512.
        let rest = (512 - size % 512) % 512;
        self.put(&[0; 512][..rest as usize])
    }

    /// A whole file.
    pub fn document(&mut self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let size = content.len() as u64;
        self.head(name, size)?;
        self.put(content)?;
        self.fill(size)
    }

    pub fn end(&mut self) -> Result<(), Failure> {
        let mut end = Vec::new();
        write::end(&mut end);
        self.put(&end)
    }
}
