//! Files of a volume. Paths are sent in a header, encoded, so that they may contain any byte.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use http_body_util::BodyExt;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::{FsEntry, FsMetadata, VolumeInfo};
use microsandbox_core::names;
use microsandbox_wire::error::code;
use microsandbox_wire::paths::{FILE_PATH_HEADER, FILE_RECURSIVE_HEADER, decode_file_path};
use microsandbox_wire::sandbox::CloudMessageResponse;
use microsandbox_wire::volume::{FileEntries, FileExists, FileInfo, FileMetadata, FromTo, PathBody};

use super::{Segment, json, json_bytes, parse};
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::tenancy::Caller;

/// The name under which the volume is stored.
async fn named(app: &App, caller: &Caller, id: &str) -> ApiResult<String> {
    Ok(app.volume(caller, id).await?.name)
}

/// 429 where the budgets of the volume's owner have no room for more files. What was made on this machine is in no budget.
async fn has_room(app: &App, volume: &VolumeInfo) -> ApiResult<()> {
    match &volume.owner {
        Some(owner) => app.budgets.disk_is_left(&app.backend, owner).await,
        None => Ok(()),
    }
}

fn path(headers: &HeaderMap) -> ApiResult<String> {
    let text = headers.get(FILE_PATH_HEADER).and_then(|value| value.to_str().ok());
    let bytes = text.and_then(decode_file_path);
    bytes.map(|bytes| names::to_text(&bytes).into_owned()).ok_or_else(|| {
        let text = format!("the header {FILE_PATH_HEADER} must be the path as base64url without padding");
        ApiError::new(StatusCode::BAD_REQUEST, code::INVALID_VOLUME_PATH, text)
    })
}

/// A missing path in a volume has its own code.
fn file_error(error: MicrosandboxError) -> ApiError {
    let missing = matches!(error, MicrosandboxError::PathNotFound { .. });
    let mut error = ApiError::from(error);
    if missing {
        error.code = code::VOLUME_FILE_NOT_FOUND;
    }
    error
}

fn time(ms: Option<f64>) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(ms? as i64)
}

fn entry(entry: FsEntry) -> FileInfo {
    FileInfo {
        path: entry.path,
        kind: entry.kind.as_str().into(),
        size: entry.size,
        mode: entry.mode,
        uid: 0,
        gid: 0,
        readonly: entry.mode & 0o222 == 0,
        accessed_at: None,
        modified_at: time(entry.modified_ms),
        created_at: None,
    }
}

fn metadata(path: String, found: FsMetadata) -> FileInfo {
    FileInfo {
        path,
        kind: found.kind.as_str().into(),
        size: found.size,
        mode: found.mode,
        uid: found.uid,
        gid: found.gid,
        readonly: found.readonly,
        accessed_at: None,
        modified_at: time(found.modified_ms),
        created_at: time(found.created_ms),
    }
}

pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    headers: HeaderMap,
) -> ApiResult {
    let (path, name) = (path(&headers)?, named(&app, &caller, &id).await?);
    let entries = app.backend.volumes().files(&name).list(&path).await.map_err(file_error)?;
    json(&FileEntries { entries: entries.into_iter().map(entry).collect() })
}

pub async fn stat(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    headers: HeaderMap,
) -> ApiResult {
    let (path, name) = (path(&headers)?, named(&app, &caller, &id).await?);
    let found = app.backend.volumes().files(&name).stat(&path, true).await.map_err(file_error)?;
    json(&FileMetadata { metadata: metadata(path, found) })
}

pub async fn exists(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    headers: HeaderMap,
) -> ApiResult {
    let (path, name) = (path(&headers)?, named(&app, &caller, &id).await?);
    let exists = app.backend.volumes().files(&name).exists(&path).await.map_err(file_error)?;
    json(&FileExists { exists })
}

pub async fn read(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    headers: HeaderMap,
) -> ApiResult {
    let (path, name) = (path(&headers)?, named(&app, &caller, &id).await?);
    let chunks = app.backend.volumes().files(&name).read_stream(&path).await.map_err(file_error)?;
    // After a failure the body ends without its last chunk, so the client detects it.
    let body = Body::from_stream(chunks.map(|chunk| {
        chunk.map_err(|error| {
            tracing::warn!(%error, "reading a file of a volume failed");
            std::io::Error::other("the file could not be read completely")
        })
    }));
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))], body).into_response())
}

pub async fn write(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    headers: HeaderMap,
    mut body: Body,
) -> ApiResult {
    let (path, volume) = (path(&headers)?, app.volume(&caller, &id).await?);
    let most = app.limits.file_body;
    let too_large = || ApiError::too_large(format!("the file is larger than {most} bytes, the limit of this server"));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    has_room(&app, &volume).await?;
    let sink = app.backend.volumes().files(&volume.name).write_stream(&path).await.map_err(file_error)?;
    let mut written = 0u64;
    // A sink that is dropped before it is closed leaves the previous file in place.
    loop {
        let frame = match tokio::time::timeout(app.limits.body_timeout, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(ApiError::invalid("the connection closed before the end of the body")),
            Err(_elapsed) => {
                let text = "the body did not arrive in time";
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, code::INVALID_REQUEST, text));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        written += data.len() as u64;
        if written > most {
            return Err(too_large());
        }
        sink.write(data).await.map_err(file_error)?;
    }
    sink.close().await.map_err(file_error)?;
    done(format!("{written} bytes were written"))
}

pub async fn mkdir(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let request: PathBody = parse(&json_bytes(&app, &headers, body).await?)?;
    let volume = app.volume(&caller, &id).await?;
    has_room(&app, &volume).await?;
    app.backend.volumes().files(&volume.name).mkdir(&request.path).await.map_err(file_error)?;
    done("the directory exists".into())
}

pub async fn copy(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let request: FromTo = parse(&json_bytes(&app, &headers, body).await?)?;
    let volume = app.volume(&caller, &id).await?;
    has_room(&app, &volume).await?;
    app.backend.volumes().files(&volume.name).copy(&request.from, &request.to).await.map_err(file_error)?;
    done("copied".into())
}

pub async fn rename(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let request: FromTo = parse(&json_bytes(&app, &headers, body).await?)?;
    let name = named(&app, &caller, &id).await?;
    app.backend.volumes().files(&name).rename(&request.from, &request.to).await.map_err(file_error)?;
    done("renamed".into())
}

pub async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    headers: HeaderMap,
) -> ApiResult {
    let path = path(&headers)?;
    let recursive = match headers.get(FILE_RECURSIVE_HEADER).map(HeaderValue::as_bytes) {
        None | Some(b"false") => false,
        Some(b"true") => true,
        Some(_) => return Err(ApiError::invalid(format!("the header {FILE_RECURSIVE_HEADER} must be true or false"))),
    };
    let name = named(&app, &caller, &id).await?;
    app.backend.volumes().files(&name).remove(&path, recursive).await.map_err(file_error)?;
    done("removed".into())
}

fn done(message: String) -> ApiResult {
    json(&CloudMessageResponse { message })
}
