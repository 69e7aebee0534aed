//! What a sandbox wrote, as JSON lines with rotation. Every byte that the agent sent ends up here, as text where it is
//! UTF-8 and as base64 where it is not; only a full disk and output beyond the budget of the log lose bytes, and then the
//! log says how many.

use std::collections::HashMap;
use std::time::Instant;

use microsandbox_protocol::log_budget::LogBudget;
use rustix::fd::OwnedFd;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use crate::directory;
use crate::logs::json_line::{self, Line};

/// Encoded lines collected before they are written.
const BATCH: usize = 1 << 20;
/// Room kept while nothing is logged.
const IDLE_ROOM: usize = 4 << 10;
/// Bytes of output in one line, at most.
const MAX_PIECE: usize = 256 << 10;
/// Sessions whose cut-off characters are remembered; beyond it they are written as they are.
const MAX_SEAMS: usize = 4096;

/// Where a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Stdout,
    Stderr,
    Terminal,
    System,
    /// A marker in place of output that is not in the log.
    Gap,
}

impl Source {
    /// The number on the wire ([`microsandbox_protocol::message::LogRecord`]); unknown ones are the agent's own.
    pub fn from_wire(number: u8) -> Source {
        match number {
            1 => Source::Stdout,
            2 => Source::Stderr,
            3 => Source::Terminal,
            5 => Source::Gap,
            _ => Source::System,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
            Source::Terminal => "output",
            Source::System => "system",
            Source::Gap => "gap",
        }
    }
}

/// `logs/exec.log` with its rotations.
pub struct ExecLog {
    dir: OwnedFd,
    file: Option<OwnedFd>,
    size: u64,
    max_bytes: u64,
    rotations: u32,
    batch: Vec<u8>,
    /// Bytes of a character that was cut at the end of a chunk, by session and source.
    seams: HashMap<(u32, Source), Seam>,
    /// Bytes of output that could not be written since the last success, and why.
    lost: Option<(u64, Errno)>,
    /// Bytes of output that the current batch stands for.
    batch_output: u64,
    /// Bytes lost in all.
    pub lost_total: u64,
    /// Of what programs print, and of what the agent says itself.
    programs: LogBudget,
    agent: LogBudget,
}

#[derive(Clone, Copy)]
struct Seam {
    bytes: [u8; 3],
    len: u8,
    time_ns: u64,
}

impl ExecLog {
    /// Opens (or continues) the log in `dir`.
    pub fn open(dir: OwnedFd, max_bytes: u64, rotations: u32) -> Result<ExecLog, Errno> {
        let mut log = ExecLog {
            dir,
            file: None,
            size: 0,
            max_bytes: max_bytes.max(4096),
            rotations,
            batch: Vec::new(),
            seams: HashMap::new(),
            lost: None,
            batch_output: 0,
            lost_total: 0,
            programs: LogBudget::enforced(Instant::now()),
            agent: LogBudget::enforced(Instant::now()),
        };
        log.reopen(false)?;
        Ok(log)
    }

    /// Adds a chunk of output of `session`.
    pub fn output(&mut self, session: u32, source: Source, time_ns: u64, data: &[u8]) {
        if !data.is_empty() && !self.admit(session, source, data.len()) {
            return;
        }
        let key = (session, source);
        let joined;
        let mut data = data;
        if let Some(seam) = self.seams.remove(&key) {
            joined = [&seam.bytes[..usize::from(seam.len)], data].concat();
            data = &joined;
        }
        let piece = MAX_PIECE.min((self.max_bytes / 2) as usize);
        while !data.is_empty() {
            let rest = data.len() - data.len().min(piece);
            let mut cut = data.len() - rest;
            let open = open_character(&data[..cut]);
            if open > 0 && rest > 0 {
                cut -= open;
            } else if open > 0 && self.seams.len() < MAX_SEAMS {
                let mut bytes = [0; 3];
                bytes[..open].copy_from_slice(&data[cut - open..]);
                self.seams.insert(key, Seam { bytes, len: open as u8, time_ns });
                self.line(Line { time_ns, source: source.name(), session, data: &data[..cut - open] });
                return;
            }
            self.line(Line { time_ns, source: source.name(), session, data: &data[..cut] });
            data = &data[cut..];
        }
    }

    /// Whether the budget allows this much more. An agent that keeps to it is always allowed.
    fn admit(&mut self, session: u32, source: Source, bytes: usize) -> bool {
        let now = Instant::now();
        let budget = match source {
            Source::System | Source::Gap => &mut self.agent,
            Source::Stdout | Source::Stderr | Source::Terminal => &mut self.programs,
        };
        let admitted = budget.admit(u64::from(session), bytes, now);
        if admitted {
            self.mark_gaps();
        }
        admitted
    }

    /// Says what was dropped since the last time.
    pub fn mark_gaps(&mut self) {
        let markers: Vec<(u64, String)> = self.programs.markers().chain(self.agent.markers()).collect();
        for (session, text) in markers {
            let (time_ns, session) = (json_line::now_ns(), session as u32);
            self.line(Line { time_ns, source: Source::Gap.name(), session, data: text.as_bytes() });
        }
    }

    /// A session has ended: what was held back of it is written as it is.
    pub fn end_session(&mut self, session: u32) {
        for source in [Source::Stdout, Source::Stderr, Source::Terminal] {
            if let Some(seam) = self.seams.remove(&(session, source)) {
                let data = &seam.bytes[..usize::from(seam.len)];
                self.line(Line { time_ns: seam.time_ns, source: source.name(), session, data });
            }
        }
    }

    /// A line of the runtime's own.
    pub fn marker(&mut self, time_ns: u64, text: &str) {
        self.line(Line { time_ns, source: Source::System.name(), session: 0, data: text.as_bytes() });
    }

    /// Writes what is held back and what is collected. Called at the end.
    pub fn finish(&mut self) {
        let mut open: Vec<u32> = self.seams.keys().map(|(session, _)| *session).collect();
        open.sort_unstable();
        open.dedup();
        for session in open {
            self.end_session(session);
        }
        self.mark_gaps();
        self.flush();
    }

    fn line(&mut self, line: Line<'_>) {
        if line.data.is_empty() {
            return;
        }
        let before = self.batch.len();
        json_line::encode(&mut self.batch, &line);
        self.batch_output += line.data.len() as u64;
        let added = (self.batch.len() - before) as u64;
        if self.size + self.batch.len() as u64 > self.max_bytes && self.size + before as u64 > 0 {
            // The line that would pass the limit begins the next file.
            let tail = self.batch.split_off(before);
            let output = line.data.len() as u64;
            self.batch_output -= output;
            self.flush();
            self.rotate();
            self.batch = tail;
            self.batch_output = output;
        }
        if self.batch.len() >= BATCH || added >= BATCH as u64 {
            self.flush();
        }
    }

    /// Writes what is collected.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let output = std::mem::take(&mut self.batch_output);
        if let Err(error) = self.append(&batch) {
            let (count, _) = self.lost.unwrap_or((0, error));
            self.lost = Some((count + output, error));
            self.lost_total += output;
        }
        self.batch = batch;
        self.batch.clear();
    }

    fn append(&mut self, batch: &[u8]) -> Result<(), Errno> {
        if self.file.is_none() {
            self.reopen(false)?;
        }
        if let Some((count, error)) = self.lost {
            let text = format!("--- {count} bytes of output were lost: {error} ---");
            let mut line = Vec::new();
            let time_ns = json_line::now_ns();
            json_line::encode(
                &mut line,
                &Line { time_ns, source: Source::Gap.name(), session: 0, data: text.as_bytes() },
            );
            self.write_whole(&line)?;
            self.lost = None;
        }
        self.write_whole(batch)
    }

    /// Writes all or nothing: what was written of a batch that did not fit is cut off again.
    fn write_whole(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let Some(file) = &self.file else { return Err(Errno::BADF) };
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(file, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(error) => {
                    let _ = fs::ftruncate(file, self.size);
                    return Err(error);
                }
            }
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) {
        self.file = None;
        let name = |n: u32| if n == 0 { "exec.log".to_owned() } else { format!("exec.log.{n}") };
        if self.rotations > 0 {
            // Removed first: ext4 writes a file to the disk as soon as a rename replaces another file with it, and
            // most of these lines are deleted again before a regular write-back.
            let _ = directory::remove_file(&self.dir, &name(self.rotations));
        }
        for n in (0..self.rotations).rev() {
            // A rotation that does not exist yet, or a disk that refuses: the next lines go to a fresh file anyway.
            let _ = fs::renameat(&self.dir, name(n), &self.dir, name(n + 1));
        }
        // Without rotations, or where renaming failed, the old lines make room.
        let _ = self.reopen(true);
    }

    fn reopen(&mut self, empty: bool) -> Result<(), Errno> {
        let mut flags = OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if empty {
            flags |= OFlags::TRUNC;
        }
        let file = fs::openat(&self.dir, "exec.log", flags, Mode::from_raw_mode(0o600))?;
        self.size = u64::try_from(fs::fstat(&file)?.st_size).unwrap_or(0);
        self.file = Some(file);
        Ok(())
    }

    /// Frees the buffer that a burst of output needed.
    pub fn shrink(&mut self) {
        if self.batch.is_empty() && self.batch.capacity() > IDLE_ROOM {
            self.batch = Vec::new();
        }
    }
}

/// How many bytes at the end begin a character that is not complete.
fn open_character(data: &[u8]) -> usize {
    let start = data.len().saturating_sub(3);
    for (back, &byte) in data[start..].iter().rev().enumerate() {
        let need = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return 0,
        };
        return if back + 1 < need { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unfinished_character_is_open() {
        assert_eq!(open_character("aé".as_bytes()), 0);
        assert_eq!(open_character(&"aé".as_bytes()[..2]), 1);
        assert_eq!(open_character(&"€".as_bytes()[..2]), 2);
        assert_eq!(open_character(&"𝄞".as_bytes()[..3]), 3);
        assert_eq!(open_character(b"\xff\xfe"), 0);
        assert_eq!(open_character(b"\x80\x80\x80\x80"), 0);
        assert_eq!(open_character(b""), 0);
    }
}
