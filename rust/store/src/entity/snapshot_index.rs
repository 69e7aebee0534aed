//! Table `snapshot_index`.

use sea_orm::entity::prelude::*;

/// A snapshot that was found on disk.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "snapshot_index")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: String,
    pub name: Option<String>,
    pub parent_digest: Option<String>,
    pub image_ref: String,
    pub image_manifest_digest: String,
    pub format: String,
    pub fstype: String,
    pub artifact_path: String,
    pub size_bytes: Option<i64>,
    pub created_at: DateTime,
    pub indexed_at: DateTime,
    pub child_count: i32,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
