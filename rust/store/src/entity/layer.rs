//! Table `layer`.

use sea_orm::entity::prelude::*;

/// A layer of the cache, by the digest of its uncompressed content.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "layer")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    #[sea_orm(unique)]
    pub diff_id: String,
    pub blob_digest: String,
    pub media_type: Option<String>,
    pub compressed_size_bytes: Option<i64>,
    /// Unpacked size, whatever form it is unpacked to.
    pub erofs_size_bytes: Option<i64>,
    pub created_at: Option<DateTime>,
    pub last_used_at: Option<DateTime>,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
