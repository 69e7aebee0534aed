//! A connection for callers that speak the protocol themselves: frames as they are on the wire, distinguished by id.
//!
//! One task reads and writes. A call that does not take its frames holds back the other calls of its connection, and in
//! the end the agent: no frame is dropped and the queues stay bounded. The bodies of frames are not parsed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use microsandbox_protocol::frame::{Flags, Frame, FrameDecoder, decode_id_range, encode_raw};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::{AgentAddress, AgentClient, Connection, failure};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Frames of one call that wait to be taken.
const WAITING: usize = 64;
/// Memory of all frames of a connection that wait to be taken, in KiB: eight of the largest.
const WAITING_KIB: usize = 32 << 10;
/// Bodies of this size and more are not copied while they wait; each may keep a block of this many KiB.
const COPIED_BELOW: usize = 128 << 10;
const BLOCK_KIB: usize = 1 << 10;
/// Bytes accepted from callers that the agent has not taken.
const MAX_QUEUED: usize = 8 << 20;
/// Id range and length field: in front of the greeting's frame.
const RANGE: usize = 8;

/// A raw connection; closing or dropping it ends what was started over it, unless that was asked to stay.
pub struct RawClient {
    name: Arc<str>,
    ready: Bytes,
    routes: Arc<Mutex<Routes>>,
    outgoing: mpsc::Sender<Bytes>,
    task: AbortHandle,
}

/// Who waits for the frames of which id.
struct Routes {
    next_id: u32,
    end_id: u32,
    calls: HashMap<u32, mpsc::Sender<Waiting>>,
    /// No frame will come any more.
    ended: bool,
}

/// A frame, and the room that it takes until its caller has it.
struct Waiting(Frame, OwnedSemaphorePermit);

/// The frames of one id, in order.
pub struct RawStream {
    id: u32,
    name: Arc<str>,
    frames: mpsc::Receiver<Waiting>,
    finished: bool,
    routes: Arc<Mutex<Routes>>,
}

impl AgentAddress {
    /// The sandbox whose agent listens on `socket`, which is named as the product names it.
    pub fn of_socket(socket: &Path) -> MicrosandboxResult<AgentAddress> {
        // <sandboxes>/<name>/runtime/agent.sock
        let owner = socket.parent().and_then(Path::parent).and_then(Path::file_name).unwrap_or_default();
        AgentAddress::read(&owner.to_string_lossy(), socket.to_owned())
    }
}

impl RawClient {
    /// Connects and shows the token, within `timeout`.
    pub async fn connect(address: &AgentAddress, timeout: Duration) -> MicrosandboxResult<RawClient> {
        let name = address.name.as_str();
        let broke = |error: &dyn std::fmt::Display| failure::protocol(name, error.to_string());
        let (stream, greeting) = AgentClient::open_relay(address, timeout).await?;
        let range = greeting.first_chunk::<RANGE>().ok_or_else(|| broke(&"an incomplete greeting"))?;
        let ids = decode_id_range(*range).map_err(|error| broke(&error))?;
        let mut rest = bytes::BytesMut::from(&greeting[RANGE..]);
        let frame = FrameDecoder::default().decode(&mut rest).map_err(|error| broke(&error))?;
        let ready = frame.ok_or_else(|| broke(&"an incomplete greeting"))?.body;
        let mut connection = Connection::new(name, stream);
        connection.admit(ids);
        let routes =
            Arc::new(Mutex::new(Routes { next_id: ids.0, end_id: ids.1, calls: HashMap::new(), ended: false }));
        let (outgoing, queue) = mpsc::channel(WAITING);
        let task = tokio::spawn(carry(connection, Arc::clone(&routes), queue)).abort_handle();
        Ok(RawClient { name: name.into(), ready, routes, outgoing, task })
    }

    /// The body of the agent's `core.ready`.
    pub fn ready(&self) -> &Bytes {
        &self.ready
    }

    /// Sends one frame under a fresh id; what comes back is the stream's.
    pub async fn open(&self, flags: u8, body: &[u8]) -> MicrosandboxResult<RawStream> {
        let (sender, frames) = mpsc::channel(WAITING);
        let id = {
            let mut routes = lock(&self.routes);
            if routes.ended {
                return Err(self.closed());
            }
            if routes.next_id >= routes.end_id {
                return Err(failure::protocol(&self.name, "the range of call ids it gave is used up: connect anew"));
            }
            let id = routes.next_id;
            routes.next_id += 1;
            routes.calls.insert(id, sender);
            id
        };
        let stream =
            RawStream { id, name: Arc::clone(&self.name), frames, finished: false, routes: Arc::clone(&self.routes) };
        self.send(id, flags, body).await?;
        Ok(stream)
    }

    /// The first frame that answers.
    pub async fn request(&self, flags: u8, body: &[u8]) -> MicrosandboxResult<Frame> {
        let mut stream = self.open(flags, body).await?;
        stream.next().await?.ok_or_else(|| self.closed())
    }

    /// Sends one more frame under an id that is in use.
    pub async fn send(&self, id: u32, flags: u8, body: &[u8]) -> MicrosandboxResult<()> {
        let frame = encode_raw(id, Flags(flags), body)
            .map_err(|error| MicrosandboxError::InvalidConfig(format!("body: {error}")))?;
        self.outgoing.send(frame.into()).await.map_err(|_| self.closed())
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.task.abort();
        let mut routes = lock(&self.routes);
        routes.ended = true;
        routes.calls.clear();
    }

    fn closed(&self) -> MicrosandboxError {
        failure::lost(&self.name, "the connection is closed")
    }
}

impl Drop for RawClient {
    fn drop(&mut self) {
        self.close();
    }
}

impl RawStream {
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The next frame; `None` once the terminal one was given. Giving up the wait loses nothing.
    pub async fn next(&mut self) -> MicrosandboxResult<Option<Frame>> {
        if self.finished {
            return Ok(None);
        }
        let frame = self.frames.recv().await;
        let Waiting(frame, _room) =
            frame.ok_or_else(|| failure::lost(&self.name, "the connection ended before the last frame"))?;
        self.finished = frame.flags.contains(Flags::TERMINAL);
        Ok(Some(frame))
    }

    /// Closes the receiving side of this call. The operation that the agent runs under this id continues.
    pub fn close(&mut self) {
        self.finished = true;
        self.frames.close();
        lock(&self.routes).calls.remove(&self.id);
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(routes: &Mutex<Routes>) -> std::sync::MutexGuard<'_, Routes> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries frames both ways until either side ends.
async fn carry(mut connection: Connection<UnixStream>, routes: Arc<Mutex<Routes>>, mut queue: mpsc::Receiver<Bytes>) {
    let room = Arc::new(Semaphore::new(WAITING_KIB));
    loop {
        tokio::select! {
            frame = connection.frame() => match frame {
                Ok(Some(frame)) => route(&mut connection, &routes, &room, frame).await,
                Ok(None) | Err(_) => break,
            },
            // An agent that reads nothing holds back the callers that send, so the queue here stays bounded. Queued
            // bytes are written during the wait above.
            bytes = queue.recv(), if connection.queued() < MAX_QUEUED => match bytes {
                Some(bytes) => connection.push(bytes),
                None => break,
            },
        }
    }
    let mut routes = lock(&routes);
    routes.ended = true;
    routes.calls.clear();
}

async fn route(
    connection: &mut Connection<UnixStream>,
    routes: &Mutex<Routes>,
    room: &Arc<Semaphore>,
    mut frame: Frame,
) {
    let call = {
        let mut routes = lock(routes);
        let last = frame.flags.contains(Flags::TERMINAL);
        if last { routes.calls.remove(&frame.id) } else { routes.calls.get(&frame.id).cloned() }
    };
    match call {
        Some(call) => {
            let taken = if frame.body.len() < COPIED_BELOW {
                frame.body = Bytes::copy_from_slice(&frame.body);
                1 + frame.body.len() / 1024
            } else {
                BLOCK_KIB.max(frame.body.len() / 1024)
            };
            // The semaphore is never closed, and a frame is smaller than it.
            let Ok(taken) = Arc::clone(room).acquire_many_owned(taken as u32).await else { return };
            if call.send(Waiting(frame, taken)).await.is_err() {
                connection.count_stray();
            }
        }
        None => connection.count_stray(),
    }
}
