//! A log file and its rotations as one sequence of lines. Files are held open while they are read, so a rotation under
//! the reader moves names, not lines.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use chrono::{DateTime, Utc};

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::log_cursor::Position;

/// Bytes per read.
const CHUNK: usize = 256 << 10;
/// Longest line that is still kept together; the writer's lines are far shorter.
const LINE_MAX: usize = 16 << 20;
/// Rotations looked for.
const ROTATIONS_MAX: u32 = 64;

struct Part {
    file: File,
    generation: u64,
    /// Where `buffer` begins in the file.
    offset: u64,
    buffer: Vec<u8>,
    /// Consumed bytes of `buffer`.
    start: usize,
    created: DateTime<Utc>,
}

/// A family `name`, `name.1`, … in one directory.
pub struct Chain {
    path: PathBuf,
    /// Oldest first; the last one is the file being written.
    parts: VecDeque<Part>,
    /// Files were rotated away before they were read.
    pub gap: bool,
}

impl Chain {
    /// Opens the family at `from`. A position whose file is gone is an error.
    pub fn open(path: PathBuf, from: Position) -> MicrosandboxResult<Chain> {
        let mut chain = Chain { path, parts: VecDeque::new(), gap: false };
        let parts = chain.discover(None).map_err(|error| chain.failed(error))?;
        chain.parts = parts.0;
        if from == Position::default() {
            return Ok(chain);
        }
        let lost = || {
            MicrosandboxError::InvalidCursor(
                "the log was rotated past this position, or it is of another sandbox".into(),
            )
        };
        let index = chain.parts.iter().position(|part| part.generation == from.generation).ok_or_else(lost)?;
        chain.parts.drain(..index);
        let part = &mut chain.parts[0];
        let mut before = [0];
        let at_line = from.offset == 0
            || part.file.read_at(&mut before, from.offset - 1).is_ok_and(|count| count == 1 && before[0] == b'\n');
        if !at_line {
            return Err(lost());
        }
        part.offset = from.offset;
        Ok(chain)
    }

    /// The place after the last line taken.
    pub fn position(&self) -> Position {
        self.parts.front().map_or_else(Position::default, |part| Position {
            generation: part.generation,
            offset: part.offset + part.start as u64,
        })
    }

    /// When the file at hand was made.
    pub fn created(&self) -> Option<DateTime<Utc>> {
        self.parts.front().map(|part| part.created)
    }

    /// The next complete line without its newline, with the place after it. A torn last line is none yet.
    pub fn next_line(&mut self) -> MicrosandboxResult<Option<(Vec<u8>, Position)>> {
        loop {
            let Some(part) = self.parts.front_mut() else {
                if !self.extend()? {
                    return Ok(None);
                }
                continue;
            };
            if let Some(line) = part.take_line() {
                return Ok(Some((line, self.position())));
            }
            let path = &self.path;
            if part.fill().map_err(|error| MicrosandboxError::io("read", path, error))? {
                continue;
            }
            if self.parts.len() == 1 && !self.extend()? {
                return Ok(None);
            }
            // Appends may have come between the end of file and the rotation: only a second end of file is one.
            let part = &mut self.parts[0];
            if !part.fill().map_err(|error| MicrosandboxError::io("read", &self.path, error))? {
                self.parts.pop_front();
            }
        }
    }

    /// Looks for files newer than the newest one at hand.
    fn extend(&mut self) -> MicrosandboxResult<bool> {
        let newest = self.parts.back().map(|part| part.generation);
        if let (Some(newest), Ok(file)) = (newest, File::open(&self.path))
            && generation(&file).is_ok_and(|(current, _)| current == newest)
        {
            return Ok(false);
        }
        let (newer, found) = self.discover(newest).map_err(|error| self.failed(error))?;
        self.gap |= newest.is_some() && !found && !newer.is_empty();
        let any = !newer.is_empty();
        self.parts.extend(newer);
        Ok(any)
    }

    /// Opens the family newest first, down to `known`, so that a rotation during the scan can only show a file
    /// twice. Returns the files oldest first, and whether `known` was found.
    fn discover(&self, known: Option<u64>) -> std::io::Result<(VecDeque<Part>, bool)> {
        let mut parts: VecDeque<Part> = VecDeque::new();
        let mut is_missing = false;
        for number in 0..=ROTATIONS_MAX {
            let path = if number == 0 { self.path.clone() } else { suffixed(&self.path, number) };
            let file = match File::open(path) {
                Ok(file) => file,
                // In the middle of a rotation one name is free: the family ends where two in a row are.
                Err(error) if error.kind() == ErrorKind::NotFound && !is_missing => {
                    is_missing = true;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            is_missing = false;
            let (generation, created) = generation(&file)?;
            if Some(generation) == known {
                return Ok((parts, true));
            }
            if parts.iter().all(|part| part.generation != generation) {
                parts.push_front(Part { file, generation, offset: 0, buffer: Vec::new(), start: 0, created });
            }
        }
        Ok((parts, false))
    }

    fn failed(&self, error: std::io::Error) -> MicrosandboxError {
        MicrosandboxError::io("read", &self.path, error)
    }
}

impl Part {
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let rest = &self.buffer[self.start..];
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let line = rest[..end].to_vec();
        self.start += end + 1;
        Some(line)
    }

    /// Reads more; false at the end of the file.
    fn fill(&mut self) -> std::io::Result<bool> {
        self.offset += self.start as u64;
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() > LINE_MAX {
            // Not a line of ours: skipped.
            self.offset += self.buffer.len() as u64;
            self.buffer.clear();
        }
        let old = self.buffer.len();
        let at = self.offset + old as u64;
        let size = self.file.metadata()?.len();
        if size < at {
            // The writer took back lines that did not fit on the disk, or began anew without rotations.
            self.buffer.clear();
            self.offset = self.offset.min(size);
            return Ok(self.offset < size);
        }
        self.buffer.resize(old + CHUNK, 0);
        let count = self.file.read_at(&mut self.buffer[old..], at)?;
        self.buffer.truncate(old + count);
        Ok(count > 0)
    }
}

/// Tells this file from others of its name: birth time and inode together; the inode alone is soon used again.
fn generation(file: &File) -> std::io::Result<(u64, DateTime<Utc>)> {
    let metadata = file.metadata()?;
    let created = metadata.created().or_else(|_unknown| metadata.modified())?;
    let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let born = born.map_or(0, |since| since.as_nanos() as u64);
    // Odd multiplier: spreads the time over all bits before the inode is mixed in. Never zero, which means "none".
    let mixed = born.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ metadata.ino();
    Ok((mixed.max(1), created.into()))
}

fn suffixed(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}
