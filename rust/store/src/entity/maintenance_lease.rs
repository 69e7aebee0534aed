//! Table `maintenance_lease`.

use sea_orm::entity::prelude::*;

/// Who does a piece of maintenance at the moment, and until when.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "maintenance_lease")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    pub holder_pid: Option<i32>,
    pub lease_expires_at: DateTime,
    pub last_completed_at: Option<DateTime>,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
