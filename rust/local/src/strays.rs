//! Runtimes without a record: their sandbox runs, but no row says so, because its row, its database or its home was deleted or
//! replaced. They are found by the label of their processes; `msb doctor` reports them and `msb doctor --fix` ends them.

use std::path::PathBuf;

use microsandbox_contract::{Identity, IsolationDriver, IsolationReport};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{Owners, SandboxStatus};
use microsandbox_home::label::{self, Labelled};
use microsandbox_home::{Home, blocking, process};

use crate::reconcile;

/// Name of the doctor's check.
pub const CHECK: &str = "strays";
/// What helps against a sandbox that runs without a record.
pub const HINT: &str = "msb doctor --fix ends the sandboxes that run without a record";

/// What is known of a run whose `runtime/identity.json` is missing or damaged. Its isolation report is lost.
pub fn identity(
    found: Labelled,
    driver: IsolationDriver,
    started_at_ms: u64,
    cgroups: impl FnOnce(i32) -> Vec<PathBuf>,
) -> Identity {
    let children = process::children(found.runtime.pid).into_iter();
    // The first process of the sandbox is the runtime's only child.
    let init = children.filter_map(process::of).map(|(init, _)| init).next();
    let init = init.unwrap_or_else(|| found.runtime.clone());
    let cgroups = cgroups(init.pid);
    Identity { runtime: found.runtime, init, driver, cgroups, started_at_ms, isolation: IsolationReport::default() }
}

/// The runtimes of this home that no record knows.
pub async fn find(home: &Home) -> MicrosandboxResult<Vec<Labelled>> {
    let path = home.path().to_owned();
    let found = blocking(move || Ok(label::find(&path))).await?;
    let mut strays = Vec::new();
    // A database that does not exist is not made for this.
    let has_records = home.path().join("db").join("msb.db").exists();
    for runtime in found {
        let is_known = has_records && is_known(home, &runtime).await?;
        // One that has ended while the records were read is none.
        if !is_known && process::is_alive(&runtime.runtime) {
            strays.push(runtime);
        }
    }
    Ok(strays)
}

/// Whether a record says that this runtime runs. A sandbox has its record before it has a process.
async fn is_known(home: &Home, runtime: &Labelled) -> MicrosandboxResult<bool> {
    let Some((row, run)) = home.store().await?.sandbox_by_id(&runtime.label.sandbox, &Owners::All).await? else {
        return Ok(false);
    };
    let Some(now) = reconcile::settle(home, row, run).await? else { return Ok(false) };
    let known = now.identity.as_ref().is_none_or(|identity| identity.runtime == runtime.runtime);
    Ok(known && (now.row.status.blocks_remove() || now.row.status == SandboxStatus::Starting))
}

/// Ends the runtimes of this home that no record knows, with everything in their sandboxes; their pids.
pub async fn end(home: &Home) -> MicrosandboxResult<Vec<i32>> {
    let mut ended = Vec::new();
    for stray in find(home).await? {
        let pid = stray.runtime.pid;
        // Its runtime removes its control groups.
        reconcile::kill(&identity(stray, IsolationDriver::Unknown, 0, |_| Vec::new())).await;
        ended.push(pid);
    }
    Ok(ended)
}

/// The error for a name whose directory belongs to a sandbox that runs without a record.
pub fn in_the_way(name: &str) -> MicrosandboxError {
    MicrosandboxError::InvalidState(format!(
        "the directory of sandbox {name} belongs to one that runs without a record; {HINT}"
    ))
}

/// The error for an isolation report that was deleted with the files of its run.
pub fn report_lost(name: &str) -> MicrosandboxError {
    MicrosandboxError::InvalidState(format!(
        "the isolation report of sandbox {name} is lost: runtime/identity.json in its directory was deleted or damaged while \
         it runs; restart the sandbox"
    ))
}
