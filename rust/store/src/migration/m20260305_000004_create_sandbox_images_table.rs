//! Which image a sandbox uses, first form. Replaced by `sandbox_rootfs` in `m20260410_000001_erofs_image_schema`, so a new
//! home makes nothing here; the name stays for homes shared with other implementations.

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
