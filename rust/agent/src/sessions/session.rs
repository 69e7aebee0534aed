//! One running program and its streams.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use microsandbox_protocol::Kind;
use microsandbox_protocol::message::ExecRequest;
use microsandbox_sys::poll;

use crate::clients::connection::Connection;
use crate::clients::control::{Control, Source};
use crate::exec::launch::Launched;
use crate::machine::init::ExitStatus;
use crate::sessions::jobs::Replay;
use crate::sessions::tree::Tag;

/// Bytes of input a client may send ahead of the program.
pub const STDIN_WINDOW: u64 = 256 << 10;
/// Consumed input is credited back in parts of at least this size.
const STDIN_CREDIT: u64 = STDIN_WINDOW / 4;
/// Most output moved in one step.
pub const CHUNK: usize = 256 << 10;
/// A pipe that was found full once is enlarged to this.
const BUSY_PIPE: usize = 1 << 20;
/// The default pipe; a read of this size means it was full.
const FULL_PIPE: usize = 64 << 10;
/// Silence after the leader's end from which on its descendants count as programs in the background, whose output is no
/// longer waited for.
pub const QUIET: Duration = Duration::from_millis(100);
/// End-of-file character of a terminal.
const VEOF: u8 = 4;

/// Input on its way to the program.
pub struct Stdin {
    fd: Option<OwnedFd>,
    tty: bool,
    queue: Vec<u8>,
    offset: usize,
    eof: bool,
    consumed: u64,
}

/// What came of feeding a program.
#[derive(Debug, Default)]
pub struct Fed {
    /// To be sent as `core.credit`.
    pub credit: u64,
    /// To be sent, once, as `core.exec.stdin.error`.
    pub error: Option<i32>,
}

impl Stdin {
    fn new(fd: Option<OwnedFd>, tty: bool) -> Stdin {
        Stdin { fd, tty, queue: Vec::new(), offset: 0, eof: false, consumed: 0 }
    }

    /// Takes a chunk; an empty one is the end of input.
    pub fn push(&mut self, data: &[u8]) -> Fed {
        if data.is_empty() {
            match (self.tty, self.eof) {
                (true, _) => self.queue.push(VEOF),
                (false, _) => self.eof = true,
            }
        } else if self.fd.is_none() || self.eof {
            // The program no longer reads: discarded bytes count as consumed, or the client's window would run out.
            self.consumed += data.len() as u64;
        } else {
            self.queue.extend_from_slice(data);
        }
        self.pump()
    }

    /// Writes as much as the program takes.
    pub fn pump(&mut self) -> Fed {
        let mut error = None;
        while let Some(fd) = &self.fd
            && self.offset < self.queue.len()
        {
            match rustix::io::write(fd, &self.queue[self.offset..]) {
                Ok(written) => {
                    self.offset += written;
                    self.consumed += written as u64;
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(code) => {
                    error = Some(code.raw_os_error());
                    self.consumed += (self.queue.len() - self.offset) as u64;
                    self.offset = self.queue.len();
                    self.fd = None;
                }
            }
        }
        if self.offset == self.queue.len() {
            self.queue = Vec::new();
            self.offset = 0;
            if self.eof {
                self.fd = None;
            }
        }
        let credit = if self.consumed >= STDIN_CREDIT { std::mem::take(&mut self.consumed) } else { 0 };
        Fed { credit, error }
    }

    /// Something waits for the program to read.
    pub fn wants_write(&self) -> Option<BorrowedFd<'_>> {
        if self.offset < self.queue.len() { self.fd.as_ref().map(|fd| fd.as_fd()) } else { None }
    }

    /// A client that keeps to its window never gets here.
    pub fn is_full(&self) -> bool {
        (self.queue.len() - self.offset) as u64 > STDIN_WINDOW
    }

    /// No more input will be sent.
    pub fn close(&mut self) {
        self.eof = true;
        if !self.tty {
            self.pump();
        }
    }
}

/// One stream of output.
pub struct Stream {
    fd: OwnedFd,
    kind: Kind,
    source: Source,
    grown: bool,
    /// After the leader's end: bytes that were in the pipe then and are still to be read.
    owed: u64,
}

impl Stream {
    /// Whether what the leader wrote was carried and, unless it is late, whether nothing of its descendants waits either.
    /// What a program itself read back out of its pipe is owed no more.
    fn is_done(&mut self, late: bool) -> bool {
        let waiting = rustix::io::ioctl_fionread(&self.fd).unwrap_or(0);
        self.owed = self.owed.min(waiting);
        self.owed == 0 && (late || waiting == 0)
    }
}

/// The leader's end.
#[derive(Debug, Clone, Copy)]
pub struct Exit {
    pub status: ExitStatus,
    pub at: Instant,
}

/// A tree that did not die at the first attempt.
#[derive(Debug, Clone, Copy)]
pub struct KillRetry {
    pub at: Instant,
    pub tries: u32,
}

pub struct Session {
    pub number: u64,
    pub pid: i32,
    pub tag: Tag,
    /// The client that gets the output: connection and correlation id. Absent once it is gone or was sent the end.
    pub owner: Option<(u64, u32)>,
    pub stdin: Stdin,
    streams: [Option<Stream>; 2],
    credit: Option<u64>,
    pub started: Instant,
    pub exit: Option<Exit>,
    pub timeout_at: Option<Instant>,
    pub timed_out: bool,
    pub kill_on_disconnect: bool,
    pub retry: Option<KillRetry>,
    /// Of a job: kept output, which a client that attaches gets first.
    pub replay: Option<Replay>,
    /// When output was last carried.
    last_output: Instant,
    /// The end was reported; only descendants' output is still carried to the log.
    pub reported: bool,
}

/// Which side broke while output was carried.
#[derive(Debug)]
pub enum Broken {
    Client,
    Control,
}

impl Session {
    pub fn new(number: u64, tag: Tag, owner: (u64, u32), launched: Launched, request: &ExecRequest) -> Session {
        let started = Instant::now();
        let source = if request.tty { Source::Terminal } else { Source::Stdout };
        let stream = |fd, kind, source| Stream { fd, kind, source, grown: request.tty, owed: 0 };
        Session {
            number,
            pid: launched.pid,
            tag,
            owner: Some(owner),
            stdin: Stdin::new(launched.stdin, request.tty),
            streams: [
                Some(stream(launched.stdout, Kind::ExecStdout, source)),
                launched.stderr.map(|fd| stream(fd, Kind::ExecStderr, Source::Stderr)),
            ],
            credit: request.window,
            started,
            exit: None,
            timeout_at: request.timeout_ms.and_then(|ms| started.checked_add(Duration::from_millis(ms))),
            timed_out: false,
            kill_on_disconnect: request.kill_on_disconnect,
            retry: None,
            replay: request.job.then(Replay::default),
            last_output: started,
            reported: false,
        }
    }

    pub fn add_credit(&mut self, bytes: u64) {
        if let Some(credit) = &mut self.credit {
            *credit = credit.saturating_add(bytes);
        }
    }

    /// The client is gone: the program runs on, its output goes to the log only. A job's next client may feed it.
    pub fn orphan(&mut self) {
        self.owner = None;
        self.credit = None;
        if self.replay.is_none() {
            self.stdin.close();
        }
    }

    /// A client attached to this job.
    pub fn adopt(&mut self, owner: (u64, u32), credit: Option<u64>) {
        self.owner = Some(owner);
        self.credit = credit;
    }

    /// Streams that may be read, given whether the owner has room.
    pub fn readable(&self, owner_has_room: bool) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let open = self.owner.is_none() || (owner_has_room && self.credit != Some(0));
        let streams = self.streams.iter().enumerate().filter(move |_| open);
        streams.filter_map(|(index, stream)| Some((index, stream.as_ref()?.fd.as_fd())))
    }

    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        let stream = self.streams[0].as_ref()?;
        (stream.source == Source::Terminal).then(|| stream.fd.as_fd())
    }

    pub fn is_dry(&self) -> bool {
        self.streams.iter().all(Option::is_none)
    }

    /// The leader ended: what it wrote is in the pipes now and will be delivered whatever its descendants do.
    pub fn leader_ended(&mut self, status: ExitStatus) {
        self.exit = Some(Exit { status, at: Instant::now() });
        self.timeout_at = None;
        for stream in self.streams.iter_mut().flatten() {
            stream.owed = rustix::io::ioctl_fionread(&stream.fd).unwrap_or(0);
        }
        self.settle();
    }

    /// Without credit no stream is read, so an end of file would go unnoticed: closes those that are empty for good.
    pub fn settle(&mut self) {
        for slot in &mut self.streams {
            // In this order: what was written before the writers left is seen by the count.
            if slot.as_ref().is_some_and(|stream| {
                poll::hung_up(&stream.fd) && rustix::io::ioctl_fionread(&stream.fd).unwrap_or(0) == 0
            }) {
                *slot = None;
            }
        }
    }

    /// All output was carried; or only descendants hold the streams open, and have written nothing for [`QUIET`]; or the
    /// drain time is over, and what the leader wrote was carried.
    pub fn is_complete(&mut self, now: Instant, drain: Duration) -> bool {
        let (Some(exit), Some(quiet_at)) = (self.exit, self.quiet_at()) else { return false };
        let late = now.saturating_duration_since(exit.at) >= drain;
        let quiet = now >= quiet_at;
        if self.credit == Some(0) || late || quiet {
            self.settle();
        }
        self.is_dry() || ((late || quiet) && self.streams.iter_mut().flatten().all(|stream| stream.is_done(late)))
    }

    /// After the leader's end: when its descendants will have been silent for [`QUIET`].
    pub fn quiet_at(&self) -> Option<Instant> {
        self.exit.map(|exit| exit.at.max(self.last_output) + QUIET)
    }

    /// Moves one chunk from a stream to the log and to the owner. `Ok(false)` when nothing was there.
    pub fn carry(
        &mut self,
        index: usize,
        scratch: &mut [u8],
        owner: Option<&mut Connection>,
        control: &mut Control,
    ) -> Result<bool, Broken> {
        let Some(stream) = &mut self.streams[index] else { return Ok(false) };
        let limit = self.credit.unwrap_or(u64::MAX).min(scratch.len() as u64) as usize;
        if limit == 0 {
            // A read of nothing looks like the end of the stream, and what is in the pipe would be lost.
            return Ok(false);
        }
        let data = match rustix::io::read(&stream.fd, &mut scratch[..limit]) {
            Ok(got) if got > 0 => &scratch[..got],
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(false),
            // End of file; a terminal whose programs have all gone answers EIO.
            Ok(_) | Err(_) => {
                self.streams[index] = None;
                return Ok(false);
            }
        };
        let now = Instant::now();
        self.last_output = now;
        stream.owed = stream.owed.saturating_sub(data.len() as u64);
        if data.len() >= FULL_PIPE && !stream.grown {
            stream.grown = true;
            // The user's share of pipe memory may be used up; then it stays as it is.
            let _ = rustix::pipe::fcntl_setpipe_size(&stream.fd, BUSY_PIPE);
        }
        if let Some(replay) = &mut self.replay {
            replay.keep(&stream.kind, data);
        }
        if let (Some(client), Some((_, id))) = (owner, self.owner) {
            if let Some(credit) = &mut self.credit {
                *credit -= data.len() as u64;
            }
            let sent: io::Result<()> = client.send_data(id, &stream.kind, data);
            // The log gets its copy even if the client just left.
            control.log(self.number, stream.source, data, now).map_err(|_| Broken::Control)?;
            return sent.map(|()| true).map_err(|_| Broken::Client);
        }
        control.log(self.number, stream.source, data, now).map_err(|_| Broken::Control)?;
        Ok(true)
    }
}
