//! Programs that are known after their client has left, and after their end.

use std::collections::{BTreeMap, VecDeque};

use microsandbox_protocol::Kind;
use microsandbox_protocol::message::{ExecExited, ExecRequest, JobInfo};

use crate::machine::init::realtime_ns;

/// Ended jobs that are kept; beyond that the oldest are dropped.
const MAX_ENDED: usize = 1024;
/// Bytes of output of each job that are kept for a client that attaches later.
const KEPT: usize = 256 << 10;
/// Bytes of a command line that are kept to be shown.
const SHOWN: usize = 4 << 10;

/// The newest output of one job.
#[derive(Default)]
pub struct Replay {
    pieces: VecDeque<(Kind, Vec<u8>)>,
    bytes: usize,
}

impl Replay {
    pub fn keep(&mut self, kind: &Kind, data: &[u8]) {
        let data = &data[data.len().saturating_sub(KEPT)..];
        self.bytes += data.len();
        match self.pieces.back_mut() {
            Some((last, piece)) if last == kind && piece.len() + data.len() <= KEPT / 8 => {
                piece.extend_from_slice(data)
            }
            _ => self.pieces.push_back((kind.clone(), data.to_vec())),
        }
        while self.bytes > KEPT {
            let Some((_, oldest)) = self.pieces.front_mut() else { return };
            let over = (self.bytes - KEPT).min(oldest.len());
            oldest.drain(..over);
            self.bytes -= over;
            if oldest.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    /// The newest `wanted` bytes, in order.
    pub fn newest(&self, wanted: u64) -> Vec<(Kind, Vec<u8>)> {
        let mut skip = self.bytes - self.bytes.min(usize::try_from(wanted).unwrap_or(usize::MAX));
        let mut newest = Vec::new();
        for (kind, piece) in &self.pieces {
            let from = skip.min(piece.len());
            skip -= from;
            if from < piece.len() {
                newest.push((kind.clone(), piece[from..].to_vec()));
            }
        }
        newest
    }
}

/// A job and its kept output.
pub struct Job {
    pub info: JobInfo,
    /// Output of an ended job; while the job runs, its session holds the output.
    pub replay: Replay,
}

/// A client that waits for the end of a job.
pub struct Waiter {
    pub owner: (u64, u32),
    pub number: u64,
}

pub struct Jobs {
    boot: String,
    all: BTreeMap<u64, Job>,
    pub waiters: Vec<Waiter>,
}

impl Jobs {
    pub fn new() -> Jobs {
        let mut seed = [0u8; 4];
        // Without random bytes all boots look alike, and a stale id differs from a live one by its number alone.
        let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
        Jobs { boot: format!("{:08x}", u32::from_ne_bytes(seed)), all: BTreeMap::new(), waiters: Vec::new() }
    }

    pub fn add(&mut self, number: u64, pid: u32, request: &ExecRequest) -> String {
        let id = format!("{}-{number}", self.boot);
        let info = JobInfo {
            id: id.clone(),
            boot: self.boot.clone(),
            session: number,
            command: shown(request),
            tty: request.tty,
            pid,
            stdin_closed: request.no_stdin,
            started_ms: realtime_ns() / 1_000_000,
            finished_ms: None,
            exit: None,
        };
        self.all.insert(number, Job { info, replay: Replay::default() });
        id
    }

    pub fn find(&self, id: &str) -> Option<&Job> {
        let number = id.strip_prefix(&self.boot)?.strip_prefix('-')?.parse().ok()?;
        self.all.get(&number).filter(|job| job.info.id == id)
    }

    pub fn info(&self, number: u64) -> Option<&JobInfo> {
        self.all.get(&number).map(|job| &job.info)
    }

    pub fn list(&self) -> Vec<JobInfo> {
        self.all.values().map(|job| job.info.clone()).collect()
    }

    pub fn input_closed(&mut self, number: u64) {
        if let Some(job) = self.all.get_mut(&number) {
            job.info.stdin_closed = true;
        }
    }

    pub fn ended(&mut self, number: u64, exited: &ExecExited, replay: Replay) {
        let Some(job) = self.all.get_mut(&number) else { return };
        job.info.finished_ms = Some(realtime_ns() / 1_000_000);
        job.info.exit = Some(exited.clone());
        job.info.stdin_closed = true;
        job.replay = replay;
        let ended = self.all.iter().filter(|(_, job)| job.info.exit.is_some());
        if ended.clone().count() > MAX_ENDED
            && let Some(oldest) = ended.map(|(number, _)| *number).next()
        {
            self.all.remove(&oldest);
        }
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Jobs::new()
    }
}

fn shown(request: &ExecRequest) -> Vec<String> {
    let mut left = SHOWN;
    let words = std::iter::once(&request.cmd).chain(&request.args);
    words
        .map_while(|word| {
            let more = left > 0;
            let end = (0..=word.len().min(left)).rev().find(|end| word.is_char_boundary(*end)).unwrap_or(0);
            left -= end.max(1).min(left);
            more.then(|| word[..end].to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_output_is_kept_in_order_with_its_stream() {
        let mut replay = Replay::default();
        replay.keep(&Kind::ExecStdout, b"one");
        replay.keep(&Kind::ExecStderr, b"two");
        replay.keep(&Kind::ExecStdout, b"three");
        assert_eq!(replay.newest(6), [(Kind::ExecStderr, b"o".to_vec()), (Kind::ExecStdout, b"three".to_vec())]);
        assert_eq!(replay.newest(0), []);
        assert_eq!(replay.newest(u64::MAX).len(), 3);
        replay.keep(&Kind::ExecStdout, &vec![b'x'; KEPT + 5]);
        assert_eq!(replay.newest(u64::MAX), [(Kind::ExecStdout, vec![b'x'; KEPT])]);
        replay.keep(&Kind::ExecStdout, b"y");
        assert_eq!(replay.newest(1), [(Kind::ExecStdout, b"y".to_vec())]);
        assert_eq!(replay.bytes, KEPT);
    }

    #[test]
    fn an_id_of_another_boot_is_unknown_and_old_ends_give_way() {
        let mut jobs = Jobs::new();
        let request = ExecRequest { cmd: "sh".into(), args: vec!["é".repeat(SHOWN)], ..ExecRequest::default() };
        let first = jobs.add(7, 1, &request);
        assert_eq!(jobs.find(&first).unwrap().info.command[0], "sh");
        assert!(jobs.find(&first).unwrap().info.command[1].len() < SHOWN);
        assert!(jobs.find("00000000-7").is_none() || jobs.boot == "00000000");
        assert!(jobs.find(&format!("{first}0")).is_none());
        for number in 8..8 + MAX_ENDED as u64 {
            jobs.add(number, 1, &request);
            jobs.ended(number, &ExecExited::default(), Replay::default());
        }
        jobs.ended(7, &ExecExited::default(), Replay::default());
        assert!(jobs.find(&first).is_none());
        assert_eq!(jobs.list().len(), MAX_ENDED);
    }
}
