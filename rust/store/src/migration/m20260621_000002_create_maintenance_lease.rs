//! Maintenance is done by one process at a time.

use sea_orm_migration::prelude::*;

use super::run;

const STATEMENTS: &[&str] = &["CREATE TABLE IF NOT EXISTS maintenance_lease (
    name text NOT NULL PRIMARY KEY,
    holder_pid integer,
    lease_expires_at datetime NOT NULL,
    last_completed_at datetime
)"];

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
