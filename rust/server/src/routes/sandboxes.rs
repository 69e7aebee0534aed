//! Sandboxes: create, list, get, start, stop, remove, isolation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use microsandbox_core::backend::{CreateRequest, ListQuery, RemoveRequest, StartRequest};
use microsandbox_core::model::{
    ImageSource, Isolation, Mount, SandboxConfig, SandboxSpec, validate_sandbox_name, validate_volume_name,
};
use microsandbox_core::{MicrosandboxError, Sandbox, SandboxHandle};
use microsandbox_local::derived_hostname;
use microsandbox_wire::paths::{EXPECTED_ID_HEADER, IDEMPOTENCY_HEADER};
use microsandbox_wire::sandbox::{CloudMessageResponse, CloudPaginated, CloudSandbox};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::{Segment, ignored_body, json, json_bytes, parse, query};
use crate::app::App;
use crate::convert;
use crate::error::{ApiError, ApiResult};
use crate::idempotency::{Creation, detached};
use crate::keys::Scope;
use crate::tenancy::{Caller, without_paths};

/// Longest idempotency key, in characters.
const IDEMPOTENCY_MAX: usize = 256;
const PAGE: u32 = 20;
/// Trees whose paths describe the machine of the server.
const HOST_TREES: [&str; 5] = ["/sys", "/proc", "/dev", "/etc", "/run"];

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
    let mut config = convert::config(parse(&bytes)?, &app.policy)?;
    own(&app, &caller, &mut config.spec).await?;
    let stored = config.spec.name.clone();
    let begin = || detached(create_and_start(app.clone(), caller.clone(), config));
    let creation = match headers.get(IDEMPOTENCY_HEADER) {
        None => begin(),
        Some(key) => {
            let key = key.to_str().ok().filter(|key| (1..=IDEMPOTENCY_MAX).contains(&key.len()));
            let key =
                key.ok_or_else(|| ApiError::invalid("an idempotency key must be 1 to 256 visible ASCII characters"))?;
            app.idempotency.creation((caller.id.clone(), key.to_owned()), Sha256::digest(&bytes).into(), begin)?
        }
    };
    json(&outcome(&app, &caller, &stored, wait, creation).await?)
}

/// Puts the names of the request into the name space of the caller. What is mounted must be the caller's or shared with it, and
/// within its scopes; what it may not see is answered as missing.
async fn own(app: &App, caller: &Caller, spec: &mut SandboxSpec) -> ApiResult<()> {
    validate_sandbox_name(&spec.name)?;
    for mount in &mut spec.mounts {
        let readonly = mount.options().readonly;
        if let Mount::Named { name, .. } = mount {
            caller.require(if readonly { Scope::VolumesRead } else { Scope::VolumesWrite })?;
            validate_volume_name(name)?;
            *name = app.volume(caller, name).await?.name;
        }
    }
    if spec.runtime.hostname.is_none() {
        // Derived from the name that the caller chose.
        spec.runtime.hostname = Some(derived_hostname(&spec.name));
    }
    spec.name = caller.stored(&spec.name);
    Ok(())
}

/// The result of the creation, or the record at the end of the wait.
async fn outcome(
    app: &App,
    caller: &Caller,
    stored: &str,
    wait: Duration,
    creation: Creation,
) -> ApiResult<CloudSandbox> {
    match tokio::time::timeout(wait, creation).await {
        Ok(done) => done,
        Err(_elapsed) => match Sandbox::get(&app.backend, stored).await {
            // There is a record once its image is here.
            Err(MicrosandboxError::SandboxNotFound(_)) => Err(ApiError::unavailable(
                "the image of the sandbox is still being pulled; ask for the sandbox in a moment, or repeat the request with the same \
                 idempotency key",
            )),
            found => Ok(app.show(caller, &found?)),
        },
    }
}

async fn create_and_start(app: Arc<App>, caller: Caller, config: SandboxConfig) -> ApiResult<CloudSandbox> {
    let _permit = permit(&app)?;
    let _slot = app.slots.reserve(&app.backend, app.limits.sandboxes as u64).await?;
    let _pull = match &config.spec.image {
        ImageSource::Oci { .. } => Some(app.pulls_by_owner.acquire(&caller.owner).ok_or_else(|| {
            ApiError::too_many("too many sandboxes from images are being created for this key: retry in a moment")
        })?),
        ImageSource::Host { .. } | ImageSource::Bind { .. } | ImageSource::DiskImage { .. } => None,
    };
    let spec = &config.spec;
    let reserved = app.budgets.reserve(&app.backend, &caller.owner, &spec.name, &spec.resources).await?;
    let request = CreateRequest { config, start: true, owner: Some(caller.owner.clone()), progress: None };
    let made = tokio::time::timeout(app.limits.creation, app.backend.sandboxes().create(request)).await;
    let live = made.map_err(|_elapsed| {
        let minutes = app.limits.creation.as_secs() / 60;
        ApiError::unavailable(format!("the sandbox was not made within {minutes} minutes; its image is slow to pull"))
    })??;
    reserved.keep();
    Ok(app.show(&caller, &Sandbox::get(&app.backend, &live.spec.name).await?))
}

#[derive(Deserialize)]
struct ListParameters {
    limit: Option<String>,
    cursor: Option<String>,
    labels: Option<String>,
}

pub async fn list(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, uri: Uri) -> ApiResult {
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
    let query = ListQuery { cursor: given.cursor, limit: Some(limit), labels, owners: app.sees(&caller) };
    let page = Sandbox::list(&app.backend, query).await?;
    let data = page.sandboxes.iter().map(|handle| app.show(&caller, handle)).collect();
    json(&CloudPaginated { data, has_more: page.next_cursor.is_some(), next_cursor: page.next_cursor })
}

pub async fn get_by_name(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
) -> ApiResult {
    json(&app.show(&caller, &app.get(&caller, &name).await?))
}

pub async fn get_by_id(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> ApiResult {
    json(&app.show(&caller, &app.by_id(&caller, &id).await?))
}

pub async fn start_by_name(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
    uri: Uri,
    body: Body,
) -> ApiResult {
    let wait = query::<WaitQuery>(&uri)?.wait(&app)?;
    ignored_body(&app, body).await?;
    let handle = app.get(&caller, &name).await?;
    start(app, caller, handle, wait).await
}

pub async fn start_by_id(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    uri: Uri,
    body: Body,
) -> ApiResult {
    let wait = query::<WaitQuery>(&uri)?.wait(&app)?;
    ignored_body(&app, body).await?;
    let handle = app.by_id(&caller, &id).await?;
    start(app, caller, handle, wait).await
}

async fn start(app: Arc<App>, caller: Caller, handle: SandboxHandle, wait: Duration) -> ApiResult {
    startable(&app, &caller, &handle).await?;
    let name = handle.name().to_owned();
    let (task, wanted, who) = (app.clone(), name.clone(), caller.clone());
    let (owner, resources) = (handle.owner().map(str::to_owned), handle.config()?.resources);
    let starting = detached(async move {
        let _permit = permit(&task)?;
        // What was made on this machine is in no budget.
        let reserved = match &owner {
            Some(owner) => Some(task.budgets.reserve(&task.backend, owner, &wanted, &resources).await?),
            None => None,
        };
        task.backend.sandboxes().start(StartRequest { name: &wanted, detached: true }).await?;
        if let Some(reserved) = reserved {
            reserved.keep();
        }
        Ok(task.show(&who, &Sandbox::get(&task.backend, &wanted).await?))
    });
    json(&outcome(&app, &caller, &name, wait, starting).await?)
}

/// What was created under another policy of the server, or mounts what is no longer shared, is not started.
async fn startable(app: &App, caller: &Caller, handle: &SandboxHandle) -> ApiResult<()> {
    if app.policy.isolation == Isolation::Microvm && handle.isolation() == Some(Isolation::Container) {
        return Err(ApiError::unsupported(
            "the start of a container",
            "where the server was started with --isolation container",
        ));
    }
    let spec = handle.config()?;
    convert::check_image(&spec.image, &app.policy)?;
    for mount in &spec.mounts {
        if let Mount::Named { name, .. } = mount {
            app.stored_volume(caller, name).await?;
        }
    }
    Ok(())
}

pub async fn stop_by_name(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
    body: Body,
) -> ApiResult {
    ignored_body(&app, body).await?;
    let handle = app.get(&caller, &name).await?;
    stop(&app, &caller, &handle).await
}

pub async fn stop_by_id(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    body: Body,
) -> ApiResult {
    ignored_body(&app, body).await?;
    let handle = app.by_id(&caller, &id).await?;
    stop(&app, &caller, &handle).await
}

/// Requests a graceful stop and does not wait for it; a sandbox that has stopped already is not an error.
async fn stop(app: &App, caller: &Caller, handle: &SandboxHandle) -> ApiResult {
    handle.request_stop().await?;
    match handle.refresh().await {
        Ok(now) => json(&app.show(caller, &now)),
        // An ephemeral sandbox, removed when it stopped.
        Err(MicrosandboxError::SandboxNotFound(_)) => {
            let mut gone = app.show(caller, handle);
            gone.status = crate::convert::status(microsandbox_core::model::SandboxStatus::Stopped);
            json(&gone)
        }
        Err(error) => Err(error.into()),
    }
}

/// If the header with the expected id is there, removes only the sandbox with that id.
pub async fn remove_by_name(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
    headers: HeaderMap,
) -> ApiResult {
    let expected = match headers.get(EXPECTED_ID_HEADER).map(|value| value.to_str()) {
        None => None,
        Some(Ok(id)) => Some(convert::from_uuid(id)),
        Some(Err(_)) => return Err(ApiError::invalid("the expected id must be visible ASCII characters")),
    };
    let handle = app.get(&caller, &name).await?;
    app.backend.sandboxes().remove(RemoveRequest { name: handle.name(), expected_id: expected.as_deref() }).await?;
    removed(&name)
}

pub async fn remove_by_id(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> ApiResult {
    let handle = app.by_id(&caller, &id).await?;
    handle.remove().await?;
    removed(caller.shown(handle.name()))
}

fn removed(name: &str) -> ApiResult {
    json(&CloudMessageResponse { message: format!("sandbox {name} was removed") })
}

pub async fn isolation(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
) -> ApiResult {
    let handle = app.by_id(&caller, &id).await?;
    let mut report = handle.isolation_report().await?;
    for mechanism in &mut report.mechanisms {
        mechanism.reason =
            mechanism.reason.take().map(|reason| without_paths(&without_paths(&reason, &app.private), &HOST_TREES));
    }
    json(&report)
}
