//! The image store as it is: references, manifests, layers. What it held before is a cache and is dropped.

use sea_orm_migration::prelude::*;

use super::run;

const STATEMENTS: &[&str] = &[
    "DROP TABLE IF EXISTS sandbox_rootfs",
    "DROP TABLE IF EXISTS sandbox_image",
    "DROP TABLE IF EXISTS image_ref",
    "DROP TABLE IF EXISTS manifest_layer",
    "DROP TABLE IF EXISTS layer",
    "DROP TABLE IF EXISTS config",
    "DROP TABLE IF EXISTS manifest",
    "DROP TABLE IF EXISTS \"index\"",
    "DROP TABLE IF EXISTS image",
    "CREATE TABLE IF NOT EXISTS manifest (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    digest text NOT NULL UNIQUE,
    media_type text,
    config_digest text,
    architecture text,
    os text,
    variant text,
    layer_count integer,
    total_size_bytes bigint,
    created_at datetime
)",
    "CREATE TABLE IF NOT EXISTS image_ref (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    reference text NOT NULL UNIQUE,
    manifest_id integer NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    created_at datetime,
    updated_at datetime
)",
    "CREATE TABLE IF NOT EXISTS config (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    manifest_id integer NOT NULL UNIQUE REFERENCES manifest (id) ON DELETE CASCADE,
    digest text NOT NULL,
    env text,
    cmd text,
    entrypoint text,
    working_dir text,
    user text,
    labels text,
    stop_signal text,
    created_at datetime
)",
    "CREATE TABLE IF NOT EXISTS layer (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    diff_id text NOT NULL UNIQUE,
    blob_digest text NOT NULL,
    media_type text,
    compressed_size_bytes bigint,
    erofs_size_bytes bigint,
    created_at datetime,
    last_used_at datetime
)",
    "CREATE TABLE IF NOT EXISTS manifest_layer (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    manifest_id integer NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    layer_id integer NOT NULL REFERENCES layer (id) ON DELETE RESTRICT,
    position integer NOT NULL
)",
    "CREATE UNIQUE INDEX IF NOT EXISTS idx_manifest_layers_manifest_position ON manifest_layer (manifest_id, position)",
    "CREATE TABLE IF NOT EXISTS sandbox_rootfs (
    id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    sandbox_id integer NOT NULL UNIQUE REFERENCES sandbox (id) ON DELETE CASCADE,
    manifest_id integer REFERENCES manifest (id) ON DELETE RESTRICT,
    mode text NOT NULL,
    upper_fstype text,
    created_at datetime
)",
];

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, STATEMENTS).await
    }
}
