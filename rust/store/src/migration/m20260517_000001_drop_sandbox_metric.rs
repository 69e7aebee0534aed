//! Metrics are not kept in the database.

use sea_orm_migration::prelude::*;

use super::run;

const STATEMENTS: &[&str] = &["DROP TABLE IF EXISTS sandbox_metric"];

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
