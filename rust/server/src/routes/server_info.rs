//! Health, metrics and the OpenAPI document.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use microsandbox_wire::error::code;
use serde_json::json;

use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::metrics::CONTENT_TYPE;

pub async fn healthz() -> ApiResult {
    super::json(&json!({ "status": "ok" }))
}

pub async fn metrics(State(app): State<Arc<App>>) -> ApiResult {
    let text = app.metrics.render().map_err(|error| {
        tracing::error!(%error, "the metrics cannot be encoded");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL, "the metrics cannot be encoded")
    })?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], text).into_response())
}

pub async fn openapi() -> ApiResult {
    super::json(&crate::openapi::document())
}
