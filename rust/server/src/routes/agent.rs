//! The agent route: a WebSocket that carries the bytes of one connection to the agent of a sandbox.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::agent::AgentClient;
use microsandbox_local::LocalBackend;
use microsandbox_wire::error::code;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Segment;
use crate::app::App;
use crate::connections::Place;
use crate::error::{ApiError, ApiResult};
use crate::gate::Gate;
use crate::relay;
use crate::tenancy::Caller;

/// Longest wait for the greeting of the agent.
const GREETING: Duration = Duration::from_secs(10);
const MAX_KEY: usize = 64;

/// Every check runs before the upgrade, so that a refusal is an HTTP status.
pub async fn agent(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    mut request: Request,
) -> ApiResult {
    let accept = accept_key(request.headers())?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| upgrade_required("this connection cannot be upgraded"))?;
    let handle = app.by_id(&caller, &id).await?;
    let name = handle.name().to_owned();
    if !handle.status_snapshot().is_live() {
        return Err(MicrosandboxError::SandboxNotRunning { name, status: handle.status_snapshot() }.into());
    }
    let local = LocalBackend::of(&app.backend);
    let local = local.ok_or_else(|| ApiError::unsupported("agent route", "on a server over a local backend"))?;
    let (Some(key), Some(sandbox)) =
        (app.relays_by_key.acquire(&caller.id), app.relays_by_sandbox.acquire(handle.id()))
    else {
        return Err(ApiError::too_many("too many concurrent connections to agents: close one first"));
    };
    let address = local.home().agent_address(&name).await?;
    let (stream, greeting) = AgentClient::open_relay(&address, GREETING).await?;
    // Counted from here on: the shutdown waits for it.
    let counted = app.metrics.relay();
    // The connection is still one: its place is free when the relay ends.
    let place = request.extensions_mut().remove::<Arc<Place>>();
    let (end, gate) = (app.clone(), Gate::of(&caller));
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => relay::run(&end, TokioIo::new(upgraded), stream, greeting, gate).await,
            Err(error) => tracing::debug!(%error, "a connection closed during its upgrade"),
        }
        drop((key, sandbox, counted, place));
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

fn upgrade_required(why: &str) -> ApiError {
    ApiError::new(StatusCode::UPGRADE_REQUIRED, code::INVALID_REQUEST, why)
}

fn accept_key(headers: &HeaderMap) -> ApiResult<HeaderValue> {
    let has = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(upgrade_required(
            "this path is a WebSocket: send the headers Connection: Upgrade and Upgrade: websocket",
        ));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(upgrade_required("this server supports version 13 of WebSocket only"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() <= MAX_KEY);
    let key = key.ok_or_else(|| ApiError::invalid("the header Sec-WebSocket-Key is missing"))?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_error| ApiError::invalid("the header Sec-WebSocket-Key is not valid"))
}
