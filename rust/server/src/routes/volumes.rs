//! Volumes. The id of a volume is its name where the backend has no ids.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::{VolumeConfig, VolumeInfo, validate_volume_name};
use microsandbox_local::LocalBackend;
use microsandbox_wire::sandbox::CloudMessageResponse;
use microsandbox_wire::volume::{CloudVolume, CreateVolume};

use super::{Segment, json, json_bytes, parse};
use crate::app::App;
use crate::error::{ApiError, ApiResult};

/// MiB in a GiB.
const GIB: u64 = 1024;

fn show(volume: VolumeInfo) -> CloudVolume {
    CloudVolume {
        id: identity(&volume),
        name: Some(volume.name).filter(|name| !name.is_empty()),
        kind: Some(if volume.is_default { "host" } else { "managed" }.into()),
        status: Some("active".into()),
        storage: Some("block".into()),
        used_bytes: Some(volume.used_bytes),
        capacity_bytes: volume.capacity_bytes.or_else(|| volume.quota_mib.map(|mib| mib.saturating_mul(1 << 20))),
        labels: volume.labels,
        created_at: volume.created_at,
        updated_at: volume.updated_at,
    }
}

fn identity(volume: &VolumeInfo) -> String {
    volume.id.as_deref().map_or_else(|| volume.name.clone(), crate::convert::uuid)
}

/// The name of the volume with this identity.
pub async fn named(app: &App, id: &str) -> ApiResult<String> {
    if LocalBackend::of(&app.backend).is_some() {
        // The id is the name, and each operation checks that the volume exists: a list would measure every volume.
        return match validate_volume_name(id) {
            Ok(()) => Ok(id.to_owned()),
            Err(_) => Err(MicrosandboxError::VolumeNotFound(id.into()).into()),
        };
    }
    let volumes = app.backend.volumes().list().await?;
    match volumes.into_iter().find(|volume| identity(volume) == id) {
        Some(volume) => Ok(volume.name),
        None => Err(MicrosandboxError::VolumeNotFound(id.into()).into()),
    }
}

pub async fn list(State(app): State<Arc<App>>) -> ApiResult {
    let volumes = app.backend.volumes().list().await?;
    json(&volumes.into_iter().map(show).collect::<Vec<_>>())
}

pub async fn default(State(app): State<Arc<App>>) -> ApiResult {
    json(&show(app.backend.volumes().get_default().await?))
}

pub async fn create(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> ApiResult {
    let request: CreateVolume = parse(&json_bytes(&app, &headers, body).await?)?;
    let quota_mib =
        match request.capacity_gib {
            None => None,
            Some(gib) => Some(gib.checked_mul(GIB).filter(|mib| *mib > 0).ok_or_else(|| {
                ApiError::invalid(format!("capacity_gib must be 1 to {}: got {gib}", u64::MAX / GIB))
            })?),
        };
    let config = VolumeConfig { name: request.name, quota_mib, labels: request.labels, ..VolumeConfig::default() };
    json(&show(app.backend.volumes().create(config).await?))
}

pub async fn remove(State(app): State<Arc<App>>, Segment(id): Segment) -> ApiResult {
    let name = named(&app, &id).await?;
    app.backend.volumes().remove(&name).await?;
    json(&CloudMessageResponse { message: format!("volume {name} was removed") })
}
