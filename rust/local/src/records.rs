//! Reading records: one, a page, the number, and the wait for an end.

use std::ops::ControlFlow;
use std::time::Duration;

use microsandbox_core::api::{Awaited, LastRun, SandboxHandleInner, SandboxHandleLocalState, SandboxRecord};
use microsandbox_core::backend::{ListQuery, RecordPage};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{Owners, validate_stored_name};
use microsandbox_home::{Home, process, runtime_process};
use microsandbox_store::{RunRow, SandboxRow};

use crate::lifecycle::parse_spec;
use crate::reconcile;

/// Interval between two checks of a sandbox that has not ended and has no process to wait for.
const STILL_LIVE: Duration = Duration::from_millis(5);
/// Page of `list` (cloud-wire section 4).
const PAGE_DEFAULT: u32 = 20;
const PAGE_MAX: u32 = 100;

pub async fn get(home: &Home, name: &str) -> MicrosandboxResult<SandboxRecord> {
    validate_stored_name("sandbox", name)?;
    let now = reconcile::current(home, name).await?.ok_or_else(|| reconcile::not_found(name))?;
    Ok(record(now.row, now.run))
}

pub async fn get_by_id(home: &Home, id: &str, owners: &Owners) -> MicrosandboxResult<SandboxRecord> {
    let found = match home.store().await?.sandbox_by_id(id, owners).await? {
        Some((row, run)) => reconcile::settle(home, row, run).await?,
        None => None,
    };
    // Settling reads the row again by its name, which a replacement may have taken.
    let record = found
        .map(|now| record(now.row, now.run))
        .filter(|record| record.id == id && owners.include(record.owner.as_deref()));
    record.ok_or_else(|| reconcile::not_found(id))
}

/// All rows, also of ephemeral sandboxes that ended and whose removal is pending.
pub async fn count(home: &Home) -> MicrosandboxResult<u64> {
    home.store().await?.count_sandboxes().await
}

fn record(row: SandboxRow, run: Option<RunRow>) -> SandboxRecord {
    // A broken configuration must not make the sandbox unreachable; `config()` will say what is wrong.
    let spec = parse_spec(&row).unwrap_or_default();
    let pid = run.as_ref().filter(|run| run.active).and_then(|run| run.pid);
    let last_run = run.map(|run| LastRun {
        exit_code: run.exit_code,
        signal: run.exit_signal,
        reason: run.termination_reason,
        detail: run.termination_detail,
    });
    SandboxRecord {
        name: row.name,
        id: spec.id,
        status: row.status,
        config_json: row.config_json,
        owner: row.owner,
        created_at: row.created_at,
        updated_at: row.updated_at,
        isolation: spec.isolation_actual,
        last_run,
        last_error: None,
        inner: SandboxHandleInner::Local(SandboxHandleLocalState { db_id: row.id, pid }),
    }
}

/// One page, newest first; the cursor is the id of the page's last row.
pub async fn list(home: &Home, query: ListQuery) -> MicrosandboxResult<RecordPage> {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(MicrosandboxError::InvalidConfig(format!("limit must be 1 to {PAGE_MAX}: got {limit}")));
    }
    let below = query.cursor.as_deref().map(decode_cursor).transpose()?;
    let page = home.store().await?.sandboxes_of(&query.owners, below, limit, &query.labels).await?;
    // Ephemeral ones may turn out to be gone.
    let settled = reconcile::settle_all(home, page.rows).await?;
    let records = settled.into_iter().map(|(row, run)| record(row, run)).collect();
    Ok(RecordPage { records, next_cursor: page.next.map(encode_cursor) })
}

fn encode_cursor(id: i32) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id.to_string())
}

fn decode_cursor(text: &str) -> MicrosandboxResult<i32> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<i32>().ok())
        .filter(|id| *id > 0)
        .ok_or_else(|| MicrosandboxError::InvalidCursor(format!("{text:?} is not a cursor that list gave")))
}

/// Waits on the runtime process itself, then reads the settled row.
pub async fn wait(home: &Home, name: &str) -> MicrosandboxResult<SandboxRecord> {
    validate_stored_name("sandbox", name)?;
    let mut awaited = Awaited::default();
    let mut found = reconcile::current(home, name).await?;
    loop {
        let identity = match &found {
            Some(now) if !now.row.status.is_terminal() => now.last_identity(home).await,
            _ => None,
        };
        let looked = found.map(|now| record(now.row, now.run)).ok_or_else(|| reconcile::not_found(name));
        if let ControlFlow::Break(end) = awaited.look(looked) {
            return end;
        }
        found = match identity.and_then(|identity| process::open(&identity.runtime)) {
            Some(pidfd) => {
                runtime_process::wait_gone(pidfd).await.map_err(|source| MicrosandboxError::Io {
                    context: format!("wait for the runtime of {name}"),
                    source,
                })?;
                reconcile::current(home, name).await?
            }
            // Booting, or being settled under the lock: the outcome is known once the lock is free.
            None => {
                let now = reconcile::current_in_turn(home, name).await?;
                if now.as_ref().is_some_and(|now| !now.row.status.is_terminal()) {
                    tokio::time::sleep(STILL_LIVE).await;
                }
                now
            }
        };
    }
}
