//! The two things users hold: a live [`Sandbox`], and a [`SandboxHandle`], the record of one in any state.
//!
//! Both are bound to the backend they came from. What can be said in terms of the trait is said here once, for every
//! backend: stop and its escalation, waits, replacing.

mod files;
mod handle;
mod live;

use std::ops::ControlFlow;
use std::time::Duration;

use chrono::{DateTime, Utc};

pub use files::{SandboxFs, VolumeFs};
pub use handle::SandboxHandle;
pub use live::Sandbox;

use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{Isolation, SandboxStatus};

pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);
pub const DEFAULT_KILL_TIMEOUT: Duration = Duration::from_secs(5);
pub const STATUS_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How often an operation that chooses by state looks again because the state changed under it.
const CHANGED_TURNS: u32 = 50;

/// One page of handles, newest first.
#[derive(Debug, Clone)]
pub struct SandboxList {
    pub sandboxes: Vec<SandboxHandle>,
    pub next_cursor: Option<String>,
}

/// What a backend puts into a handle when it reads a record.
#[derive(Debug, Clone)]
pub struct SandboxRecord {
    pub name: String,
    /// Random identity, empty where the backend has none.
    pub id: String,
    pub status: SandboxStatus,
    pub config_json: String,
    /// The client of a server for whom it was made.
    pub owner: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
    pub isolation: Option<Isolation>,
    /// How the last run ended, where known.
    pub last_run: Option<LastRun>,
    pub last_error: Option<String>,
    pub inner: SandboxHandleInner,
}

/// The wait for the end of a sandbox, one look after the other. A sandbox that is removed or replaced in between has ended.
#[derive(Debug, Default)]
pub struct Awaited(Option<SandboxRecord>);

impl Awaited {
    /// Takes in what a look found, and gives the record of the end once there is one.
    pub fn look(&mut self, found: MicrosandboxResult<SandboxRecord>) -> ControlFlow<MicrosandboxResult<SandboxRecord>> {
        let now = match found {
            Ok(now) => now,
            Err(MicrosandboxError::SandboxNotFound(name)) => {
                return ControlFlow::Break(self.0.take().ok_or(MicrosandboxError::SandboxNotFound(name)));
            }
            Err(error) => return ControlFlow::Break(Err(error)),
        };
        match self.0.take_if(|before| before.id != now.id) {
            Some(before) => ControlFlow::Break(Ok(before)),
            None if now.status.is_terminal() => ControlFlow::Break(Ok(now)),
            None => {
                self.0 = Some(SandboxRecord { status: SandboxStatus::Stopped, ..now });
                ControlFlow::Continue(())
            }
        }
    }
}

/// The end of the most recent run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastRun {
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub reason: Option<String>,
    pub detail: Option<String>,
}

/// Backend-private data of a handle, reached through `local()` and `cloud()`.
#[derive(Debug, Clone)]
pub enum SandboxHandleInner {
    Local(SandboxHandleLocalState),
    Cloud(SandboxHandleCloudState),
    /// A backend that is not part of this product.
    Other,
}

#[derive(Debug, Clone)]
pub struct SandboxHandleLocalState {
    pub db_id: i32,
    /// The runtime process, while it runs.
    pub pid: Option<i32>,
}

#[derive(Debug, Clone)]
pub struct SandboxHandleCloudState {
    pub id: String,
    pub org_id: String,
    /// The record is deleted when the run ends.
    pub ephemeral: bool,
    pub started_at: Option<DateTime<Utc>>,
    pub stopped_at: Option<DateTime<Utc>>,
}

/// Backend-private data of a live sandbox.
#[derive(Debug, Clone)]
pub enum SandboxInner {
    Local(SandboxLocalState),
    Cloud(SandboxCloudState),
    Other,
}

#[derive(Debug, Clone)]
pub struct SandboxLocalState {
    pub db_id: i32,
    /// This process created the sandbox attached and has not detached from it.
    pub owned: bool,
}

#[derive(Debug, Clone)]
pub struct SandboxCloudState {
    pub id: String,
    pub org_id: String,
    pub created_at: DateTime<Utc>,
}
