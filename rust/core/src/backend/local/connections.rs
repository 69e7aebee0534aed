//! Connections to agents that a finished call left in good order, for the next call to the same run of the same sandbox:
//! connecting and the greeting cost more than a short program does, in a virtual machine above all.
//!
//! One at most is kept for a sandbox, for a short while. A call that is cancelled or fails by halves never gives its
//! connection back: closing it is what ends the program.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::agent::{AgentAddress, AgentClient};

/// How long a connection may lie unused.
const KEPT: Duration = Duration::from_secs(10);
/// Sandboxes for which one is kept.
const MOST: usize = 32;

/// By sandbox name.
#[derive(Default)]
pub struct Connections {
    idle: Mutex<HashMap<String, Idle>>,
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
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(&address.name)?;
        let usable = kept.token == address.token && kept.runtime == runtime && kept.since.elapsed() < KEPT;
        (usable && kept.client.is_quiet()).then_some(kept.client)
    }

    /// Keeps it, and lets go of those that nobody came for.
    pub fn put(&self, address: &AgentAddress, client: AgentClient) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| now.duration_since(kept.since) < KEPT);
        if idle.len() < MOST {
            let kept = Idle { token: address.token.clone(), runtime: runtime.id(), since: now, client };
            idle.insert(address.name.clone(), kept);
        }
    }

    /// The sandbox is gone.
    pub fn forget(&self, name: &str) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
