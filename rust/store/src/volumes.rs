//! Statements on `volume` and `volume_attach`.

use std::collections::BTreeMap;

use chrono::Utc;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, ExprTrait as _, QueryFilter,
    QueryOrder, Statement, Value,
};

use super::VolumeRow;
use super::entity::{volume, volume_attach};
use super::errors::Fault;
use super::sandboxes::begin;
use microsandbox_core::error::MicrosandboxError;
use microsandbox_core::model::Owners;

pub(super) async fn insert(
    db: &DatabaseConnection,
    owner: Option<&str>,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<VolumeRow, Fault> {
    let now = Utc::now().naive_utc();
    let row = volume::ActiveModel {
        name: Set(name.to_owned()),
        labels: Set((!labels.is_empty()).then(|| serde_json::json!(labels).to_string())),
        created_at: Set(Some(now)),
        updated_at: Set(Some(now)),
        kind: Set("dir".into()),
        own_owner: Set(owner.map(str::to_owned)),
        ..Default::default()
    };
    let id = match volume::Entity::insert(row).exec(db).await {
        Ok(done) => done.last_insert_id,
        Err(error) => {
            let fault = Fault::from(error);
            if fault.is_unique_violation() {
                return Err(Fault::Refused(MicrosandboxError::VolumeAlreadyExists(name.to_owned())));
            }
            return Err(fault);
        }
    };
    let time = now.and_utc();
    Ok(VolumeRow {
        id,
        name: name.into(),
        labels: labels.clone(),
        owner: owner.map(str::to_owned),
        created_at: Some(time),
        updated_at: Some(time),
    })
}

pub(super) async fn by_name(db: &impl ConnectionTrait, name: &str) -> Result<Option<VolumeRow>, Fault> {
    let found = volume::Entity::find().filter(volume::Column::Name.eq(name)).one(db).await?;
    Ok(found.map(row))
}

/// By name.
pub(super) async fn list(
    db: &DatabaseConnection,
    owners: &Owners,
    name: Option<&str>,
) -> Result<Vec<VolumeRow>, Fault> {
    let mut query = volume::Entity::find().order_by_asc(volume::Column::Name);
    if let Some(name) = name {
        query = query.filter(volume::Column::Name.eq(name));
    }
    let column = volume::Column::OwnOwner;
    query = match owners {
        Owners::All => query,
        Owners::Only(owner) => query.filter(column.eq(owner.as_str())),
        Owners::OnlyAndLocal(owner) => query.filter(column.is_null().or(column.eq(owner.as_str()))),
    };
    let found = query.all(db).await?;
    Ok(found.into_iter().map(row).collect())
}

fn row(model: volume::Model) -> VolumeRow {
    VolumeRow {
        id: model.id,
        name: model.name,
        // Labels that cannot be read must not make the volume unreachable.
        labels: model.labels.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        owner: model.own_owner,
        created_at: model.created_at.map(|time| time.and_utc()),
        updated_at: model.updated_at.map(|time| time.and_utc()),
    }
}

/// Names of sandboxes that have not ended and mount it, by their rows.
pub(super) async fn holders(db: &impl ConnectionTrait, name: &str) -> Result<Vec<String>, Fault> {
    let sql = "SELECT DISTINCT s.name FROM volume_attach a JOIN sandbox s ON s.id = a.sandbox_id \
               JOIN volume v ON v.id = a.volume_id \
               WHERE v.name = ? AND s.status NOT IN ('Stopped', 'Crashed') ORDER BY s.name";
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, [Value::from(name)]);
    let rows = db.query_all_raw(statement).await?;
    rows.into_iter().map(|row| row.try_get::<String>("", "name").map_err(Fault::from)).collect()
}

/// Deletes the row unless a sandbox mounts the volume; `put_aside` moves its files away under the same write lock, so that no
/// sandbox can start in between. False: it was deleted before.
pub(super) async fn delete(
    db: &DatabaseConnection,
    name: &str,
    put_aside: &(dyn Fn() -> Result<(), MicrosandboxError> + Send + Sync),
) -> Result<bool, Fault> {
    let transaction = begin(db).await?;
    let Some(found) = by_name(&transaction, name).await? else { return Ok(false) };
    if let Some(holder) = holders(&transaction, name).await?.into_iter().next() {
        return Err(Fault::Refused(MicrosandboxError::VolumeInUse { name: name.into(), holder }));
    }
    put_aside().map_err(Fault::Refused)?;
    volume::Entity::delete_by_id(found.id).exec(&transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Records what a run is about to mount; the volumes must exist.
pub(super) async fn attach(
    db: &DatabaseConnection,
    sandbox_id: i32,
    pid: i32,
    volumes: &[(String, bool)],
) -> Result<(), Fault> {
    let transaction = begin(db).await?;
    detach(&transaction, sandbox_id).await?;
    for (name, readonly) in volumes {
        let Some(found) = by_name(&transaction, name).await? else {
            return Err(Fault::Refused(MicrosandboxError::VolumeNotFound(name.clone())));
        };
        let row = volume_attach::ActiveModel {
            volume_id: Set(found.id),
            sandbox_id: Set(Some(sandbox_id)),
            pid: Set(pid),
            mode: Set(if *readonly { "ro" } else { "rw" }.into()),
            created_at: Set(Utc::now().naive_utc()),
            ..Default::default()
        };
        volume_attach::Entity::insert(row).exec_without_returning(&transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Deletes the rows of this sandbox, and of sandboxes that no longer exist.
pub(super) async fn detach(db: &impl ConnectionTrait, sandbox_id: i32) -> Result<(), Fault> {
    let column = volume_attach::Column::SandboxId;
    volume_attach::Entity::delete_many().filter(column.eq(sandbox_id).or(column.is_null())).exec(db).await?;
    Ok(())
}
