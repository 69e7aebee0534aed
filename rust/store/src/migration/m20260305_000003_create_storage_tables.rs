//! Volumes, and snapshots as they were before `m20260501_000001_create_snapshot_index`.

use sea_orm_migration::prelude::*;

use super::run;

const STATEMENTS: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS volume (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    name text NOT NULL UNIQUE,
    quota_mib integer,
    size_bytes bigint,
    labels text,
    created_at datetime,
    updated_at datetime
)",
    "CREATE TABLE IF NOT EXISTS snapshot (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    name text NOT NULL,
    sandbox_id integer REFERENCES sandbox (id) ON DELETE SET NULL,
    size_bytes bigint,
    description text,
    created_at datetime
)",
    "CREATE UNIQUE INDEX IF NOT EXISTS idx_snapshots_name_sandbox_unique ON snapshot (name, sandbox_id)",
    "CREATE UNIQUE INDEX IF NOT EXISTS idx_snapshots_name_unique_no_sandbox ON snapshot (name) WHERE sandbox_id IS NULL",
];

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, STATEMENTS).await
    }
}
