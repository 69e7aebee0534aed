//! Create, start, stop, remove, detach: one verb a file.
//!
//! | module | holds |
//! |---|---|
//! | [`create`], [`start`] | from a configuration, or from a stored one, to a running sandbox |
//! | [`bring_up`] | what both share: boot, record, adopt, undo |
//! | [`stop`] | stop, drain, kill |
//! | [`remove`] | directory and row |
//! | [`lifeline`] | attached and detached |

mod bring_up;
pub mod create;
pub mod lifeline;
pub mod remove;
pub mod start;
pub mod stop;

use std::time::Duration;

use microsandbox_contract::Identity;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{SandboxSpec, SandboxStatus, validate_stored_name};
use microsandbox_home::Home;
use microsandbox_store::SandboxRow;

use crate::reconcile;

/// Longest wait for another task or process that is busy with the same name.
pub const LOCK_DEADLINE: Duration = Duration::from_secs(90);

pub fn parse_spec(row: &SandboxRow) -> MicrosandboxResult<SandboxSpec> {
    serde_json::from_str(&row.config_json)
        .map_err(|e| MicrosandboxError::json(format!("stored configuration of sandbox {}", row.name), e))
}

/// The running sandbox's row and the identity of its run. A terminal and an absent sandbox give different errors.
async fn running(home: &Home, name: &str) -> MicrosandboxResult<(SandboxRow, Option<Identity>)> {
    validate_stored_name("sandbox", name)?;
    let now = reconcile::current(home, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    let status = now.row.status;
    if status.is_terminal() || status == SandboxStatus::Created {
        return Err(MicrosandboxError::SandboxNotRunning { name: name.into(), status });
    }
    // Of a sandbox that starts there may be a process before the row says so.
    let identity = now.last_identity(home).await;
    Ok((now.row, identity))
}
