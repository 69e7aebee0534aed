//! Deleting a sandbox that is not live: directory, then row.

use futures::FutureExt as _;
use microsandbox_core::backend::RemoveRequest;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::validate_sandbox_name;
use microsandbox_core::undo;
use microsandbox_home::Home;
use microsandbox_home::lock::NameLock;

use super::{LOCK_DEADLINE, parse_spec};
use crate::reconcile::{self, Current};

/// Refuses a live sandbox, and one with another id than the expected one. Goes on if the caller stops waiting: half a removal
/// would leave a record without files.
pub async fn remove(home: &Home, request: RemoveRequest<'_>) -> MicrosandboxResult<()> {
    let RemoveRequest { name, expected_id } = request;
    validate_sandbox_name(name)?;
    let (home, name, expected_id) = (home.clone(), name.to_owned(), expected_id.map(str::to_owned));
    undo::whole(|_cut| async move { delete(&home, &name, expected_id.as_deref()).await }, |()| async {}.boxed()).await
}

async fn delete(home: &Home, name: &str, expected_id: Option<&str>) -> MicrosandboxResult<()> {
    let lock = NameLock::acquire(home.path(), name, LOCK_DEADLINE).await?;
    let Some(Current { row, .. }) = reconcile::current_held(home, name).await? else {
        lock.remove_file().await;
        return Err(reconcile::not_found(name));
    };
    if let Some(expected) = expected_id
        && parse_spec(&row).is_ok_and(|spec| !spec.id.is_empty() && spec.id != expected)
    {
        return Err(MicrosandboxError::SandboxReplaced(name.into()));
    }
    if row.status.blocks_remove() {
        return Err(MicrosandboxError::SandboxStillRunning(name.into()));
    }
    reconcile::remove_all(home, &row).await?;
    lock.remove_file().await;
    Ok(())
}
