//! Whether the kernel killed a program for lack of memory: the host's own count, not the guest's word.
//!
//! The kernel counts such kills per control group: `oom_kill` in `memory.events` (cgroup v2) or in
//! `memory.oom_control` (v1). A program that ended by SIGKILL while the count rose was one of them.
//!
//! In a microVM the guest's own kernel kills, and no group of the host counts it: there the agent's word stands as it is. A
//! count that rises around a microVM is the monitor itself being killed, which ends the sandbox.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

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
type Counter = (Vec<u8>, Option<Arc<File>>);

/// The count when a program was started.
pub struct OomWatch {
    counter: Arc<File>,
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
        let before = read(&counter)?;
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
        if killed && !exit.timed_out && read(&self.counter).is_some_and(|now| now > self.before) {
            exit.oom_killed = true;
        }
    }
}

fn open_counter(sandbox_dir: &Path) -> Option<File> {
    let identity = reconcile::identity(sandbox_dir).filter(|identity| identity.driver == IsolationDriver::Container)?;
    let candidates =
        identity.cgroups.iter().flat_map(|group| [group.join("memory.events"), group.join("memory.oom_control")]);
    candidates.filter_map(|path| File::open(path).ok()).find(|file| read(file).is_some())
}

/// The `oom_kill` line of either file.
fn read(counter: &File) -> Option<u64> {
    let mut buffer = [0; 512];
    let length = counter.read_at(&mut buffer, 0).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}
