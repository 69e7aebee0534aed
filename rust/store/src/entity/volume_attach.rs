//! Table `volume_attach`.

use sea_orm::entity::prelude::*;

/// A volume in use.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "volume_attach")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    pub volume_id: i32,
    pub sandbox_id: Option<i32>,
    pub pid: i32,
    pub mode: String,
    pub created_at: DateTime,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
