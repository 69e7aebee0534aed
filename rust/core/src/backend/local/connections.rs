//! Connections to agents that a finished call left in good order, for the next call to the same run of the same sandbox:
//! connecting and the greeting cost more than a short program does, in a virtual machine above all.
//!
//! One at most is kept for a sandbox, for a short while. A call that is cancelled or fails by halves never gives its
//! connection back: closing it is what ends the program.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::{AgentAddress, AgentClient};

/// How long a connection may lie unused.
const KEPT: Duration = Duration::from_secs(10);
/// Sandboxes for which one is kept.
const MOST: usize = 32;

#[derive(Default)]
pub struct Connections {
    shelf: Arc<Mutex<Shelf>>,
}

#[derive(Default)]
struct Shelf {
    /// By sandbox name.
    idle: HashMap<String, Idle>,
    /// A task closes those that nobody comes for.
    swept: bool,
}

struct Idle {
    /// Of this run: a restarted sandbox has another.
    token: Vec<u8>,
    /// The event loop that drives it; no other can.
    runtime: tokio::runtime::Id,
    since: Instant,
    client: AgentClient,
}

impl Connections {
    /// The one kept for this run, if the agent is still at the other end.
    pub fn take(&self, address: &AgentAddress) -> Option<AgentClient> {
        let runtime = tokio::runtime::Handle::try_current().ok()?.id();
        let kept = lock(&self.shelf).idle.remove(&address.name)?;
        let usable = kept.token == address.token && kept.runtime == runtime && kept.since.elapsed() < KEPT;
        (usable && kept.client.is_quiet()).then_some(kept.client)
    }

    /// Keeps it for [`KEPT`].
    pub fn put(&self, address: &AgentAddress, client: AgentClient) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut shelf = lock(&self.shelf);
        if shelf.idle.len() >= MOST {
            return;
        }
        let kept = Idle { token: address.token.clone(), runtime: runtime.id(), since: Instant::now(), client };
        shelf.idle.insert(address.name.clone(), kept);
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

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// However its task ends, with the event loop too, the next connection gets another.
struct Sweeper(Weak<Mutex<Shelf>>);

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(shelf) = self.0.upgrade() {
            lock(&shelf).swept = false;
        }
    }
}

async fn sweep(mut sweeper: Sweeper) {
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
