//! Running programs: requests, events, results, and the handle of a running one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};

use crate::error::{ExecFailure, MicrosandboxError, MicrosandboxResult};

/// A soft and a hard bound of one resource, in the units of `setrlimit(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Lower-case name without its prefix: `nofile`, `cpu` …
    pub resource: String,
    pub soft: u64,
    pub hard: u64,
}

/// Where a program's standard input comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StdinSource {
    #[default]
    Null,
    /// Written through [`ExecHandle::take_stdin`].
    Pipe,
    Bytes(Bytes),
}

/// One program run.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    pub args: Vec<String>,
    pub cwd: Option<String>,
    pub user: Option<String>,
    pub env: Vec<(String, String)>,
    /// The whole process tree is killed when the timeout expires.
    pub timeout: Option<Duration>,
    pub stdin: StdinSource,
    pub tty: bool,
    /// Size of the terminal.
    pub rows: u16,
    pub cols: u16,
    pub rlimits: Vec<Rlimit>,
    /// The program keeps running when its handle is dropped or this process ends (`kill_on_disconnect` off on the
    /// wire); the output of the program then goes to the log only. Default: the process tree is killed.
    pub detachable: bool,
    /// Collected runs keep at most the newest this many bytes of each stream; totals stay true. `None`: 64 MiB of both
    /// together, and more than that is an [`MicrosandboxError::OutputLimit`].
    pub max_output_bytes: Option<u64>,
}

/// Default bound of collected output, both streams together (`exec.capture_bytes`).
pub const CAPTURE_BYTES: u64 = 64 << 20;

/// What happened, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecEvent {
    Started {
        pid: u32,
    },
    Stdout(Bytes),
    Stderr(Bytes),
    /// Standard input could not be delivered; not final.
    StdinError {
        errno: Option<i32>,
        message: String,
    },
    /// Final.
    Exited(ExecExit),
    /// Final: it never started.
    Failed(ExecFailure),
}

/// The verdict on a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExecExit {
    /// Exit status, or 128 + signal.
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub timed_out: bool,
    /// Output reached its end; `false` when descendants still held it.
    pub drained: bool,
    /// Processes that outlived the leader.
    pub descendants: u32,
    pub duration: Duration,
}

/// A collected run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExecOutput {
    pub exit: ExecExit,
    pub stdout: Bytes,
    pub stderr: Bytes,
    pub stdout_total: u64,
    pub stderr_total: u64,
}

impl ExecOutput {
    pub fn success(&self) -> bool {
        self.exit.code == 0
    }
    pub fn stdout_truncated(&self) -> bool {
        self.stdout_total > self.stdout.len() as u64
    }
    pub fn stderr_truncated(&self) -> bool {
        self.stderr_total > self.stderr.len() as u64
    }
}

impl ExecExit {
    /// Whether the wait ended before the output did.
    pub fn is_cut_short(&self) -> bool {
        self.timed_out || !self.drained
    }
}

/// `bytes` without the parts of a character at an end that was cut: at the front by a bound, at the back by the end of the wait.
/// What a program wrote there itself is left as it is.
pub fn whole_characters(bytes: &[u8], cut_front: bool, cut_back: bool) -> &[u8] {
    const LONGEST_REST: usize = 3;
    let is_rest = |byte: &&u8| **byte & 0xc0 == 0x80;
    let skipped = if cut_front { bytes.iter().take(LONGEST_REST).take_while(is_rest).count() } else { 0 };
    let bytes = &bytes[skipped..];
    if !cut_back {
        return bytes;
    }
    let near = bytes.len().saturating_sub(LONGEST_REST);
    // The last character begins at most three bytes before the end, if it is not whole.
    let begin = (near..bytes.len()).rev().find(|index| bytes[*index] & 0xc0 != 0x80).unwrap_or(bytes.len());
    match std::str::from_utf8(&bytes[begin..]) {
        Err(error) if error.error_len().is_none() => &bytes[..begin],
        _ => bytes,
    }
}

/// The backend's side of a running program.
pub trait ExecControl: Send + Sync {
    /// Signal to the program's process group; 9 kills the whole tree.
    fn signal(&self, signal: i32) -> BoxFuture<'_, MicrosandboxResult<()>>;
    fn resize(&self, rows: u16, cols: u16) -> BoxFuture<'_, MicrosandboxResult<()>>;
    /// Waits while the program does not read.
    fn write_stdin(&self, data: Bytes) -> BoxFuture<'_, MicrosandboxResult<()>>;
    fn close_stdin(&self) -> BoxFuture<'_, MicrosandboxResult<()>>;
    /// The consumer took `bytes` of output: the sender may send as many again.
    fn consumed(&self, bytes: u64);
}

/// A running program. Control calls work while another task waits in [`ExecHandle::recv`].
/// Dropping the handle before the end closes its connection; the backend then kills the program's tree.
pub struct ExecHandle {
    id: String,
    events: Mutex<mpsc::UnboundedReceiver<MicrosandboxResult<ExecEvent>>>,
    control: Arc<dyn ExecControl>,
    stdin: std::sync::Mutex<Option<ExecSink>>,
    finished: std::sync::atomic::AtomicBool,
    /// What the host knows beyond the guest's claim about the end.
    verdict: Option<Verdict>,
}

type Verdict = Box<dyn Fn(&mut ExecExit) + Send + Sync>;

/// Standard input of a running program.
#[derive(Clone)]
pub struct ExecSink {
    control: Arc<dyn ExecControl>,
}

impl ExecSink {
    pub async fn write(&self, data: Bytes) -> MicrosandboxResult<()> {
        self.control.write_stdin(data).await
    }
    /// End of file for a pipe; a terminal stays open.
    pub async fn close(&self) -> MicrosandboxResult<()> {
        self.control.close_stdin().await
    }
}

impl ExecHandle {
    /// For backends. The channel may be unbounded because the sender is bound by credit: it sends no more than its
    /// window beyond what [`ExecControl::consumed`] returned.
    pub fn new(
        id: String,
        events: mpsc::UnboundedReceiver<MicrosandboxResult<ExecEvent>>,
        control: Arc<dyn ExecControl>,
        piped_stdin: bool,
    ) -> Self {
        let stdin = piped_stdin.then(|| ExecSink { control: control.clone() });
        ExecHandle {
            id,
            events: Mutex::new(events),
            control,
            stdin: std::sync::Mutex::new(stdin),
            finished: std::sync::atomic::AtomicBool::new(false),
            verdict: None,
        }
    }

    /// For backends: completes the guest's claim about the end with what the host knows.
    pub fn with_verdict(mut self, verdict: impl Fn(&mut ExecExit) + Send + Sync + 'static) -> Self {
        self.verdict = Some(Box::new(verdict));
        self
    }

    /// Unique among the live runs of its sandbox.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The input side: once, and only if a pipe was asked for.
    pub fn take_stdin(&self) -> Option<ExecSink> {
        self.stdin.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// The next event; `None` after the final one.
    pub async fn recv(&self) -> MicrosandboxResult<Option<ExecEvent>> {
        use std::sync::atomic::Ordering;
        let mut events = self.events.lock().await;
        if self.finished.load(Ordering::Acquire) {
            return Ok(None);
        }
        let event = match events.recv().await {
            Some(Ok(ExecEvent::Exited(mut exit))) => {
                if let Some(verdict) = &self.verdict {
                    verdict(&mut exit);
                }
                ExecEvent::Exited(exit)
            }
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                self.finished.store(true, Ordering::Release);
                return Err(error);
            }
            None => {
                self.finished.store(true, Ordering::Release);
                return Ok(None);
            }
        };
        match &event {
            ExecEvent::Stdout(data) | ExecEvent::Stderr(data) => self.control.consumed(data.len() as u64),
            ExecEvent::Exited(_) | ExecEvent::Failed(_) => self.finished.store(true, Ordering::Release),
            ExecEvent::Started { .. } | ExecEvent::StdinError { .. } => {}
        }
        Ok(Some(event))
    }

    /// Reads to the end, dropping output, and returns the verdict.
    pub async fn wait(&self) -> MicrosandboxResult<ExecExit> {
        while let Some(event) = self.recv().await? {
            match event {
                ExecEvent::Exited(exit) => return Ok(exit),
                ExecEvent::Failed(failure) => return Err(MicrosandboxError::ExecFailed(Box::new(failure))),
                _ => {}
            }
        }
        Err(MicrosandboxError::InvalidState("the end of this run was already received".into()))
    }

    pub async fn signal(&self, signal: i32) -> MicrosandboxResult<()> {
        self.control.signal(signal).await
    }

    /// SIGKILL to the whole tree.
    pub async fn kill(&self) -> MicrosandboxResult<()> {
        self.control.signal(9).await
    }

    pub async fn resize(&self, rows: u16, cols: u16) -> MicrosandboxResult<()> {
        self.control.resize(rows, cols).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_cut_is_dropped_from_a_character() {
        let text = "aé漢🦀z".as_bytes();
        for front in 0..=text.len() {
            for back in front..=text.len() {
                let part = &text[front..back];
                let whole = whole_characters(part, true, true);
                assert!(std::str::from_utf8(whole).is_ok(), "{part:?} gives {whole:?}");
                assert!(part.len() - whole.len() <= 6, "{part:?} gives {whole:?}");
                assert_eq!(whole_characters(part, false, false), part);
            }
        }
        // Bytes that are no part of a character at all are the program's own.
        for own in [&b"\xff\xfe"[..], b"\x80\x80\x80\x80a", b"a\xc3("] {
            assert!(std::str::from_utf8(whole_characters(own, true, true)).is_err(), "{own:?}");
        }
        assert_eq!(whole_characters(b"", true, true), b"");
    }
}
