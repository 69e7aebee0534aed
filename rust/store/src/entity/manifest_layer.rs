//! Table `manifest_layer`.

use sea_orm::entity::prelude::*;

/// Which layers an image has, in order.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "manifest_layer")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    pub manifest_id: i32,
    pub layer_id: i32,
    /// Bottom first, from 0.
    pub position: i32,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
