//! Statements on `image_ref`, `manifest`, `config`, `layer` and `manifest_layer`.

use std::collections::{BTreeSet, HashMap};

use chrono::{NaiveDateTime, Utc};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait,
    FromQueryResult, QueryFilter, Statement, Value,
};

use super::entity::{config, image_ref, layer, manifest, manifest_layer};
use super::errors::Fault;
use super::sandboxes::begin;
use super::{ImageRecord, LayerRecord};
use microsandbox_core::model::{ImageConfigDetail, ImageDetail, ImageInfo, ImageLayerDetail};

const INFO: &str = "SELECT i.reference, i.created_at, m.id AS manifest_id, m.digest, m.architecture, m.os, \
     m.layer_count, m.total_size_bytes, \
     (SELECT MAX(l.last_used_at) FROM manifest_layer ml JOIN layer l ON l.id = ml.layer_id \
      WHERE ml.manifest_id = m.id) AS last_used_at \
     FROM image_ref i JOIN manifest m ON m.id = i.manifest_id";
const LAYERS: &str = "SELECT l.diff_id, l.blob_digest, l.media_type, l.compressed_size_bytes, l.erofs_size_bytes, \
     ml.position FROM manifest_layer ml JOIN layer l ON l.id = ml.layer_id WHERE ml.manifest_id = ? \
     ORDER BY ml.position";
const USERS: &str = "SELECT s.name FROM sandbox s JOIN sandbox_rootfs r ON r.sandbox_id = s.id \
     JOIN manifest m ON m.id = r.manifest_id WHERE m.digest = ? ORDER BY s.name";
/// Manifests that no reference names and no sandbox is made from, except those of a JSON list of digests.
const PURGE: &str = "DELETE FROM manifest WHERE digest NOT IN (SELECT value FROM json_each(?)) \
     AND id NOT IN (SELECT manifest_id FROM image_ref) \
     AND id NOT IN (SELECT manifest_id FROM sandbox_rootfs WHERE manifest_id IS NOT NULL)";
const UNUSED_LAYERS: &str = "DELETE FROM layer WHERE id NOT IN (SELECT layer_id FROM manifest_layer) RETURNING diff_id";
const SNAPSHOTS: &str =
    "SELECT COALESCE(name, digest) FROM snapshot_index WHERE image_manifest_digest = ? ORDER BY name";

pub(super) async fn upsert(db: &DatabaseConnection, image: &ImageRecord) -> Result<Vec<ImageInfo>, Fault> {
    let transaction = begin(db).await?;
    let now = Utc::now().naive_utc();
    let manifest_id = upsert_manifest(&transaction, image, now).await?;
    upsert_config(&transaction, manifest_id, &image.config, now).await?;
    replace_layers(&transaction, manifest_id, &image.layers, now).await?;
    for reference in &image.references {
        move_reference(&transaction, reference, manifest_id, now).await?;
    }
    // A manifest that lost its last name stays: an operation may be using it, which only a removal finds out.
    let mut infos = Vec::with_capacity(image.references.len());
    for reference in &image.references {
        infos.extend(find_info(&transaction, reference).await?.map(Info::into_model));
    }
    transaction.commit().await?;
    Ok(infos)
}

async fn upsert_manifest(db: &DatabaseTransaction, image: &ImageRecord, now: NaiveDateTime) -> Result<i32, Fault> {
    let size: u64 = image.layers.iter().map(|layer| layer.unpacked_size).sum();
    let row = manifest::ActiveModel {
        digest: Set(image.digest.clone()),
        media_type: Set(image.media_type.clone()),
        config_digest: Set(Some(image.config.digest.clone())),
        architecture: Set(image.architecture.clone()),
        os: Set(image.os.clone()),
        variant: Set(image.variant.clone()),
        layer_count: Set(Some(i32::try_from(image.layers.len()).unwrap_or(i32::MAX))),
        total_size_bytes: Set(Some(signed(size))),
        created_at: Set(Some(now)),
        ..Default::default()
    };
    // The digest fixes everything except our own reading of it.
    let refresh = OnConflict::column(manifest::Column::Digest)
        .update_columns([
            manifest::Column::MediaType,
            manifest::Column::ConfigDigest,
            manifest::Column::Architecture,
            manifest::Column::Os,
            manifest::Column::Variant,
            manifest::Column::LayerCount,
            manifest::Column::TotalSizeBytes,
        ])
        .to_owned();
    manifest::Entity::insert(row).on_conflict(refresh).exec_without_returning(db).await?;
    let stored = manifest::Entity::find().filter(manifest::Column::Digest.eq(&image.digest)).one(db).await?;
    Ok(stored.ok_or_else(|| Fault::corrupt("a manifest is not there right after it was stored"))?.id)
}

async fn upsert_config(
    db: &DatabaseTransaction,
    manifest_id: i32,
    detail: &ImageConfigDetail,
    now: NaiveDateTime,
) -> Result<(), Fault> {
    let row = config::ActiveModel {
        manifest_id: Set(manifest_id),
        digest: Set(detail.digest.clone()),
        env: Set(Some(json(&detail.env)?)),
        cmd: Set(detail.cmd.as_ref().map(json).transpose()?),
        entrypoint: Set(detail.entrypoint.as_ref().map(json).transpose()?),
        working_dir: Set(detail.working_dir.clone()),
        user: Set(detail.user.clone()),
        labels: Set(detail.labels.as_ref().map(json).transpose()?),
        stop_signal: Set(detail.stop_signal.clone()),
        created_at: Set(Some(now)),
        ..Default::default()
    };
    config::Entity::delete_many().filter(config::Column::ManifestId.eq(manifest_id)).exec(db).await?;
    config::Entity::insert(row).exec_without_returning(db).await?;
    Ok(())
}

async fn replace_layers(
    db: &DatabaseTransaction,
    manifest_id: i32,
    layers: &[LayerRecord],
    now: NaiveDateTime,
) -> Result<(), Fault> {
    manifest_layer::Entity::delete_many().filter(manifest_layer::Column::ManifestId.eq(manifest_id)).exec(db).await?;
    if layers.is_empty() {
        return Ok(());
    }
    // An image may have one layer twice; a row is enough for both.
    let mut distinct: HashMap<&str, &LayerRecord> = HashMap::new();
    for record in layers {
        distinct.insert(&record.diff_id, record);
    }
    let rows = distinct.values().map(|record| layer::ActiveModel {
        diff_id: Set(record.diff_id.clone()),
        blob_digest: Set(record.blob_digest.clone()),
        media_type: Set(record.media_type.clone()),
        compressed_size_bytes: Set(Some(signed(record.compressed_size))),
        erofs_size_bytes: Set(Some(signed(record.unpacked_size))),
        created_at: Set(Some(now)),
        last_used_at: Set(Some(now)),
        ..Default::default()
    });
    let refresh = OnConflict::column(layer::Column::DiffId)
        .update_columns([layer::Column::BlobDigest, layer::Column::LastUsedAt, layer::Column::ErofsSizeBytes])
        .to_owned();
    layer::Entity::insert_many(rows).on_conflict(refresh).exec_without_returning(db).await?;
    let stored = layer::Entity::find().filter(layer::Column::DiffId.is_in(distinct.keys().copied())).all(db).await?;
    let ids: HashMap<&str, i32> = stored.iter().map(|row| (row.diff_id.as_str(), row.id)).collect();
    let mut links = Vec::with_capacity(layers.len());
    for (position, record) in (0..).zip(layers) {
        let id = ids.get(record.diff_id.as_str()).copied();
        links.push(manifest_layer::ActiveModel {
            manifest_id: Set(manifest_id),
            layer_id: Set(id.ok_or_else(|| Fault::corrupt("a layer is not there right after it was stored"))?),
            position: Set(position),
            ..Default::default()
        });
    }
    manifest_layer::Entity::insert_many(links).exec_without_returning(db).await?;
    Ok(())
}

async fn move_reference(
    db: &DatabaseTransaction,
    reference: &str,
    manifest_id: i32,
    now: NaiveDateTime,
) -> Result<(), DbErr> {
    let row = image_ref::ActiveModel {
        reference: Set(reference.to_owned()),
        manifest_id: Set(manifest_id),
        created_at: Set(Some(now)),
        updated_at: Set(Some(now)),
        ..Default::default()
    };
    let repoint = OnConflict::column(image_ref::Column::Reference)
        .update_columns([image_ref::Column::ManifestId, image_ref::Column::UpdatedAt])
        .to_owned();
    image_ref::Entity::insert(row).on_conflict(repoint).exec_without_returning(db).await?;
    Ok(())
}

pub(super) async fn list(db: &DatabaseConnection) -> Result<Vec<ImageInfo>, Fault> {
    let statement = Statement::from_string(db.get_database_backend(), format!("{INFO} ORDER BY i.reference"));
    let rows = Info::find_by_statement(statement).all(db).await?;
    Ok(rows.into_iter().map(Info::into_model).collect())
}

async fn find_info(db: &impl ConnectionTrait, reference: &str) -> Result<Option<Info>, DbErr> {
    let sql = format!("{INFO} WHERE i.reference = ?");
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, [Value::from(reference)]);
    Info::find_by_statement(statement).one(db).await
}

/// Three reads, not one snapshot: an image that is replaced between them shows as gone or as the new one, never as a mix,
/// because they go by the manifest's id, which is never used again.
pub(super) async fn detail(db: &DatabaseConnection, reference: &str) -> Result<Option<ImageDetail>, Fault> {
    let Some(info) = find_info(db, reference).await? else { return Ok(None) };
    let manifest_id = info.manifest_id;
    let config = config::Entity::find().filter(config::Column::ManifestId.eq(manifest_id)).one(db).await?;
    let statement = Statement::from_sql_and_values(db.get_database_backend(), LAYERS, [Value::from(manifest_id)]);
    let layers = LayerRow::find_by_statement(statement).all(db).await?;
    Ok(Some(ImageDetail {
        handle: info.into_model(),
        config: config.map(config_detail).transpose()?,
        layers: layers.into_iter().map(LayerRow::into_model).collect(),
    }))
}

pub(super) async fn users(db: &DatabaseConnection, manifest_digest: &str) -> Result<Vec<String>, Fault> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), USERS, [Value::from(manifest_digest)]);
    let rows = db.query_all_raw(statement).await?;
    Ok(rows.iter().map(|row| row.try_get_by_index::<String>(0)).collect::<Result<_, _>>()?)
}

pub(super) async fn snapshots(db: &DatabaseConnection, manifest_digest: &str) -> Result<Vec<String>, Fault> {
    let statement =
        Statement::from_sql_and_values(db.get_database_backend(), SNAPSHOTS, [Value::from(manifest_digest)]);
    let rows = db.query_all_raw(statement).await?;
    Ok(rows.iter().map(|row| row.try_get_by_index::<String>(0)).collect::<Result<_, _>>()?)
}

/// References alone.
pub(super) async fn remove_names(db: &impl ConnectionTrait, references: &[String]) -> Result<(), Fault> {
    for reference in references {
        image_ref::Entity::delete_many().filter(image_ref::Column::Reference.eq(reference)).exec(db).await?;
    }
    Ok(())
}

/// References, the manifests that are left without one and without a user, and the layers that are left without a manifest;
/// the diff ids of those. What is `kept` stays without a reference.
pub(super) async fn remove(
    db: &DatabaseConnection,
    references: &[String],
    kept: &BTreeSet<String>,
) -> Result<Vec<String>, Fault> {
    let transaction = begin(db).await?;
    remove_names(&transaction, references).await?;
    let backend = transaction.get_database_backend();
    transaction.execute_raw(Statement::from_sql_and_values(backend, PURGE, [Value::from(json(kept)?)])).await?;
    let rows = transaction.query_all_raw(Statement::from_string(backend, UNUSED_LAYERS)).await?;
    let freed = rows.iter().map(|row| row.try_get_by_index::<String>(0)).collect::<Result<_, _>>()?;
    transaction.commit().await?;
    Ok(freed)
}

#[derive(Debug, FromQueryResult)]
struct Info {
    reference: String,
    created_at: Option<NaiveDateTime>,
    manifest_id: i32,
    digest: String,
    architecture: Option<String>,
    os: Option<String>,
    layer_count: Option<i32>,
    total_size_bytes: Option<i64>,
    last_used_at: Option<NaiveDateTime>,
}

impl Info {
    fn into_model(self) -> ImageInfo {
        ImageInfo {
            reference: self.reference,
            manifest_digest: Some(self.digest),
            architecture: self.architecture,
            os: self.os,
            layer_count: self.layer_count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
            size_bytes: unsigned(self.total_size_bytes),
            created_at: self.created_at.map(|time| time.and_utc()),
            last_used_at: self.last_used_at.map(|time| time.and_utc()),
        }
    }
}

#[derive(Debug, FromQueryResult)]
struct LayerRow {
    diff_id: String,
    blob_digest: String,
    media_type: Option<String>,
    compressed_size_bytes: Option<i64>,
    erofs_size_bytes: Option<i64>,
    position: i32,
}

impl LayerRow {
    fn into_model(self) -> ImageLayerDetail {
        ImageLayerDetail {
            diff_id: self.diff_id,
            blob_digest: self.blob_digest,
            media_type: self.media_type,
            compressed_size_bytes: unsigned(self.compressed_size_bytes),
            erofs_size_bytes: unsigned(self.erofs_size_bytes),
            position: u32::try_from(self.position).unwrap_or(0),
        }
    }
}

fn config_detail(row: config::Model) -> Result<ImageConfigDetail, Fault> {
    Ok(ImageConfigDetail {
        digest: row.digest,
        env: parse(row.env)?.unwrap_or_default(),
        cmd: parse(row.cmd)?,
        entrypoint: parse(row.entrypoint)?,
        working_dir: row.working_dir,
        user: row.user,
        labels: parse(row.labels)?,
        stop_signal: row.stop_signal,
    })
}

fn json(value: &impl serde::Serialize) -> Result<String, Fault> {
    serde_json::to_string(value)
        .map_err(|error| Fault::Refused(microsandbox_core::error::MicrosandboxError::json("store the image", error)))
}

fn parse<T: serde::de::DeserializeOwned>(text: Option<String>) -> Result<Option<T>, Fault> {
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| {
        Fault::corrupt(format!("a JSON column of table config does not parse (column {})", error.column()))
    })
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn unsigned(size: Option<i64>) -> Option<u64> {
    size.and_then(|size| u64::try_from(size).ok())
}
