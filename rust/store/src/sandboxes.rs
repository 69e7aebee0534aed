//! Statements on `sandbox`, `sandbox_labels`, `sandbox_rootfs` and `run`.

use std::collections::BTreeMap;

use chrono::{NaiveDateTime, Utc};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait,
    ExprTrait, FromQueryResult, PaginatorTrait, QueryFilter, QuerySelect, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait, Value,
};

use super::entity::{layer, manifest, manifest_layer, run, sandbox, sandbox_labels, sandbox_rootfs};
use super::errors::Fault;
use super::migration::SANDBOX_ID;
use super::{RunEnd, RunRow, SandboxRow, SandboxRows};
use microsandbox_core::error::MicrosandboxError;
use microsandbox_core::model::{Owners, SandboxSpec, SandboxStatus};

const ACTIVE: &str = "Running";
const TERMINATED: &str = "Terminated";

/// The newest run is the one with the highest id: clocks step back, sequence numbers do not.
const ROWS: &str = "SELECT s.id, s.name, s.config, s.status, s.own_owner, s.ephemeral, s.created_at, s.updated_at, \
     r.id AS run_id, r.pid, r.status AS run_status, r.exit_code, r.exit_signal, r.termination_reason, \
     r.termination_detail, r.started_at, r.terminated_at \
     FROM sandbox s \
     LEFT JOIN run r ON r.id = (SELECT MAX(id) FROM run WHERE sandbox_id = s.id)";
const LABELLED: &str =
    "EXISTS (SELECT 1 FROM sandbox_labels l WHERE l.sandbox_id = s.id AND l.key = ? AND l.value = ?)";

/// Acquires the write lock at the begin, so that no transaction fails in its middle because it cannot acquire it.
pub(super) async fn begin(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    db.begin_with_options(TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    })
    .await
}

pub(super) async fn insert(
    db: &DatabaseConnection,
    owner: Option<&str>,
    spec: &SandboxSpec,
    status: SandboxStatus,
) -> Result<SandboxRow, Fault> {
    let config = to_json(spec)?;
    let now = Utc::now();
    let row = sandbox::ActiveModel {
        name: Set(spec.name.clone()),
        config: Set(config.clone()),
        status: Set(status.as_str().to_owned()),
        created_at: Set(Some(now.naive_utc())),
        updated_at: Set(Some(now.naive_utc())),
        ephemeral: Set(spec.lifecycle.ephemeral),
        own_owner: Set(owner.map(str::to_owned)),
        ..Default::default()
    };
    let id = if spec.labels.is_empty() {
        insert_row(db, row, &spec.name).await?
    } else {
        let transaction = begin(db).await?;
        let id = insert_row(&transaction, row, &spec.name).await?;
        insert_labels(&transaction, id, &spec.labels).await?;
        transaction.commit().await?;
        id
    };
    Ok(SandboxRow {
        id,
        name: spec.name.clone(),
        status,
        config_json: config,
        owner: owner.map(str::to_owned),
        ephemeral: spec.lifecycle.ephemeral,
        created_at: Some(now),
        updated_at: Some(now),
    })
}

async fn insert_row(db: &impl ConnectionTrait, row: sandbox::ActiveModel, name: &str) -> Result<i32, Fault> {
    match sandbox::Entity::insert(row).exec(db).await {
        Ok(done) => Ok(done.last_insert_id),
        Err(error) => {
            let fault = Fault::from(error);
            if fault.is_unique_violation() {
                return Err(Fault::Refused(MicrosandboxError::SandboxAlreadyExists(name.to_owned())));
            }
            Err(fault)
        }
    }
}

async fn insert_labels(
    db: &impl ConnectionTrait,
    sandbox_id: i32,
    labels: &BTreeMap<String, String>,
) -> Result<(), DbErr> {
    let rows = labels.iter().map(|(key, value)| sandbox_labels::ActiveModel {
        sandbox_id: Set(sandbox_id),
        key: Set(key.clone()),
        value: Set(value.clone()),
    });
    sandbox_labels::Entity::insert_many(rows).exec_without_returning(db).await?;
    Ok(())
}

fn by_name_sql() -> String {
    format!("{ROWS} WHERE s.name = ?")
}

fn by_id_sql(owners: &Owners) -> String {
    let condition = owned(owners, "s.").map(|(sql, _)| format!(" AND {sql}")).unwrap_or_default();
    format!("{ROWS} WHERE {SANDBOX_ID} = ?{condition} ORDER BY s.id DESC LIMIT 1")
}

/// The condition that selects rows of `owners`, with its value; none where all are meant. `table` is the alias and a dot.
pub(super) fn owned(owners: &Owners, table: &str) -> Option<(String, Value)> {
    match owners {
        Owners::All => None,
        Owners::Only(owner) => Some((format!("{table}own_owner = ?"), owner.as_str().into())),
        Owners::OnlyAndLocal(owner) => {
            Some((format!("({table}own_owner IS NULL OR {table}own_owner = ?)"), owner.as_str().into()))
        }
    }
}

pub(super) async fn by_name(
    db: &DatabaseConnection,
    name: &str,
) -> Result<Option<(SandboxRow, Option<RunRow>)>, Fault> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), by_name_sql(), [Value::from(name)]);
    Joined::find_by_statement(statement).one(db).await?.map(Joined::split).transpose()
}

/// By the identity in the stored configuration, through the index on [`SANDBOX_ID`].
pub(super) async fn by_id(
    db: &DatabaseConnection,
    id: &str,
    owners: &Owners,
) -> Result<Option<(SandboxRow, Option<RunRow>)>, Fault> {
    let values = [Value::from(id)].into_iter().chain(owned(owners, "s.").map(|(_, value)| value));
    let statement = Statement::from_sql_and_values(db.get_database_backend(), by_id_sql(owners), values);
    Joined::find_by_statement(statement).one(db).await?.map(Joined::split).transpose()
}

pub(super) async fn count(db: &DatabaseConnection) -> Result<u64, Fault> {
    Ok(sandbox::Entity::find().count(db).await?)
}

pub(super) async fn page(
    db: &DatabaseConnection,
    owners: &Owners,
    below: Option<i32>,
    limit: u32,
    labels: &BTreeMap<String, String>,
) -> Result<SandboxRows, Fault> {
    let mut conditions: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    if let Some(below) = below {
        conditions.push("s.id < ?".into());
        values.push(below.into());
    }
    if let Some((condition, value)) = owned(owners, "s.") {
        conditions.push(condition);
        values.push(value);
    }
    for (key, value) in labels {
        conditions.push(LABELLED.into());
        values.extend([Value::from(key.as_str()), Value::from(value.as_str())]);
    }
    let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    // One row more than requested shows whether there is a next page.
    values.push((i64::from(limit) + 1).into());
    let sql = format!("{ROWS}{filter} ORDER BY s.id DESC LIMIT ?");
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let found = Joined::find_by_statement(statement).all(db).await?;
    let mut rows = found.into_iter().map(Joined::split).collect::<Result<Vec<_>, _>>()?;
    let has_more = rows.len() as u64 > u64::from(limit);
    rows.truncate(limit as usize);
    let next = if has_more { rows.last().map(|(row, _)| row.id) } else { None };
    Ok(SandboxRows { rows, next })
}

pub(super) async fn set_status(
    db: &impl ConnectionTrait,
    id: i32,
    expected: &[SandboxStatus],
    status: SandboxStatus,
) -> Result<bool, Fault> {
    let mut update = sandbox::Entity::update_many()
        .col_expr(sandbox::Column::Status, Expr::value(status.as_str()))
        .col_expr(sandbox::Column::UpdatedAt, Expr::value(Utc::now().naive_utc()))
        .filter(sandbox::Column::Id.eq(id));
    if !expected.is_empty() {
        update = update.filter(sandbox::Column::Status.is_in(expected.iter().map(|status| status.as_str())));
    }
    Ok(update.exec(db).await?.rows_affected > 0)
}

pub(super) async fn update_spec(db: &DatabaseConnection, id: i32, spec: &SandboxSpec) -> Result<(), Fault> {
    let transaction = begin(db).await?;
    let done = sandbox::Entity::update_many()
        .col_expr(sandbox::Column::Config, Expr::value(to_json(spec)?))
        .col_expr(sandbox::Column::Ephemeral, Expr::value(spec.lifecycle.ephemeral))
        .col_expr(sandbox::Column::UpdatedAt, Expr::value(Utc::now().naive_utc()))
        .filter(sandbox::Column::Id.eq(id))
        .exec(&transaction)
        .await?;
    if done.rows_affected == 0 {
        return Err(Fault::Refused(MicrosandboxError::SandboxNotFound(spec.name.clone())));
    }
    sandbox_labels::Entity::delete_many().filter(sandbox_labels::Column::SandboxId.eq(id)).exec(&transaction).await?;
    if !spec.labels.is_empty() {
        insert_labels(&transaction, id, &spec.labels).await?;
    }
    transaction.commit().await?;
    Ok(())
}

pub(super) async fn delete(db: &DatabaseConnection, id: i32) -> Result<bool, Fault> {
    Ok(sandbox::Entity::delete_by_id(id).exec(db).await?.rows_affected > 0)
}

pub(super) async fn begin_run(
    db: &DatabaseConnection,
    sandbox_id: i32,
    pid: i32,
    status: SandboxStatus,
) -> Result<i32, Fault> {
    let transaction = begin(db).await?;
    if !set_status(&transaction, sandbox_id, &[], status).await? {
        return Err(gone(sandbox_id));
    }
    let row = run::ActiveModel {
        sandbox_id: Set(sandbox_id),
        pid: Set(Some(pid)),
        status: Set(ACTIVE.to_owned()),
        started_at: Set(Some(Utc::now().naive_utc())),
        ..Default::default()
    };
    let id = run::Entity::insert(row).exec(&transaction).await?.last_insert_id;
    transaction.commit().await?;
    Ok(id)
}

pub(super) async fn end_run(
    db: &DatabaseConnection,
    sandbox_id: i32,
    end: &RunEnd,
    status: SandboxStatus,
) -> Result<(), Fault> {
    let transaction = begin(db).await?;
    run::Entity::update_many()
        .set(run::ActiveModel {
            status: Set(TERMINATED.to_owned()),
            exit_code: Set(end.exit_code),
            exit_signal: Set(end.exit_signal),
            termination_reason: Set(end.reason.map(|reason| reason.as_str().to_owned())),
            termination_detail: Set(end.detail.clone()),
            signals_sent: Set(end.signals_sent.clone()),
            terminated_at: Set(Some(Utc::now().naive_utc())),
            ..Default::default()
        })
        .filter(run::Column::SandboxId.eq(sandbox_id))
        .filter(run::Column::Status.eq(ACTIVE))
        .exec(&transaction)
        .await?;
    super::volumes::detach(&transaction, sandbox_id).await?;
    // If the sandbox was removed in the meantime, its runs were deleted with it: nothing is left to record.
    set_status(&transaction, sandbox_id, &[], status).await?;
    transaction.commit().await?;
    Ok(())
}

pub(super) async fn set_rootfs(
    db: &DatabaseConnection,
    sandbox_id: i32,
    manifest_digest: Option<&str>,
    mode: &str,
) -> Result<(), Fault> {
    let transaction = begin(db).await?;
    let now = Utc::now().naive_utc();
    let manifest_id = match manifest_digest {
        Some(digest) => Some(pin(&transaction, digest, now).await?),
        None => None,
    };
    let row = sandbox_rootfs::ActiveModel {
        sandbox_id: Set(sandbox_id),
        manifest_id: Set(manifest_id),
        mode: Set(mode.to_owned()),
        created_at: Set(Some(now)),
        ..Default::default()
    };
    let replace = OnConflict::column(sandbox_rootfs::Column::SandboxId)
        .update_columns([sandbox_rootfs::Column::ManifestId, sandbox_rootfs::Column::Mode])
        .to_owned();
    sandbox_rootfs::Entity::insert(row).on_conflict(replace).exec_without_returning(&transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// The manifest's row, its layers marked as used now.
async fn pin(db: &DatabaseTransaction, digest: &str, now: NaiveDateTime) -> Result<i32, Fault> {
    let found = manifest::Entity::find().filter(manifest::Column::Digest.eq(digest)).one(db).await?;
    let Some(found) = found else {
        return Err(Fault::Refused(MicrosandboxError::ImageNotFound(digest.to_owned())));
    };
    let layers = manifest_layer::Entity::find()
        .select_only()
        .column(manifest_layer::Column::LayerId)
        .filter(manifest_layer::Column::ManifestId.eq(found.id));
    layer::Entity::update_many()
        .col_expr(layer::Column::LastUsedAt, Expr::value(now))
        .filter(Expr::col(layer::Column::Id).in_subquery(sea_orm::QueryTrait::into_query(layers)))
        .exec(db)
        .await?;
    Ok(found.id)
}

fn gone(sandbox_id: i32) -> Fault {
    Fault::Refused(MicrosandboxError::SandboxNotFound(format!("the one of record {sandbox_id}")))
}

fn to_json(spec: &SandboxSpec) -> Result<String, Fault> {
    serde_json::to_string(spec)
        .map_err(|error| Fault::Refused(MicrosandboxError::json("store the configuration", error)))
}

/// A sandbox and its newest run, as one row.
#[derive(Debug, FromQueryResult)]
struct Joined {
    id: i32,
    name: String,
    config: String,
    status: String,
    own_owner: Option<String>,
    ephemeral: bool,
    created_at: Option<NaiveDateTime>,
    updated_at: Option<NaiveDateTime>,
    run_id: Option<i32>,
    pid: Option<i32>,
    run_status: Option<String>,
    exit_code: Option<i32>,
    exit_signal: Option<i32>,
    termination_reason: Option<String>,
    termination_detail: Option<String>,
    started_at: Option<NaiveDateTime>,
    terminated_at: Option<NaiveDateTime>,
}

impl Joined {
    fn split(self) -> Result<(SandboxRow, Option<RunRow>), Fault> {
        let status = SandboxStatus::parse(&self.status).ok_or_else(|| {
            Fault::corrupt(format!("row {} of table sandbox has a status that does not exist", self.id))
        })?;
        let run = self.run_id.map(|id| RunRow {
            id,
            sandbox_id: self.id,
            pid: self.pid,
            active: self.run_status.as_deref() == Some(ACTIVE),
            exit_code: self.exit_code,
            exit_signal: self.exit_signal,
            termination_reason: self.termination_reason,
            termination_detail: self.termination_detail,
            started_at: self.started_at.map(|time| time.and_utc()),
            terminated_at: self.terminated_at.map(|time| time.and_utc()),
        });
        let row = SandboxRow {
            id: self.id,
            name: self.name,
            status,
            config_json: self.config,
            owner: self.own_owner,
            ephemeral: self.ephemeral,
            created_at: self.created_at.map(|time| time.and_utc()),
            updated_at: self.updated_at.map(|time| time.and_utc()),
        };
        Ok((row, run))
    }
}

#[cfg(test)]
mod tests;
