//! Sandboxes and their runs.

use sea_orm_migration::prelude::*;

use super::run;

const STATEMENTS: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS sandbox (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    name text NOT NULL UNIQUE,
    config text NOT NULL,
    status text NOT NULL,
    created_at datetime,
    updated_at datetime
)",
    "CREATE TABLE IF NOT EXISTS run (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    sandbox_id integer NOT NULL REFERENCES sandbox (id) ON DELETE CASCADE,
    pid integer,
    status text NOT NULL,
    exit_code integer,
    exit_signal integer,
    termination_reason text,
    termination_detail text,
    signals_sent text,
    started_at datetime,
    terminated_at datetime
)",
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
