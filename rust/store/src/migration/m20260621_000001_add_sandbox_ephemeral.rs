//! Sandboxes that remove themselves.

use sea_orm_migration::prelude::*;

use super::{add_columns, run};

const COLUMNS: &[(&str, &str)] = &[("ephemeral", "boolean NOT NULL DEFAULT 0")];

const STATEMENTS: &[&str] = &["CREATE INDEX IF NOT EXISTS idx_sandbox_ephemeral_status ON sandbox (ephemeral, status)"];

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_columns(manager, "sandbox", COLUMNS).await?;
        run(manager, STATEMENTS).await
    }
}
