//! Whether the kernel killed a program for lack of memory: the host's own count, not the guest's word.
//!
//! The kernel counts such kills per control group: `oom_kill` in `memory.events` (cgroup v2) or in
//! `memory.oom_control` (v1). A program that ended by SIGKILL while the count rose was one of them.
//!
//! In a microVM the guest's own kernel kills, and no group of the host counts it: there the agent's word stands as it is. A
//! count that rises around a microVM is the monitor itself being killed, which ends the sandbox.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use microsandbox_cgroups::oom::OomCounter;
use microsandbox_contract::IsolationDriver;

use super::reconcile;
use microsandbox_core::model::ExecExit;

/// Exit status of a shell whose program was ended by SIGKILL.
const KILLED: i32 = 128 + 9;

/// Open counters of running sandboxes, by name; the token tells one run from the next.
#[derive(Default)]
pub struct OomCounters {
    open: Mutex<HashMap<String, Counter>>,
}

/// The token of the run, and its counter where there is one.
type Counter = (Vec<u8>, Option<Arc<OomCounter>>);

/// The count when a program was started.
pub struct OomWatch {
    counter: Arc<OomCounter>,
    before: u64,
}

impl OomCounters {
    /// Begins to watch; `None` where no control group counts.
    pub fn watch(&self, name: &str, token: &[u8], sandbox_dir: &Path) -> Option<OomWatch> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.get(name).filter(|(of, _)| of == token).map(|(_, file)| file.clone());
        let counter = match known {
            Some(counter) => counter,
            None => {
                let counter = open_counter(sandbox_dir).map(Arc::new);
                open.insert(name.to_owned(), (token.to_owned(), counter.clone()));
                counter
            }
        }?;
        let before = counter.read()?;
        Some(OomWatch { counter, before })
    }

    /// The sandbox is gone.
    pub fn forget(&self, name: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
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
    let identity = reconcile::identity(sandbox_dir).filter(|identity| identity.driver == IsolationDriver::Container)?;
    OomCounter::open(&identity.cgroups)
}
