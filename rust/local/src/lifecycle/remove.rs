//! Deleting a sandbox: directory, then row.

use futures::FutureExt as _;
use microsandbox_core::backend::RemoveRequest;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{SandboxStatus, validate_stored_name};
use microsandbox_core::undo;
use microsandbox_home::Home;
use microsandbox_store::SandboxRow;

use super::parse_spec;
use crate::reconcile::{self, Current};

/// What a removal does with a sandbox that is live.
#[derive(Debug, Clone, Copy)]
enum Live {
    Refuse,
    Kill,
}

/// Refuses a live sandbox, and one with another id than the expected one. Goes on if the caller stops waiting: half a removal
/// would leave a record without files.
pub async fn remove(home: &Home, request: RemoveRequest<'_>) -> MicrosandboxResult<()> {
    run(home, request, Live::Refuse).await
}

/// As [`remove`]; a live sandbox is killed first, under the same lock. Its end is not recorded, because the record goes.
pub async fn destroy(home: &Home, request: RemoveRequest<'_>) -> MicrosandboxResult<()> {
    run(home, request, Live::Kill).await
}

async fn run(home: &Home, request: RemoveRequest<'_>, live: Live) -> MicrosandboxResult<()> {
    let RemoveRequest { name, expected_id } = request;
    validate_stored_name("sandbox", name)?;
    let (home, name, expected_id) = (home.clone(), name.to_owned(), expected_id.map(str::to_owned));
    let work = move |_cut| async move { delete(&home, &name, expected_id.as_deref(), live).await };
    undo::whole(work, |()| async {}.boxed()).await
}

async fn delete(home: &Home, name: &str, expected_id: Option<&str>, live: Live) -> MicrosandboxResult<()> {
    let (lock, now) = reconcile::hold(home, name, None).await?;
    if let Some(expected) = expected_id
        && parse_spec(&now.row).is_ok_and(|spec| !spec.id.is_empty() && spec.id != expected)
    {
        return Err(MicrosandboxError::SandboxReplaced(name.into()));
    }
    let row = match live {
        Live::Kill => killed(home, now).await?,
        Live::Refuse if now.row.status.blocks_remove() => {
            return Err(MicrosandboxError::SandboxStillRunning(name.into()));
        }
        Live::Refuse => {
            // What its end could not wait for.
            reconcile::clear_leftovers(&home.sandbox_dir(name)).await;
            now.row
        }
    };
    reconcile::remove_all(home, &row).await?;
    lock.remove_file().await;
    Ok(())
}

/// The row of a sandbox none of whose processes is left.
async fn killed(home: &Home, now: Current) -> MicrosandboxResult<SandboxRow> {
    let Current { row, identity, .. } = now;
    if let Some(identity) = identity {
        let store = home.store().await?;
        // Written while it ends: if the removal is cut off after that, its end was asked for.
        let (noted, ended) =
            tokio::join!(store.set_status(row.id, &[], SandboxStatus::Draining), reconcile::kill_and_clear(&identity));
        noted?;
        if !ended {
            return Err(MicrosandboxError::SandboxStillRunning(row.name));
        }
    }
    Ok(row)
}
