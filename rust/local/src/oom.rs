//! Whether the kernel killed a program for lack of memory, from the host's own count, not from the guest's report.
//!
//! The kernel counts such kills per control group: `oom_kill` in `memory.events` (cgroup v2) or in
//! `memory.oom_control` (v1). A program that ended by SIGKILL while the count rose was one of them.
//!
//! In a microVM the guest's own kernel kills, and no group of the host counts that: there the agent's report is used
//! unchanged. A count that rises around a microVM is the monitor itself being killed, which ends the sandbox.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use microsandbox_cgroups::oom::OomCounter;
use microsandbox_contract::IsolationDriver;

use super::reconcile;
use microsandbox_core::model::ExecExit;

/// Exit status of a shell whose program was ended by SIGKILL.
const KILLED: i32 = 128 + 9;

/// Open counters of running sandboxes, by name; the token distinguishes one run from the next. Clones share them.
#[derive(Default, Clone)]
pub struct OomCounters {
    open: Arc<Mutex<HashMap<String, Counter>>>,
}

/// The token of the run, and its counter where there is one.
type Counter = (Vec<u8>, Option<Arc<OomCounter>>);

/// The count when a program was started.
pub struct OomWatch {
    counter: Arc<OomCounter>,
    before: u64,
}

impl OomCounters {
    /// Opens the counter of this run, if it is not open yet. Reads files.
    pub fn open(&self, name: &str, token: &[u8], sandbox_dir: &Path) {
        let is_open = |open: &HashMap<String, Counter>| open.get(name).is_some_and(|(of, _)| of == token);
        if is_open(&self.lock()) {
            return;
        }
        // Not under the lock: other calls take it on the event loop.
        let counter = open_counter(sandbox_dir).map(Arc::new);
        self.lock().insert(name.to_owned(), (token.to_owned(), counter));
    }

    /// Begins to watch; `None` where no control group counts.
    pub fn watch(&self, name: &str, token: &[u8]) -> Option<OomWatch> {
        let counter = self.lock().get(name).filter(|(of, _)| of == token).and_then(|(_, counter)| counter.clone())?;
        let before = counter.read()?;
        Some(OomWatch { counter, before })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Counter>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox is gone.
    pub fn forget(&self, name: &str) {
        self.lock().remove(name);
    }
}

impl OomWatch {
    /// Completes the verdict on a run.
    pub fn judge(&self, exit: &mut ExecExit) {
        let killed = exit.signal == Some(9) || exit.code == KILLED;
        if killed && !exit.timed_out && self.counter.read().is_some_and(|now| now > self.before) {
            exit.oom_killed = true;
        }
    }
}

fn open_counter(sandbox_dir: &Path) -> Option<OomCounter> {
    let identity =
        reconcile::read_identity(sandbox_dir).filter(|identity| identity.driver == IsolationDriver::Container)?;
    OomCounter::open(&identity.cgroups)
}
