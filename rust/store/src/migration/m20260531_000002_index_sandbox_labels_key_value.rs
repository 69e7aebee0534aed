//! `list` looks labels up by key and value.

use sea_orm_migration::prelude::*;

use super::run;

const STATEMENTS: &[&str] = &["CREATE INDEX IF NOT EXISTS idx_sandbox_labels_key_value ON sandbox_labels (key, value)"];

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
