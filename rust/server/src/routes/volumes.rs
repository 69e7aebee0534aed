//! Volumes. The id of a volume is its name.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::{VolumeConfig, VolumeInfo, VolumeQuery, validate_volume_name};
use microsandbox_wire::sandbox::CloudMessageResponse;
use microsandbox_wire::volume::{CloudVolume, CreateVolume};
use serde::Deserialize;

use super::{Segment, json, json_bytes, parse, query};
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::tenancy::Caller;

/// MiB in a GiB.
const GIB: u64 = 1024;

fn show(caller: &Caller, volume: VolumeInfo, measured: bool) -> CloudVolume {
    let name = caller.shown(&volume.name);
    CloudVolume {
        // A volume of this machine has no other identity.
        id: volume.id.as_deref().map_or_else(|| name.to_owned(), crate::convert::uuid),
        name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        kind: Some(if volume.is_default { "host" } else { "managed" }.into()),
        status: Some("active".into()),
        storage: Some("block".into()),
        used_bytes: measured.then_some(volume.used_bytes),
        capacity_bytes: volume.capacity_bytes.or_else(|| volume.quota_mib.map(|mib| mib.saturating_mul(1 << 20))),
        labels: volume.labels,
        created_at: volume.created_at,
        updated_at: volume.updated_at,
    }
}

#[derive(Deserialize)]
struct ListParameters {
    name: Option<String>,
    usage: Option<String>,
}

/// The volumes that the caller sees; with `name` only what it calls so. `used_bytes` only where asked, because it costs a look at
/// each file.
pub async fn list(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, uri: Uri) -> ApiResult {
    let ListParameters { name, usage } = query(&uri)?;
    let measured = match usage.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(ApiError::invalid(format!("usage must be true or false: got {other:?}"))),
    };
    let found = match name {
        None => {
            let query = VolumeQuery { name: None, owners: app.sees(&caller), unmeasured: !measured };
            app.backend.volumes().list(query).await?
        }
        Some(name) => match app.volume(&caller, &name).await {
            Ok(found) if measured => vec![app.backend.volumes().get(&found.name).await?],
            Ok(found) => vec![found],
            Err(error) if error.status == StatusCode::NOT_FOUND => Vec::new(),
            Err(error) => return Err(error),
        },
    };
    json(&found.into_iter().map(|volume| show(&caller, volume, measured)).collect::<Vec<_>>())
}

pub async fn default(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> ApiResult {
    json(&show(&caller, app.backend.volumes().get_default().await?, true))
}

pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let request: CreateVolume = parse(&json_bytes(&app, &headers, body).await?)?;
    let quota_mib =
        match request.capacity_gib {
            None => None,
            Some(gib) => Some(gib.checked_mul(GIB).filter(|mib| *mib > 0).ok_or_else(|| {
                ApiError::invalid(format!("capacity_gib must be 1 to {}: got {gib}", u64::MAX / GIB))
            })?),
        };
    validate_volume_name(&request.name)?;
    let config = VolumeConfig {
        name: caller.stored(&request.name),
        quota_mib,
        labels: request.labels,
        owner: Some(caller.owner.clone()),
        ..VolumeConfig::default()
    };
    let _one_at_a_time = app.budgets.volume(&app.backend, &caller.owner).await?;
    json(&show(&caller, app.backend.volumes().create(config).await?, true))
}

pub async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> ApiResult {
    let name = app.volume(&caller, &id).await?.name;
    match app.backend.volumes().remove(&name).await {
        // Whose sandbox mounts it is for its owner to know.
        Err(MicrosandboxError::VolumeInUse { name, holder }) if !caller.names(&holder) => {
            return Err(MicrosandboxError::VolumeInUse { name, holder: "of another owner".into() }.into());
        }
        removed => removed?,
    }
    json(&CloudMessageResponse { message: format!("volume {id} was removed") })
}
