//! An honest fake: sandboxes that exist in memory only. For tests of programs that use this library.
//!
//! Records, statuses, files, captured logs, paging, validation and errors are those of the local backend.
//! What it does not have it does not pretend: no process is isolated, and programs are a handful of built-in commands
//! (`sh -c` with `;`, `&&`, `||`, `>` and `>>` among them) plus those that a test scripts with [`MemoryBackend::script`].
//!
//! | module | holds |
//! |---|---|
//! | [`records`] | sandboxes, their status and its changes |
//! | [`operations`] | the backend traits, delegated |
//! | [`files`] | a file tree |
//! | [`volumes`] | named trees |
//! | [`sink`] | a file that is being written |
//! | [`run`] | one program: events, input, signals |
//! | [`programs`], [`shell`] | the built-in commands |
//! | [`journal`] | captured output |

mod files;
mod journal;
mod operations;
mod programs;
mod records;
mod run;
mod shell;
mod sink;
mod volumes;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use records::Records;

/// What a scripted command was called with.
#[derive(Debug, Clone, Default)]
pub struct ScriptCall {
    pub cmd: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub user: Option<String>,
    /// All of standard input; empty when it is null or a pipe.
    pub stdin: Bytes,
}

/// What a scripted command does.
#[derive(Debug, Clone, Default)]
pub struct ScriptResult {
    pub stdout: Bytes,
    pub stderr: Bytes,
    pub exit_code: i32,
    /// Time before the output appears and the command exits; kills and timeouts work during this time.
    pub delay: Duration,
}

type Handler = Arc<dyn Fn(&ScriptCall) -> ScriptResult + Send + Sync>;

/// Sandboxes in memory. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryBackend {
    shared: Arc<Shared>,
}

#[derive(Default)]
pub(crate) struct Shared {
    records: Mutex<Records>,
    volumes: Mutex<volumes::Volumes>,
    scripts: Mutex<HashMap<String, Handler>>,
    faults: Mutex<HashMap<String, VecDeque<MicrosandboxError>>>,
    /// Counts changes of any status.
    changes: tokio::sync::watch::Sender<u64>,
}

impl std::fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBackend").field("sandboxes", &lock(&self.shared.records).len()).finish()
    }
}

/// A panic of a test's handler must not make the fake unusable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryBackend {
    pub fn new() -> MemoryBackend {
        MemoryBackend::default()
    }

    /// Makes `cmd` a program of every sandbox; it goes before a built-in one of that name.
    pub fn script(
        &self,
        cmd: impl Into<String>,
        handler: impl Fn(&ScriptCall) -> ScriptResult + Send + Sync + 'static,
    ) {
        lock(&self.shared.scripts).insert(cmd.into(), Arc::new(handler));
    }

    /// Lets the next call of `operation` fail with `error`. Operations are named as in
    /// the traits, those of files with a prefix: `create`, `exec`, `fs_read` … Several faults of one operation are
    /// taken in order.
    pub fn fail_next(&self, operation: impl Into<String>, error: MicrosandboxError) {
        lock(&self.shared.faults).entry(operation.into()).or_default().push_back(error);
    }

    fn fault(&self, operation: &str) -> MicrosandboxResult<()> {
        match lock(&self.shared.faults).get_mut(operation).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
