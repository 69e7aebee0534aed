//! Labels as rows, so that `list` can filter by them.

use sea_orm_migration::prelude::*;

use super::run;

const STATEMENTS: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS sandbox_labels (
    sandbox_id integer NOT NULL REFERENCES sandbox (id) ON DELETE CASCADE,
    key text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (sandbox_id, key)
)",
    "CREATE INDEX IF NOT EXISTS idx_sandbox_labels_sandbox_id ON sandbox_labels (sandbox_id)",
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
