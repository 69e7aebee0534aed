//! The handlers and the code that they share.

pub mod agent;
pub mod exec;
pub mod logs;
pub mod sandboxes;
pub mod server_info;
pub mod volume_files;
pub mod volumes;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::access_log::{access, collect};
use crate::app::App;
use crate::authorize::authorize;
use crate::error::{ApiError, ApiResult};
use crate::head_limit::head_limit;

/// The service. Every path and method is in [`crate::table`], too; [`authorize`] refuses the others.
pub fn router(app: Arc<App>) -> Router {
    let by_name = "/v1/sandboxes/by-name/{name}";
    let by_id = "/v1/sandboxes/{id}";
    let volume = "/v1/volumes/{id}";
    let below = |base: &str, rest: &str| format!("{base}{rest}");
    Router::new()
        .route("/healthz", get(server_info::healthz))
        .route("/metrics", get(server_info::metrics))
        .route("/openapi.json", get(server_info::openapi))
        .route("/v1/sandboxes", get(sandboxes::list).post(sandboxes::create))
        .route(by_name, get(sandboxes::get_by_name).delete(sandboxes::remove_by_name))
        .route(&below(by_name, "/start"), post(sandboxes::start_by_name))
        .route(&below(by_name, "/stop"), post(sandboxes::stop_by_name))
        .route(&below(by_name, "/exec"), post(exec::exec))
        .route(&below(by_name, "/logs"), get(logs::by_name))
        .route(by_id, get(sandboxes::get_by_id).delete(sandboxes::remove_by_id))
        .route(&below(by_id, "/start"), post(sandboxes::start_by_id))
        .route(&below(by_id, "/stop"), post(sandboxes::stop_by_id))
        .route(&below(by_id, "/isolation"), get(sandboxes::isolation))
        .route(&below(by_id, "/logs"), get(logs::by_id))
        .route(&below(by_id, "/agent"), get(agent::agent))
        .route("/v1/volumes", get(volumes::list).post(volumes::create))
        .route("/v1/volumes/default", get(volumes::default))
        .route(volume, axum::routing::delete(volumes::remove))
        .route(&below(volume, "/files"), get(volume_files::list).delete(volume_files::remove))
        .route(&below(volume, "/files/stat"), get(volume_files::stat))
        .route(&below(volume, "/files/exists"), get(volume_files::exists))
        .route(&below(volume, "/files/content"), get(volume_files::read).put(volume_files::write))
        .route(&below(volume, "/files/mkdir"), post(volume_files::mkdir))
        .route(&below(volume, "/files/copy"), post(volume_files::copy))
        .route(&below(volume, "/files/rename"), post(volume_files::rename))
        .route_layer(from_fn_with_state(app.clone(), authorize))
        .fallback(|| async { ApiError::not_found("this path does not exist: /openapi.json lists the paths") })
        .layer(from_fn_with_state(app.clone(), head_limit))
        .layer(from_fn(private))
        .layer(from_fn_with_state(app.clone(), access))
        .with_state(app)
}

/// No cache may store a response, and no client may guess its media type.
async fn private(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The one variable segment of a path, decoded.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(segment)) => Ok(Segment(segment)),
            Err(_) => Err(ApiError::invalid("the path must be percent-encoded UTF-8")),
        }
    }
}

pub fn json<T: Serialize>(value: &T) -> ApiResult {
    let body = serde_json::to_vec(value)
        .map_err(|error| ApiError::from(microsandbox_core::MicrosandboxError::json("the response", error)))?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

pub fn query<T: DeserializeOwned>(uri: &Uri) -> ApiResult<T> {
    serde_urlencoded::from_str(uri.query().unwrap_or_default())
        .map_err(|error| ApiError::invalid(format!("the query does not match its schema: {error}")))
}

/// The bytes of a JSON body; the media type is checked.
pub async fn json_bytes(app: &App, headers: &HeaderMap, body: Body) -> ApiResult<bytes::Bytes> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            microsandbox_wire::error::code::INVALID_REQUEST,
            "the header Content-Type must be application/json",
        ));
    }
    collect(app, body).await
}

pub fn parse<T: DeserializeOwned>(body: &[u8]) -> ApiResult<T> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body does not match its schema: {error}")))
}

/// Checks that a body is empty or a JSON object; its contents are ignored.
pub async fn ignored_body(app: &App, body: Body) -> ApiResult<()> {
    let body = collect(app, body).await?;
    if body.is_empty() {
        return Ok(());
    }
    parse::<serde_json::Map<String, serde_json::Value>>(&body).map(|_| ())
}
