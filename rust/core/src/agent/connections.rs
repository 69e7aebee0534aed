//! Connections to agents that a finished call left in good order, for the next call to the same run of the same sandbox:
//! connecting and the greeting cost more than a short program does, in a virtual machine above all.
//!
//! One at most is kept for a sandbox, for a short while. A call that is cancelled or fails by halves never gives its
//! connection back: closing it is what ends the program.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;

use super::{AgentAddress, AgentClient, Dialer, Quiet};
use crate::api::DEFAULT_CONNECT_TIMEOUT;
use crate::error::MicrosandboxResult;

/// How long a connection may lie unused.
const KEPT: Duration = Duration::from_secs(10);
/// Most sandboxes for which a connection is kept.
const MOST: usize = 32;

pub struct Connections<S> {
    shelf: Arc<Mutex<Shelf<S>>>,
}

impl<S> Default for Connections<S> {
    fn default() -> Self {
        Connections { shelf: Arc::new(Mutex::new(Shelf { idle: HashMap::new(), swept: false })) }
    }
}

struct Shelf<S> {
    /// By sandbox name.
    idle: HashMap<String, Idle<S>>,
    /// A task runs that closes idle connections which no call takes.
    swept: bool,
}

struct Idle<S> {
    /// The token of this run (or, for a service, of this sandbox): a restarted sandbox has another token.
    token: Vec<u8>,
    /// The event loop that drives the connection; no other event loop can.
    runtime: tokio::runtime::Id,
    since: Instant,
    client: AgentClient<S>,
}

impl<S: Quiet + Send + 'static> Connections<S> {
    /// Takes the connection kept for this run, if the agent is still at the other end.
    pub fn take(&self, name: &str, token: &[u8]) -> Option<AgentClient<S>> {
        let runtime = tokio::runtime::Handle::try_current().ok()?.id();
        let mut kept = lock(&self.shelf).idle.remove(name)?;
        let usable = kept.token == token && kept.runtime == runtime && kept.since.elapsed() < KEPT;
        (usable && kept.client.is_quiet()).then_some(kept.client)
    }

    /// Keeps the connection for [`KEPT`].
    pub fn put(&self, name: &str, token: &[u8], client: AgentClient<S>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut shelf = lock(&self.shelf);
        if shelf.idle.len() >= MOST {
            return;
        }
        let kept = Idle { token: token.to_vec(), runtime: runtime.id(), since: Instant::now(), client };
        shelf.idle.insert(name.to_owned(), kept);
        if !shelf.swept {
            shelf.swept = true;
            drop(shelf);
            runtime.spawn(sweep(Sweeper(Arc::downgrade(&self.shelf))));
        }
    }

    /// The sandbox is gone.
    pub fn forget(&self, name: &str) {
        lock(&self.shelf).idle.remove(name);
    }
}

/// The agent on a unix socket, with connections kept between programs that run to their end.
pub struct KeptDialer<'a> {
    pub address: AgentAddress,
    pub connections: &'a Connections<UnixStream>,
}

impl Dialer for KeptDialer<'_> {
    type Stream = UnixStream;

    async fn dial(&self) -> MicrosandboxResult<AgentClient> {
        AgentClient::connect(&self.address, DEFAULT_CONNECT_TIMEOUT).await
    }
    async fn dial_idle(&self) -> MicrosandboxResult<AgentClient> {
        match self.connections.take(&self.address.name, &self.address.token) {
            Some(client) => Ok(client),
            None => self.dial().await,
        }
    }
    fn keep(&self, client: AgentClient) {
        self.connections.put(&self.address.name, &self.address.token, client);
    }
}

fn lock<S>(shelf: &Mutex<Shelf<S>>) -> MutexGuard<'_, Shelf<S>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// However its task ends, with the event loop too, the next connection gets another.
struct Sweeper<S>(Weak<Mutex<Shelf<S>>>);

impl<S> Drop for Sweeper<S> {
    fn drop(&mut self) {
        if let Some(shelf) = self.0.upgrade() {
            lock(&shelf).swept = false;
        }
    }
}

async fn sweep<S>(mut sweeper: Sweeper<S>) {
    loop {
        tokio::time::sleep(KEPT / 2).await;
        let Some(shelf) = sweeper.0.upgrade() else { return };
        let mut shelf = lock(&shelf);
        shelf.idle.retain(|_, kept| kept.since.elapsed() < KEPT);
        if shelf.idle.is_empty() {
            shelf.swept = false;
            sweeper.0 = Weak::new();
            return;
        }
    }
}
