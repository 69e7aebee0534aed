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
use crate::error::{Answer, ApiError};
use crate::idempotency::{Creation, detached};

/// Longest idempotency key.
const IDEMPOTENCY_MAX: usize = 256;
const PAGE: u32 = 20;

#[derive(Deserialize)]
struct WaitQuery {
    start: Option<String>,
    wait_for: Option<String>,
    wait_timeout: Option<String>,
}

impl WaitQuery {
    /// How long to wait for a running sandbox. Without `wait_for` a boot is waited for all the same, because that is how
    /// this backend works, up to the server's own bound.
    fn wait(&self, app: &App) -> Answer<Duration> {
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

fn permit(app: &App) -> Answer<OwnedSemaphorePermit> {
    app.waits
        .clone()
        .try_acquire_owned()
        .map_err(|_full| ApiError::too_many("too many sandboxes are being started; repeat in a moment"))
}

/// `POST /v1/sandboxes`. Whatever `start` says the sandbox boots: this backend has no records without a boot.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let wait = query::<WaitQuery>(&uri)?.wait(&app)?;
    let bytes = json_bytes(&app, &headers, body).await?;
    let config = convert::config(parse(&bytes)?, &app.host_prefixes)?;
    let name = config.spec.name.clone();
    let begin = || detached(bring_up(app.clone(), config));
    let creation = match headers.get(IDEMPOTENCY_HEADER) {
        None => begin(),
        Some(key) => {
            let key = key.to_str().ok().filter(|key| (1..=IDEMPOTENCY_MAX).contains(&key.len()));
            let key = key.ok_or_else(|| ApiError::invalid("an idempotency key is 1 to 256 visible characters"))?;
            app.idempotency.creation((caller.id, key.to_owned()), Sha256::digest(&bytes).into(), begin)?
        }
    };
    json(&outcome(&app, &name, wait, creation).await?)
}

/// The creation's result, or the record as it is when the wait has passed.
async fn outcome(app: &App, name: &str, wait: Duration, creation: Creation) -> Answer<CloudSandbox> {
    match tokio::time::timeout(wait, creation).await {
        Ok(done) => done,
        Err(_elapsed) => Ok(app.show(&app.get(name).await?)),
    }
}

async fn bring_up(app: Arc<App>, config: SandboxConfig) -> Answer<CloudSandbox> {
    let _permit = permit(&app)?;
    let _room = app.room().await?;
    let live = app.backend.sandboxes().create(CreateRequest { config, start: true }).await?;
    Ok(app.show(&app.get(&live.spec.name).await?))
}

#[derive(Deserialize)]
struct ListParameters {
    limit: Option<String>,
    cursor: Option<String>,
    labels: Option<String>,
}

pub async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer {
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
            .map_err(|error| ApiError::invalid(format!("labels must be a JSON object of texts: {error}")))?,
    };
    let query = ListQuery { cursor: given.cursor, limit: Some(limit), labels };
    let page = Sandbox::list(&app.backend, query).await?;
    let data = page.sandboxes.iter().map(|handle| app.show(handle)).collect();
    json(&CloudPaginated { data, has_more: page.next_cursor.is_some(), next_cursor: page.next_cursor })
}

pub async fn get_by_name(State(app): State<Arc<App>>, Segment(name): Segment) -> Answer {
    json(&app.show(&app.get(&name).await?))
}

pub async fn get_by_id(State(app): State<Arc<App>>, Segment(id): Segment) -> Answer {
    json(&app.show(&app.by_id(&id).await?))
}

pub async fn start_by_name(State(app): State<Arc<App>>, Segment(name): Segment, uri: Uri, body: Body) -> Answer {
    let wait = query::<WaitQuery>(&uri)?.wait(&app)?;
    ignored_body(&app, body).await?;
    start(app, name, wait).await
}

pub async fn start_by_id(State(app): State<Arc<App>>, Segment(id): Segment, uri: Uri, body: Body) -> Answer {
    let wait = query::<WaitQuery>(&uri)?.wait(&app)?;
    ignored_body(&app, body).await?;
    let name = app.by_id(&id).await?.name().to_owned();
    start(app, name, wait).await
}

async fn start(app: Arc<App>, name: String, wait: Duration) -> Answer {
    let (task, wanted) = (app.clone(), name.clone());
    let starting = detached(async move {
        let _permit = permit(&task)?;
        task.backend.sandboxes().start(StartRequest { name: &wanted, detached: true }).await?;
        Ok(task.show(&task.get(&wanted).await?))
    });
    json(&outcome(&app, &name, wait, starting).await?)
}

pub async fn stop_by_name(State(app): State<Arc<App>>, Segment(name): Segment, body: Body) -> Answer {
    ignored_body(&app, body).await?;
    let handle = app.get(&name).await?;
    stop(&app, &handle).await
}

pub async fn stop_by_id(State(app): State<Arc<App>>, Segment(id): Segment, body: Body) -> Answer {
    ignored_body(&app, body).await?;
    let handle = app.by_id(&id).await?;
    stop(&app, &handle).await
}

/// Asks for an orderly end and answers at once; one that has ended already is fine.
async fn stop(app: &App, handle: &SandboxHandle) -> Answer {
    handle.request_stop().await?;
    match app.get(handle.name()).await {
        Ok(now) => json(&app.show(&now)),
        // An ephemeral one that went with its end.
        Err(error) if error.status == 404 => {
            let mut gone = app.show(handle);
            gone.status = microsandbox_wire::sandbox::CloudSandboxStatus::Stopped;
            json(&gone)
        }
        Err(error) => Err(error),
    }
}

/// With the header of an expected id, only the sandbox that has it.
pub async fn remove_by_name(State(app): State<Arc<App>>, Segment(name): Segment, headers: HeaderMap) -> Answer {
    let expected = match headers.get(EXPECTED_ID_HEADER).map(|value| value.to_str()) {
        None => None,
        Some(Ok(id)) => Some(convert::from_uuid(id)),
        Some(Err(_)) => return Err(ApiError::invalid("the expected id is no id")),
    };
    app.backend.sandboxes().remove(RemoveRequest { name: &name, expected_id: expected.as_deref() }).await?;
    removed(&name)
}

pub async fn remove_by_id(State(app): State<Arc<App>>, Segment(id): Segment) -> Answer {
    let handle = app.by_id(&id).await?;
    handle.remove().await?;
    removed(handle.name())
}

fn removed(name: &str) -> Answer {
    json(&CloudMessageResponse { message: format!("sandbox {name} was removed") })
}

pub async fn isolation(State(app): State<Arc<App>>, Segment(id): Segment) -> Answer {
    let handle = app.by_id(&id).await?;
    json(&handle.isolation_report().await?)
}
