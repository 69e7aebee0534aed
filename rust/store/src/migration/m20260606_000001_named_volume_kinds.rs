//! Volumes that are disks, and who uses a volume.

use sea_orm_migration::prelude::*;

use super::{add_columns, run};

const COLUMNS: &[(&str, &str)] = &[
    ("kind", "text NOT NULL DEFAULT 'dir'"),
    ("capacity_bytes", "bigint"),
    ("disk_format", "text"),
    ("disk_fstype", "text"),
];

const STATEMENTS: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS volume_attach (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    volume_id integer NOT NULL REFERENCES volume (id) ON DELETE CASCADE,
    sandbox_id integer REFERENCES sandbox (id) ON DELETE SET NULL,
    pid integer NOT NULL,
    mode text NOT NULL,
    created_at datetime NOT NULL
)",
    "CREATE INDEX IF NOT EXISTS idx_volume_attach_volume_id ON volume_attach (volume_id)",
];

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_columns(manager, "volume", COLUMNS).await?;
        run(manager, STATEMENTS).await
    }
}
