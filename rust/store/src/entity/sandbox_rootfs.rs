//! Table `sandbox_rootfs`.

use sea_orm::entity::prelude::*;

/// Which root file system a sandbox was made from.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sandbox_rootfs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    #[sea_orm(unique)]
    pub sandbox_id: i32,
    pub manifest_id: Option<i32>,
    pub mode: String,
    pub upper_fstype: Option<String>,
    pub created_at: Option<DateTime>,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
