//! Lifelines: what ends an attached sandbox with its creator, and how a sandbox is detached from it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_home::Home;

use super::{parse_spec, running};

/// Writing ends of the lifelines of attached sandboxes, by sandbox id. The kernel closes them when this process ends, for
/// whatever reason, and the sandboxes end with them.
static LIFELINES: Mutex<Option<HashMap<String, OwnedFd>>> = Mutex::new(None);

pub fn keep(id: &str, lifeline: OwnedFd) {
    let mut map = LIFELINES.lock().unwrap_or_else(PoisonError::into_inner);
    map.get_or_insert_default().insert(id.to_owned(), lifeline);
}

pub fn take(id: &str) -> Option<OwnedFd> {
    let mut map = LIFELINES.lock().unwrap_or_else(PoisonError::into_inner);
    map.as_mut()?.remove(id)
}

/// Reports to the runtime that its sandbox no longer ends with this process. A sandbox that has ended needs no report.
pub fn release(lifeline: &OwnedFd, name: &str) -> MicrosandboxResult<()> {
    match rustix::io::write(lifeline, b"d") {
        Ok(_) | Err(rustix::io::Errno::PIPE) => Ok(()),
        Err(e) => Err(MicrosandboxError::Io { context: format!("detach sandbox {name}"), source: e.into() }),
    }
}

/// It keeps running when this process ends.
pub async fn detach(home: &Home, name: &str) -> MicrosandboxResult<()> {
    let (row, _identity) = running(home, name).await?;
    let mut spec = parse_spec(&row)?;
    if let Some(lifeline) = take(&spec.id) {
        release(&lifeline, name)?;
    }
    spec.detached = true;
    home.store().await?.update_spec(row.id, &spec).await
}
