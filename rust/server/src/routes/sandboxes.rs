//! Sandboxes: create, list, get, start, stop, remove, isolation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use microsandbox_core::backend::{CreateRequest, ListQuery, RemoveRequest, StartRequest};
use microsandbox_core::model::SandboxConfig;
use microsandbox_core::{Sandbox, SandboxHandle};
use microsandbox_wire::paths::{EXPECTED_ID_HEADER, IDEMPOTENCY_HEADER};
use microsandbox_wire::sandbox::{CloudMessageResponse, CloudPaginated, CloudSandbox};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::{Segment, ignored_body, json, json_bytes, parse, query};
use crate::app::App;
use crate::authorize::Caller;
use crate::convert;
use crate::error::{ApiError, ApiResult};
use crate::idempotency::{Creation, detached};

/// Longest idempotency key, in characters.
const IDEMPOTENCY_MAX: usize = 256;
const PAGE: u32 = 20;

#[derive(Deserialize)]
struct WaitQuery {
    start: Option<String>,
    wait_for: Option<String>,
    wait_timeout: Option<String>,
}

impl WaitQuery {
    /// How long to wait for a running sandbox. Without `wait_for` the wait is the limit of the server, because creating and
    /// booting are one operation of the backend.
    fn wait(&self, app: &App) -> ApiResult<Duration> {
        if !matches!(self.start.as_deref(), None | Some("true" | "false")) {
            return Err(ApiError::invalid("start must be true or false"));
        }
        match (self.wait_for.as_deref(), self.wait_timeout.as_deref()) {
            (None, Some(_)) => Err(ApiError::invalid("wait_timeout needs wait_for=running")),
            (None, None) => Ok(app.limits.wait),
            (Some("running"), timeout) => {
                let Some(text) = timeout else { return Ok(app.limits.wait) };
                let secs: u64 = text
                    .parse()
                    .map_err(|_error| ApiError::invalid("wait_timeout must be a whole number of seconds"))?;
                Ok(Duration::from_secs(secs).min(app.limits.wait))
            }
            (Some(_), _) => Err(ApiError::invalid("wait_for must be running")),
        }
    }
}

fn permit(app: &App) -> ApiResult<OwnedSemaphorePermit> {
    app.waits
        .clone()
        .try_acquire_owned()
        .map_err(|_full| ApiError::too_many("too many sandboxes are being started: retry in a moment"))
}

/// `POST /v1/sandboxes`. `start=false` is ignored: this backend has no record of a sandbox that never booted.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let wait = query::<WaitQuery>(&uri)?.wait(&app)?;
    let bytes = json_bytes(&app, &headers, body).await?;
    let config = convert::config(parse(&bytes)?, &app.host_prefixes)?;
    let name = config.spec.name.clone();
    let begin = || detached(create_and_start(app.clone(), config));
    let creation = match headers.get(IDEMPOTENCY_HEADER) {
        None => begin(),
        Some(key) => {
            let key = key.to_str().ok().filter(|key| (1..=IDEMPOTENCY_MAX).contains(&key.len()));
            let key =
                key.ok_or_else(|| ApiError::invalid("an idempotency key must be 1 to 256 visible ASCII characters"))?;
            app.idempotency.creation((caller.id, key.to_owned()), Sha256::digest(&bytes).into(), begin)?
        }
    };
    json(&outcome(&app, &name, wait, creation).await?)
}

/// The result of the creation, or the record at the end of the wait.
async fn outcome(app: &App, name: &str, wait: Duration, creation: Creation) -> ApiResult<CloudSandbox> {
    match tokio::time::timeout(wait, creation).await {
        Ok(done) => done,
        Err(_elapsed) => Ok(app.show(&app.get(name).await?)),
    }
}

async fn create_and_start(app: Arc<App>, config: SandboxConfig) -> ApiResult<CloudSandbox> {
    let _permit = permit(&app)?;
    let _slot = app.reserve_slot().await?;
    let live = app.backend.sandboxes().create(CreateRequest { config, start: true }).await?;
    Ok(app.show(&app.get(&live.spec.name).await?))
}

#[derive(Deserialize)]
struct ListParameters {
    limit: Option<String>,
    cursor: Option<String>,
    labels: Option<String>,
}

pub async fn list(State(app): State<Arc<App>>, uri: Uri) -> ApiResult {
    let given: ListParameters = query(&uri)?;
    let limit = match given.limit.as_deref() {
        None => PAGE,
        Some(text) => match text.parse() {
            Ok(limit @ 1..=100) => limit,
            _ => return Err(ApiError::invalid(format!("limit must be 1 to 100: got {text:?}"))),
        },
    };
    let labels: BTreeMap<String, String> = match given.labels.as_deref() {
        None | Some("") => BTreeMap::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| ApiError::invalid(format!("labels must be a JSON object of strings: {error}")))?,
    };
    let query = ListQuery { cursor: given.cursor, limit: Some(limit), labels };
    let page = Sandbox::list(&app.backend, query).await?;
    let data = page.sandboxes.iter().map(|handle| app.show(handle)).collect();
    json(&CloudPaginated { data, has_more: page.next_cursor.is_some(), next_cursor: page.next_cursor })
}

pub async fn get_by_name(State(app): State<Arc<App>>, Segment(name): Segment) -> ApiResult {
    json(&app.show(&app.get(&name).await?))
}

pub async fn get_by_id(State(app): State<Arc<App>>, Segment(id): Segment) -> ApiResult {
    json(&app.show(&app.by_id(&id).await?))
}

pub async fn start_by_name(State(app): State<Arc<App>>, Segment(name): Segment, uri: Uri, body: Body) -> ApiResult {
    let wait = query::<WaitQuery>(&uri)?.wait(&app)?;
    ignored_body(&app, body).await?;
    start(app, name, wait).await
}

pub async fn start_by_id(State(app): State<Arc<App>>, Segment(id): Segment, uri: Uri, body: Body) -> ApiResult {
    let wait = query::<WaitQuery>(&uri)?.wait(&app)?;
    ignored_body(&app, body).await?;
    let name = app.by_id(&id).await?.name().to_owned();
    start(app, name, wait).await
}

async fn start(app: Arc<App>, name: String, wait: Duration) -> ApiResult {
    let (task, wanted) = (app.clone(), name.clone());
    let starting = detached(async move {
        let _permit = permit(&task)?;
        task.backend.sandboxes().start(StartRequest { name: &wanted, detached: true }).await?;
        Ok(task.show(&task.get(&wanted).await?))
    });
    json(&outcome(&app, &name, wait, starting).await?)
}

pub async fn stop_by_name(State(app): State<Arc<App>>, Segment(name): Segment, body: Body) -> ApiResult {
    ignored_body(&app, body).await?;
    let handle = app.get(&name).await?;
    stop(&app, &handle).await
}

pub async fn stop_by_id(State(app): State<Arc<App>>, Segment(id): Segment, body: Body) -> ApiResult {
    ignored_body(&app, body).await?;
    let handle = app.by_id(&id).await?;
    stop(&app, &handle).await
}

/// Requests a graceful stop and does not wait for it; a sandbox that has stopped already is not an error.
async fn stop(app: &App, handle: &SandboxHandle) -> ApiResult {
    handle.request_stop().await?;
    match app.get(handle.name()).await {
        Ok(now) => json(&app.show(&now)),
        // An ephemeral sandbox, removed when it stopped.
        Err(error) if error.status == 404 => {
            let mut gone = app.show(handle);
            gone.status = crate::convert::status(microsandbox_core::model::SandboxStatus::Stopped);
            json(&gone)
        }
        Err(error) => Err(error),
    }
}

/// If the header with the expected id is there, removes only the sandbox with that id.
pub async fn remove_by_name(State(app): State<Arc<App>>, Segment(name): Segment, headers: HeaderMap) -> ApiResult {
    let expected = match headers.get(EXPECTED_ID_HEADER).map(|value| value.to_str()) {
        None => None,
        Some(Ok(id)) => Some(convert::from_uuid(id)),
        Some(Err(_)) => return Err(ApiError::invalid("the expected id must be visible ASCII characters")),
    };
    app.backend.sandboxes().remove(RemoveRequest { name: &name, expected_id: expected.as_deref() }).await?;
    removed(&name)
}

pub async fn remove_by_id(State(app): State<Arc<App>>, Segment(id): Segment) -> ApiResult {
    let handle = app.by_id(&id).await?;
    handle.remove().await?;
    removed(handle.name())
}

fn removed(name: &str) -> ApiResult {
    json(&CloudMessageResponse { message: format!("sandbox {name} was removed") })
}

pub async fn isolation(State(app): State<Arc<App>>, Segment(id): Segment) -> ApiResult {
    let handle = app.by_id(&id).await?;
    json(&handle.isolation_report().await?)
}
