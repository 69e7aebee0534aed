//! A program run to its end, both streams kept in memory within a bound. Runs in the caller's own task.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::exec_session::{ExecSession, Input, Step, cut_off, timed_out};
use super::{AgentClient, Connection, exec_request};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{CAPTURE_BYTES, ExecExit, ExecOptions, ExecOutput, SandboxSpec, StdinSource};

/// Between killing a program that wrote too much and giving up on its exit.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// How far a buffer may outgrow its bound before the oldest bytes are cut off: cutting costs a move of the rest.
const CUT_SLACK: u64 = 1 << 20;

impl<S: AsyncRead + AsyncWrite + Unpin> AgentClient<S> {
    /// Runs a program and collects its output. Dropping the future closes the connection; the agent then kills the
    /// program's tree.
    pub async fn exec(self, spec: &SandboxSpec, cmd: String, options: ExecOptions) -> MicrosandboxResult<ExecOutput> {
        self.exec_and_keep(spec, cmd, options).await.0
    }

    /// The same, and the connection back where the run left it as it was before: nothing sent or heard by halves.
    pub async fn exec_and_keep(
        self,
        spec: &SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> (MicrosandboxResult<ExecOutput>, Option<AgentClient<S>>) {
        let AgentClient { connection, ready } = self;
        let mut session = match begin(connection, spec, cmd, options.clone()) {
            Ok(session) => session,
            Err(error) => return (Err(error), None),
        };
        let result = collect(&mut session, options.timeout, options.max_output_bytes).await;
        let connection = session.into_idle_connection();
        (result, connection.map(|connection| AgentClient { connection, ready }))
    }
}

/// Queues the request and its input.
fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    connection: Connection<S>,
    spec: &SandboxSpec,
    cmd: String,
    options: ExecOptions,
) -> MicrosandboxResult<ExecSession<S>> {
    // No window: this side reads as fast as the socket delivers, and keeps a bounded part.
    let request = exec_request(spec, cmd, &options)?;
    let mut session = ExecSession::begin(connection, &request)?;
    if let StdinSource::Bytes(data) = options.stdin {
        session.feed(Input { data, done: None });
    }
    // The caller of a collected run has no pipe to write to, so the input ends here.
    session.finish_input();
    Ok(session)
}

async fn collect<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut ExecSession<S>,
    timeout: Option<Duration>,
    max_output_bytes: Option<u64>,
) -> MicrosandboxResult<ExecOutput> {
    let mut output = Captures::new(max_output_bytes);
    let mut overflown = false;
    loop {
        match session.step().await? {
            Step::Stdout(data) => output.stdout(&data),
            Step::Stderr(data) => output.stderr(&data),
            // A program need not read its input.
            Step::Started { .. } | Step::StdinError { .. } => {}
            Step::Failed(failure) => return Err(MicrosandboxError::ExecFailed(Box::new(failure))),
            Step::Exited(exit) => return output.finish_in_time(exit, timeout),
            Step::Overdue => return output.finish_in_time(cut_off(session.elapsed()), timeout),
        }
        if !overflown && output.overflow().is_some() {
            overflown = true;
            session.signal(9)?;
            session.end_by(Instant::now() + KILL_WAIT);
        }
    }
}

/// Both streams of a run. With a bound of the caller's the newest bytes of each are kept; without one, more than
/// [`CAPTURE_BYTES`] of both together is an error, because that would cost as much memory without being asked for.
pub struct Captures {
    stdout: Capture,
    stderr: Capture,
    strict: bool,
}

impl Captures {
    pub fn new(max: Option<u64>) -> Self {
        let keep = max.unwrap_or(CAPTURE_BYTES);
        Captures { stdout: Capture::new(keep), stderr: Capture::new(keep), strict: max.is_none() }
    }

    pub fn stdout(&mut self, data: &[u8]) {
        let dropped = self.overflow().is_some();
        self.stdout.push(data, dropped);
    }

    pub fn stderr(&mut self, data: &[u8]) {
        let dropped = self.overflow().is_some();
        self.stderr.push(data, dropped);
    }

    /// The error of a run that wrote too much, once it did.
    pub fn overflow(&self) -> Option<MicrosandboxError> {
        let total = self.stdout.total + self.stderr.total;
        (self.strict && total > CAPTURE_BYTES).then(|| MicrosandboxError::OutputLimit {
            limit: CAPTURE_BYTES,
            kept: CAPTURE_BYTES,
            dropped: total - CAPTURE_BYTES,
        })
    }

    pub fn finish(self, exit: ExecExit) -> MicrosandboxResult<ExecOutput> {
        if let Some(error) = self.overflow() {
            return Err(error);
        }
        Ok(ExecOutput {
            exit,
            stdout_total: self.stdout.total,
            stderr_total: self.stderr.total,
            stdout: self.stdout.into_bytes(),
            stderr: self.stderr.into_bytes(),
        })
    }

    /// The same, where a run that outlived its timeout is an error.
    pub fn finish_in_time(self, exit: ExecExit, timeout: Option<Duration>) -> MicrosandboxResult<ExecOutput> {
        let output = self.finish(exit)?;
        if output.exit.timed_out { Err(timed_out(timeout, Some(output))) } else { Ok(output) }
    }
}

/// The newest `keep` bytes of a stream.
struct Capture {
    bytes: Vec<u8>,
    keep: u64,
    total: u64,
}

impl Capture {
    fn new(keep: u64) -> Self {
        Capture { bytes: Vec::new(), keep, total: 0 }
    }

    fn push(&mut self, data: &[u8], dropped: bool) {
        self.total += data.len() as u64;
        if dropped {
            return;
        }
        self.bytes.extend_from_slice(data);
        // Amortised: a cut moves at most `keep` bytes after at least as many (or the slack) were appended.
        if self.bytes.len() as u64 > self.keep.saturating_add(self.keep.max(CUT_SLACK)) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let excess = (self.bytes.len() as u64).saturating_sub(self.keep);
        self.bytes.drain(..excess as usize);
    }

    fn into_bytes(mut self) -> Bytes {
        self.cut();
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // hazard: X2
    #[test]
    fn capture_keeps_the_newest_bytes_and_counts_all() {
        let mut capture = Capture::new(10);
        for round in 0..400_000u32 {
            capture.push(&round.to_be_bytes(), false);
        }
        assert!(capture.bytes.len() as u64 <= 10 + CUT_SLACK + 4);
        assert_eq!(capture.total, 1_600_000);
        let kept = capture.into_bytes();
        assert_eq!(kept.len(), 10);
        assert_eq!(&kept[6..], 399_999u32.to_be_bytes());
    }

    // hazard: X2
    #[test]
    fn capture_of_zero_keeps_nothing() {
        let mut capture = Capture::new(0);
        capture.push(b"abc", false);
        assert_eq!((capture.total, capture.into_bytes().len()), (3, 0));
    }

    // hazard: X2
    #[test]
    fn both_streams_share_the_default_bound() {
        let half = vec![0; CAPTURE_BYTES as usize / 2];
        let mut output = Captures::new(None);
        output.stdout(&half);
        output.stderr(&half);
        assert!(output.overflow().is_none());
        output.stderr(b"one more");
        output.stdout(&half);
        assert_eq!(output.stdout.bytes.len(), half.len(), "kept although the run is over its bound");
        let error = output.finish(ExecExit::default()).unwrap_err();
        assert!(matches!(error, MicrosandboxError::OutputLimit { limit: CAPTURE_BYTES, .. }), "{error}");
    }
}
