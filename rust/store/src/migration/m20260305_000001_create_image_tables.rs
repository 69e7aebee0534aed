//! First image store. Every table of it was replaced by `m20260410_000001_erofs_image_schema`, so a new home makes none;
//! the name stays, because a home that other implementations open must carry the same names in the same order.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }
}
