//! The schema, as the list of steps that made it. Names and order are shared with other implementations of the same home:
//! an applied list that is not a gap-free prefix of ours is refused. Only the end state is shared, not the states in between.
//!
//! Each step is one transaction with its own record in it, and tolerates tables, indexes and columns that exist already: a
//! process killed at any statement leaves a database that the next one can finish.

mod m20260305_000001_create_image_tables;
mod m20260305_000002_create_sandbox_tables;
mod m20260305_000003_create_storage_tables;
mod m20260305_000004_create_sandbox_images_table;
mod m20260410_000001_erofs_image_schema;
mod m20260501_000001_create_snapshot_index;
mod m20260517_000001_drop_sandbox_metric;
mod m20260527_000001_migrate_oci_rootfs_source;
mod m20260531_000001_create_sandbox_labels;
mod m20260531_000002_index_sandbox_labels_key_value;
mod m20260606_000001_named_volume_kinds;
mod m20260621_000001_add_sandbox_ephemeral;
mod m20260621_000002_create_maintenance_lease;

use std::collections::BTreeSet;
use std::path::Path;

use chrono::Utc;
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseConnection, EntityName, EntityTrait, QueryFilter, Statement};
use sea_orm_migration::prelude::*;

use super::entity::maintenance_lease;
use super::errors::Fault;
use microsandbox_core::error::MicrosandboxError;

/// Every table there is when all steps are applied, in order of name.
pub const TABLES: [&str; 13] = [
    "config",
    "image_ref",
    "layer",
    "maintenance_lease",
    "manifest",
    "manifest_layer",
    "run",
    "sandbox",
    "sandbox_labels",
    "sandbox_rootfs",
    "snapshot_index",
    "volume",
    "volume_attach",
];

/// The id of a sandbox, from its stored configuration; null if the configuration is not JSON. A query uses the index on it only
/// if it repeats this expression.
pub(super) const SANDBOX_ID: &str = "CASE WHEN json_valid(config) THEN json_extract(config, '$.id') END";

/// Columns that no step adds: other implementations refuse a home with a step that they do not know, but accept an unknown
/// column. The prefix avoids the names that a later step may use. Each has an index, by which [`inspect`] knows that it is there.
const OWN_COLUMNS: [(&str, &str, &str); 2] =
    [("sandbox", "own_owner", "idx_own_sandbox_owner"), ("volume", "own_owner", "idx_own_volume_owner")];

/// Indexes that no step creates, for the same reason.
const OWN_INDEXES: [(&str, &str, &str, &str); 4] = [
    // Without them what belongs to one client of a server is found by reading every row.
    ("idx_own_sandbox_owner", "sandbox", "own_owner", "WHERE own_owner IS NOT NULL"),
    ("idx_own_volume_owner", "volume", "own_owner", "WHERE own_owner IS NOT NULL"),
    // Without it each look-up by identity would read every row.
    ("idx_own_sandbox_identity", "sandbox", SANDBOX_ID, ""),
    // Without it each look-up of the newest run, and each removal, would read every run of every sandbox.
    ("idx_own_run_sandbox", "run", "sandbox_id", ""),
];

/// While this lease is valid, an installer changes the home and no other process may open it.
const INSTALL_LEASE: &str = "install";

/// The steps in running order.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20260305_000001_create_image_tables::Migration),
            Box::new(m20260305_000002_create_sandbox_tables::Migration),
            Box::new(m20260305_000003_create_storage_tables::Migration),
            Box::new(m20260305_000004_create_sandbox_images_table::Migration),
            Box::new(m20260410_000001_erofs_image_schema::Migration),
            Box::new(m20260501_000001_create_snapshot_index::Migration),
            Box::new(m20260517_000001_drop_sandbox_metric::Migration),
            Box::new(m20260527_000001_migrate_oci_rootfs_source::Migration),
            Box::new(m20260531_000001_create_sandbox_labels::Migration),
            Box::new(m20260531_000002_index_sandbox_labels_key_value::Migration),
            Box::new(m20260606_000001_named_volume_kinds::Migration),
            Box::new(m20260621_000001_add_sandbox_ephemeral::Migration),
            Box::new(m20260621_000002_create_maintenance_lease::Migration),
        ]
    }
}

/// What an existing file needs before it can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    /// No table at all.
    Empty,
    /// Some steps are missing.
    Behind,
    /// All steps are applied, an index of our own is missing that is only about speed.
    Unindexed,
    Current,
}

/// Reads how far the schema is, and refuses what must not be opened. Three small reads: every opening pays for them.
pub(super) async fn inspect(db: &DatabaseConnection, path: &Path) -> Result<SchemaState, Fault> {
    // Indexes, too: their names differ from those of tables.
    let tables = names(db, "SELECT name FROM sqlite_master WHERE type IN ('table', 'index')").await?;
    if tables.is_empty() {
        return Ok(SchemaState::Empty);
    }
    if tables.contains(maintenance_lease::Entity.table_name()) {
        refuse_install_lease(db, path).await?;
    }
    if !tables.contains("seaql_migrations") {
        return Ok(SchemaState::Behind);
    }
    let applied = names(db, "SELECT version FROM seaql_migrations").await?;
    let known: Vec<String> = Migrator::migrations().iter().map(|step| step.name().to_owned()).collect();
    refuse_foreign_history(&applied, &known, path)?;
    if applied.len() < known.len() {
        return Ok(SchemaState::Behind);
    }
    match TABLES.iter().find(|&&table| !tables.contains(table)) {
        Some(lost) => Err(Fault::corrupt(format!("table {lost} is missing though the schema is recorded as complete"))),
        None if OWN_COLUMNS.iter().any(|(.., index)| !tables.contains(*index)) => Ok(SchemaState::Behind),
        None if OWN_INDEXES.iter().any(|(index, ..)| !tables.contains(*index)) => Ok(SchemaState::Unindexed),
        None => Ok(SchemaState::Current),
    }
}

/// Adds the columns and the indexes of our own that are missing.
pub(super) async fn add_own(db: &DatabaseConnection) -> Result<(), DbErr> {
    let manager = SchemaManager::new(db);
    for (table, column, _index) in OWN_COLUMNS {
        add_columns(&manager, table, &[(column, "text")]).await?;
    }
    for (index, table, key, rows) in OWN_INDEXES {
        db.execute_unprepared(&format!("CREATE INDEX IF NOT EXISTS {index} ON {table} ({key}) {rows}")).await?;
    }
    Ok(())
}

async fn names(db: &DatabaseConnection, sql: &str) -> Result<BTreeSet<String>, DbErr> {
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    rows.iter().map(|row| row.try_get_by_index::<String>(0)).collect()
}

fn refuse_foreign_history(applied: &BTreeSet<String>, known: &[String], path: &Path) -> Result<(), Fault> {
    let prefix: BTreeSet<String> = known.iter().take(applied.len()).cloned().collect();
    if *applied == prefix {
        return Ok(());
    }
    let stranger = applied.iter().find(|name| !known.contains(name));
    let reason = match stranger {
        Some(name) => format!("it has step {name}, which this version does not know; use a newer version"),
        None => "steps are missing in the middle of its history; restore it from a backup".to_owned(),
    };
    Err(Fault::Refused(MicrosandboxError::Runtime(format!(
        "the state database {} was not opened: {reason}",
        path.display()
    ))))
}

async fn refuse_install_lease(db: &DatabaseConnection, path: &Path) -> Result<(), Fault> {
    let lease = maintenance_lease::Entity::find()
        .filter(maintenance_lease::Column::Name.eq(INSTALL_LEASE))
        .filter(maintenance_lease::Column::LeaseExpiresAt.gt(Utc::now().naive_utc()))
        .one(db)
        .await?;
    let Some(lease) = lease else { return Ok(()) };
    let holder = lease.holder_pid.map(|pid| format!(" by process {pid}")).unwrap_or_default();
    Err(Fault::Refused(MicrosandboxError::Runtime(format!(
        "the state database {} was not opened: an installation is under way{holder} until {} UTC; try again then",
        path.display(),
        lease.lease_expires_at.format("%F %T")
    ))))
}

async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}

/// SQLite has no `ADD COLUMN IF NOT EXISTS`.
async fn add_columns(manager: &SchemaManager<'_>, table: &str, columns: &[(&str, &str)]) -> Result<(), DbErr> {
    for (column, definition) in columns {
        if !manager.has_column(table, column).await? {
            let statement = format!("ALTER TABLE {table} ADD COLUMN {column} {definition}");
            manager.get_connection().execute_unprepared(&statement).await?;
        }
    }
    Ok(())
}
