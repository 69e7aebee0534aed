//! Table `volume`.

use sea_orm::entity::prelude::*;

/// A named volume.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "volume")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    #[sea_orm(unique)]
    pub name: String,
    pub quota_mib: Option<i32>,
    pub size_bytes: Option<i64>,
    pub labels: Option<String>,
    pub created_at: Option<DateTime>,
    pub updated_at: Option<DateTime>,
    /// `dir` or `disk`.
    pub kind: String,
    pub capacity_bytes: Option<i64>,
    pub disk_format: Option<String>,
    pub disk_fstype: Option<String>,
    /// A column of our own, which no step adds: see `migration`.
    pub own_owner: Option<String>,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
