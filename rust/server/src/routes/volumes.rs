//! Volumes. A name on this server is a volume's identity, too, where the backend gives none.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::{VolumeConfig, VolumeInfo};
use microsandbox_wire::sandbox::CloudMessageResponse;
use microsandbox_wire::volume::{CloudVolume, CreateVolume};

use super::{Segment, json, json_bytes, parse};
use crate::app::App;
use crate::error::{Answer, ApiError};

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
pub async fn named(app: &App, id: &str) -> Answer<String> {
    let volumes = app.backend.volumes().list().await?;
    match volumes.into_iter().find(|volume| identity(volume) == id) {
        Some(volume) => Ok(volume.name),
        None => Err(MicrosandboxError::VolumeNotFound(id.into()).into()),
    }
}

pub async fn list(State(app): State<Arc<App>>) -> Answer {
    let volumes = app.backend.volumes().list().await?;
    json(&volumes.into_iter().map(show).collect::<Vec<_>>())
}

pub async fn default(State(app): State<Arc<App>>) -> Answer {
    json(&show(app.backend.volumes().get_default().await?))
}

pub async fn create(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Answer {
    let request: CreateVolume = parse(&json_bytes(&app, &headers, body).await?)?;
    let quota_mib = match request.capacity_gib {
        None => None,
        Some(gib) => Some(gib.checked_mul(GIB).filter(|mib| *mib > 0).ok_or_else(|| {
            ApiError::invalid(format!("capacity_gib must be at least 1 and fit this machine: got {gib}"))
        })?),
    };
    let config = VolumeConfig { name: request.name, quota_mib, labels: request.labels, ..VolumeConfig::default() };
    json(&show(app.backend.volumes().create(config).await?))
}

pub async fn remove(State(app): State<Arc<App>>, Segment(id): Segment) -> Answer {
    let name = named(&app, &id).await?;
    app.backend.volumes().remove(&name).await?;
    json(&CloudMessageResponse { message: format!("volume {name} was removed") })
}
