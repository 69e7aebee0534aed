//! About the server itself.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;
use crate::error::Answer;

pub async fn healthz() -> Answer {
    super::json(&json!({ "status": "ok" }))
}

pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], app.metrics.render()).into_response()
}

pub async fn openapi() -> Answer {
    super::json(&crate::openapi::document())
}
