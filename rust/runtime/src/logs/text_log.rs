//! Bounded text logs: `kernel.log` (what the guest's first process and its kernel say) and `runtime.log` (what the
//! runtime itself has to say). One older file is kept beside each.

use rustix::fd::OwnedFd;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

/// Size at which a file is put aside.
const MAX_BYTES: u64 = 1 << 20;
/// Bytes of each log in a boot error.
const TAIL_BYTES: usize = 4096;

/// One log file. Nothing here may fail the sandbox: what cannot be written is lost.
pub struct TextLog {
    dir: OwnedFd,
    name: &'static str,
    file: Option<OwnedFd>,
    size: u64,
    /// The newest bytes, until the boot is over.
    tail: Option<Vec<u8>>,
}

impl TextLog {
    pub fn new(dir: OwnedFd, name: &'static str) -> TextLog {
        TextLog { dir, name, file: None, size: 0, tail: Some(Vec::new()) }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(tail) = &mut self.tail {
            tail.extend_from_slice(bytes);
            let over = tail.len().saturating_sub(TAIL_BYTES);
            tail.drain(..over);
        }
        if self.size >= MAX_BYTES {
            self.file = None;
            let _ = fs::renameat(&self.dir, self.name, &self.dir, format!("{}.1", self.name));
        }
        if self.file.is_none() && self.open().is_err() {
            return;
        }
        if let Some(file) = &self.file
            && let Ok(count) = rustix::io::write(file, bytes)
        {
            self.size += count as u64;
        }
    }

    fn open(&mut self) -> Result<(), Errno> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.dir, self.name, flags, Mode::from_raw_mode(0o600))?;
        self.size = u64::try_from(fs::fstat(&file)?.st_size).unwrap_or(0);
        self.file = Some(file);
        Ok(())
    }

    /// The newest lines, for a boot error.
    pub fn tail(&self) -> String {
        self.tail.as_ref().map_or_else(String::new, |tail| String::from_utf8_lossy(tail).into_owned())
    }

    /// The boot is over: the tail is not needed any more.
    pub fn forget_tail(&mut self) {
        self.tail = None;
    }
}
