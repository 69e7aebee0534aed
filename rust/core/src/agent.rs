//! The client side of the agent protocol: one connection per call at a time.
//!
//! | module | holds |
//! |---|---|
//! | [`connection`] | frames in, queued bytes out, over any stream |
//! | [`call`] | one request, one answer, one deadline |
//! | [`exec_request`] | what may be asked of exec; its validation |
//! | [`exec_collect`], [`exec_stream`] | a program run to its end; a program with live events |
//! | [`fs_call`], [`fs_list`] | file operations; directories, page by page |
//! | [`fs_transfer`], [`fs_watch`] | file content in either direction; changes |
//! | [`jobs`] | programs that outlive their client |
//! | [`raw`] | frames for callers who speak the protocol themselves |
//! | [`stream_agent`] | the trait `Agent` over any stream; [`connections`]: idle connections for the next call |
//! | [`relay`] | a connection handed over raw |
//! | [`failure`] | the agent's errors in our words |
//!
//! The agent is not trusted: once root inside has touched it, it may say anything. Lengths are bounded before memory is
//! taken, frames for ids that are not ours are dropped and counted, and its numbers are never used as pids, paths or
//! sizes on this side.

mod call;
mod connection;
pub mod connections;
mod exec_collect;
mod exec_request;
mod exec_session;
mod exec_stream;
pub(crate) mod failure;
mod fs_call;
mod fs_list;
mod fs_transfer;
mod fs_watch;
mod jobs;
mod raw;
mod relay;
mod stream_agent;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use microsandbox_protocol::frame::{Flags, decode_id_range, encode};
use microsandbox_protocol::message::{Hello, Kind, Ready};
use microsandbox_protocol::version::{EXTENSION, EXTENSION_MIN, GENERATION, GENERATION_MIN};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::Instant;

pub(crate) use connection::Connection;
pub use exec_collect::Captures;
pub use exec_request::check_exec;
pub(crate) use exec_request::exec_request;
pub use fs_call::check_path;
pub use fs_list::DirectoryReader;
pub use fs_transfer::{FileReader, FileWriter};
pub use microsandbox_protocol::frame::Frame as RawFrame;
pub use raw::{RawClient, RawStream};
pub use stream_agent::{Dialer, Stream, StreamAgent, Verdict};

use crate::api::DEFAULT_CONNECT_TIMEOUT;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::SandboxStatus;

/// Longest silence within a request before the agent counts as lost (`agent.silence_deadline`).
pub const SILENCE_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for a program to take its input (`agent.stall_deadline`).
pub const STALL_DEADLINE: Duration = Duration::from_secs(60);
/// The name of a sandbox's token while it is paused.
pub const PAUSED_TOKEN: &str = "token.paused";
/// How often a full accept queue is tried again.
const BUSY_RETRY: Duration = Duration::from_millis(5);
/// Longest path in a unix socket address, its final NUL not counted.
const SUN_PATH_MAX: usize = 107;

/// Where a sandbox's agent listens, and the token it wants to see.
#[derive(Clone)]
pub struct AgentAddress {
    /// Sandbox name, for errors.
    pub name: String,
    pub socket: PathBuf,
    pub token: Vec<u8>,
}

impl AgentAddress {
    /// The agent of `name` on `socket`; the token of a running sandbox is a file in the same directory.
    pub fn read(name: &str, socket: PathBuf) -> MicrosandboxResult<AgentAddress> {
        let token = socket.with_file_name("token");
        match std::fs::read(&token) {
            Ok(token) => Ok(AgentAddress { name: name.into(), socket, token }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let paused = socket.with_file_name(PAUSED_TOKEN).exists();
                let status = if paused { SandboxStatus::Paused } else { SandboxStatus::Stopped };
                Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status })
            }
            Err(error) => Err(MicrosandboxError::io("read", &token, error)),
        }
    }

    /// A connection for one call.
    pub fn dial(&self) -> impl Future<Output = MicrosandboxResult<AgentClient>> {
        AgentClient::connect(self, DEFAULT_CONNECT_TIMEOUT)
    }
}

impl std::fmt::Debug for AgentAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentAddress").field("name", &self.name).field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A stream that can report without waiting whether its other end is connected and has sent nothing.
pub trait Quiet {
    fn is_quiet(&mut self) -> bool;
}

impl Quiet for UnixStream {
    fn is_quiet(&mut self) -> bool {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let mut byte = [0u8; 1];
        matches!(rustix::net::recv(&*self, &mut byte, flags), Err(rustix::io::Errno::AGAIN))
    }
}

impl<S: Quiet> AgentClient<S> {
    /// Whether the agent is still there and has said nothing unasked: only then may another call use the connection.
    pub fn is_quiet(&mut self) -> bool {
        self.connection.stream_mut().is_quiet()
    }
}

/// A connection to an agent that has shown who it is and accepted us.
pub struct AgentClient<S = UnixStream> {
    connection: Connection<S>,
    ready: Ready,
}

impl AgentClient {
    /// Connects, shows the token and waits for the agent's ready, all within `timeout`.
    pub async fn connect(address: &AgentAddress, timeout: Duration) -> MicrosandboxResult<AgentClient> {
        let deadline = Instant::now() + timeout;
        let stream = dial(address, deadline).await?;
        let mut client = AgentClient::handshake(&address.name, stream, &address.token, deadline).await?;
        client.connection.pauses_with(address.socket.with_file_name(PAUSED_TOKEN));
        Ok(client)
    }
}

impl AgentClient<UnixStream> {
    /// For a relay: shows the token and hands the raw stream over, with the greeting (id range and ready frame) as the
    /// agent sent it. Nothing after the greeting was read.
    pub async fn open_relay(address: &AgentAddress, timeout: Duration) -> MicrosandboxResult<(UnixStream, Bytes)> {
        let deadline = Instant::now() + timeout;
        let stream = dial(address, deadline).await?;
        within(&address.name, deadline, relay::greet(&address.name, stream, &hello(&address.name, &address.token)?))
            .await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AgentClient<S> {
    /// Introduces itself on a fresh stream: our hello, then its id range and its ready (or why not).
    pub async fn handshake(
        name: &str,
        stream: S,
        token: &[u8],
        deadline: Instant,
    ) -> MicrosandboxResult<AgentClient<S>> {
        let mut connection = Connection::new(name, stream);
        connection.push(hello(name, token)?.into());
        within(name, deadline, AgentClient::greeted(connection)).await
    }

    /// Over a relay that has introduced us: the agent speaks first.
    pub async fn relayed(name: &str, stream: S, deadline: Instant) -> MicrosandboxResult<AgentClient<S>> {
        within(name, deadline, AgentClient::greeted(Connection::new(name, stream))).await
    }

    async fn greeted(mut connection: Connection<S>) -> MicrosandboxResult<AgentClient<S>> {
        let ids = decode_id_range(connection.raw().await?).map_err(|error| connection.broke(error.to_string()))?;
        let ready = ready(&mut connection).await?;
        connection.admit(ids);
        Ok(AgentClient { connection, ready })
    }

    /// What the agent said about itself.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// How many frames arrived for ids that no call waits for; those frames were dropped.
    pub fn stray_frames(&self) -> u64 {
        self.connection.stray_frames()
    }

    pub(crate) fn into_connection(self) -> Connection<S> {
        self.connection
    }
}

/// Our introduction.
fn hello(name: &str, token: &[u8]) -> MicrosandboxResult<Vec<u8>> {
    let hello = Hello { token: token.to_vec(), extension_min: EXTENSION_MIN, extension_max: EXTENSION };
    encode(0, Flags::NONE, &Kind::Hello, &hello)
        .map_err(|error| MicrosandboxError::Runtime(format!("sandbox {name}: its token is unusable: {error}")))
}

async fn within<T>(
    name: &str,
    deadline: Instant,
    greeting: impl Future<Output = MicrosandboxResult<T>>,
) -> MicrosandboxResult<T> {
    tokio::time::timeout_at(deadline, greeting).await.unwrap_or_else(|_elapsed| {
        Err(failure::lost(name, "it accepted the connection but did not answer the hello in time"))
    })
}

/// The frame after the id range: ready, or the reason why not.
async fn ready<S: AsyncRead + AsyncWrite + Unpin>(connection: &mut Connection<S>) -> MicrosandboxResult<Ready> {
    let Some(frame) = connection.frame().await? else {
        return Err(connection.lost("it closed the connection during the handshake"));
    };
    let message = connection.open(&frame)?;
    match &message.kind {
        Kind::Ready => {}
        Kind::Error => return Err(connection.refused(&message)),
        other => return Err(connection.broke(format!("`{}` instead of ready", failure::quote(other.as_wire())))),
    }
    let ready: Ready = connection.parse(&message)?;
    match ready.extension {
        Some(extension) if (EXTENSION_MIN..=EXTENSION).contains(&extension) => Ok(ready),
        theirs => {
            let theirs = theirs.map_or_else(|| "none".into(), |extension| extension.to_string());
            Err(connection.broke(format!(
                "the agent uses generation {} extension {theirs}; this client understands generation {GENERATION_MIN} to \
                 {GENERATION} extension {EXTENSION_MIN} to {EXTENSION}",
                message.generation
            )))
        }
    }
}

async fn dial(address: &AgentAddress, deadline: Instant) -> MicrosandboxResult<UnixStream> {
    loop {
        match open_socket(&address.socket).await {
            Ok(stream) => return Ok(stream),
            // The accept queue is full: the agent is busy, not gone.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    return Err(failure::lost(&address.name, "it accepts no connection in time"));
                }
                tokio::time::sleep(BUSY_RETRY).await;
            }
            Err(error) => {
                return Err(failure::lost(&address.name, format!("its socket does not answer: {error}")));
            }
        }
    }
}

async fn open_socket(path: &Path) -> std::io::Result<UnixStream> {
    if path.as_os_str().len() <= SUN_PATH_MAX {
        return UnixStream::connect(path).await;
    }
    // Too long for a socket address: name its directory by a descriptor instead.
    let (Some(parent), Some(file)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, rustix::fs::Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(file);
    UnixStream::connect(short).await
}
