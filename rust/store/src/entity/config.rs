//! Table `config`.

use sea_orm::entity::prelude::*;

/// The run configuration of an image; lists and maps are JSON text.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "config")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    #[sea_orm(unique)]
    pub manifest_id: i32,
    pub digest: String,
    pub env: Option<String>,
    pub cmd: Option<String>,
    pub entrypoint: Option<String>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub labels: Option<String>,
    pub stop_signal: Option<String>,
    pub created_at: Option<DateTime>,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
