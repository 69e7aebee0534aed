//! Every route in one table: what the guard asks for, and what the OpenAPI document says.

use axum::http::Method;

use crate::keys::Scope;

/// One operation.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    /// None: open to everybody.
    pub scope: Option<Scope>,
    pub id: &'static str,
    pub summary: &'static str,
    pub query: &'static [&'static str],
    pub headers: &'static [&'static str],
    pub body: Content,
    pub answer: Content,
    /// Beyond those that every operation has.
    pub refusals: &'static [u16],
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Nothing,
    /// A schema by name.
    Json(&'static str),
    JsonList(&'static str),
    /// Any JSON object, or nothing.
    Ignored,
    Bytes,
    Text,
    Events,
    JsonOrEvents(&'static str),
    WebSocket,
}

use Content::{Bytes, Events, Ignored, Json, JsonList, JsonOrEvents, Nothing, Text, WebSocket};

const READ: Option<Scope> = Some(Scope::SandboxesRead);
const WRITE: Option<Scope> = Some(Scope::SandboxesWrite);
const EXEC: Option<Scope> = Some(Scope::Exec);
const VOLUMES_READ: Option<Scope> = Some(Scope::VolumesRead);
const VOLUMES_WRITE: Option<Scope> = Some(Scope::VolumesWrite);

const PLAIN: Route = Route {
    method: "GET",
    path: "",
    scope: None,
    id: "",
    summary: "",
    query: &[],
    headers: &[],
    body: Nothing,
    answer: Nothing,
    refusals: &[],
};

const BY_NAME: &str = "/v1/sandboxes/by-name/{name}";
const BY_ID: &str = "/v1/sandboxes/{id}";
const WAIT: &[&str] = &["wait_for", "wait_timeout"];
const PATH: &[&str] = &["x-msb-file-path"];

macro_rules! routes {
    ($($method:ident $path:expr, $scope:expr, $id:literal, $summary:literal, $body:expr => $answer:expr,
       $refusals:expr $(, query $query:expr)? $(, headers $headers:expr)?;)*) => {
        /// The table.
        #[allow(clippy::needless_update, reason = "a row may say everything")]
        pub static ROUTES: &[Route] = &[$(Route {
            method: stringify!($method), path: $path, scope: $scope, id: $id, summary: $summary, body: $body,
            answer: $answer, refusals: $refusals, $(query: $query,)? $(headers: $headers,)? ..PLAIN
        }),*];
    };
}

routes! {
    GET "/healthz", None, "health", "Whether the server answers; needs no key.", Nothing => Json("Health"), &[];
    GET "/openapi.json", None, "openapi", "This document; needs no key.", Nothing => Ignored, &[];
    GET "/metrics", Some(Scope::Metrics), "metrics", "Counters, in the text form of Prometheus.", Nothing => Text, &[];
    GET "/v1/sandboxes", READ, "listSandboxes", "One page of sandboxes, newest first.",
        Nothing => Json("CloudPaginated"), &[400], query &["limit", "cursor", "labels"];
    POST "/v1/sandboxes", WRITE, "createSandbox",
        "Creates a sandbox and boots it, whatever `start` says: this server has none that were never booted. The wait ends after `wait_timeout`; the answer is then a sandbox that is still starting. A body whose `image` is a text is a request of the dialect flat.",
        Json("CreateBody") => Json("CloudSandbox"), &[400, 404, 408, 409, 413, 415, 422, 502],
        query &["start", "wait_for", "wait_timeout"], headers &["idempotency-key"];
    GET BY_NAME, READ, "getSandbox", "A sandbox by name.", Nothing => Json("CloudSandbox"), &[400, 404];
    DELETE BY_NAME, WRITE, "removeSandbox", "Deletes a sandbox that is not running.",
        Nothing => Json("CloudMessageResponse"), &[400, 404, 409];
    POST "/v1/sandboxes/by-name/{name}/start", WRITE, "startSandbox", "Boots a stopped sandbox.",
        Ignored => Json("CloudSandbox"), &[400, 404, 408, 409, 413, 422, 502], query WAIT;
    POST "/v1/sandboxes/by-name/{name}/stop", WRITE, "stopSandbox", "Asks for an orderly end; does not wait.",
        Ignored => Json("CloudSandbox"), &[400, 404, 408, 409, 413, 422, 502];
    POST "/v1/sandboxes/by-name/{name}/exec", EXEC, "exec", "Dialect flat: one program, to its end.",
        Json("ExecRequest") => Json("ExecResponse"), &[400, 404, 408, 409, 413, 415, 422, 502];
    GET "/v1/sandboxes/by-name/{name}/logs", READ, "logsByName",
        "Dialect flat: the newest captured output; events for who accepts text/event-stream.",
        Nothing => JsonOrEvents("LogPage"), &[400, 404, 422],
        query &["sources", "tail", "since", "until", "follow"], headers &["last-event-id"];
    GET BY_ID, READ, "getSandboxById", "A sandbox by identity.", Nothing => Json("CloudSandbox"), &[400, 404];
    DELETE BY_ID, WRITE, "removeSandboxById", "Deletes a sandbox that is not running.",
        Nothing => Json("CloudMessageResponse"), &[400, 404, 409];
    POST "/v1/sandboxes/{id}/start", WRITE, "startSandboxById", "Boots a stopped sandbox.",
        Ignored => Json("CloudSandbox"), &[400, 404, 408, 409, 413, 422, 502], query WAIT;
    POST "/v1/sandboxes/{id}/stop", WRITE, "stopSandboxById", "Asks for an orderly end; does not wait.",
        Ignored => Json("CloudSandbox"), &[400, 404, 408, 409, 413, 422, 502];
    GET "/v1/sandboxes/{id}/isolation", READ, "isolation", "What separates it from its host.",
        Nothing => Ignored, &[400, 404, 409, 422, 502];
    GET "/v1/sandboxes/{id}/logs", READ, "logs", "Captured output as events, until the sandbox ends.",
        Nothing => Events, &[400, 404, 422], query &["sources", "since", "until", "follow"],
        headers &["last-event-id"];
    GET "/v1/sandboxes/{id}/agent", EXEC, "agent",
        "WebSocket: binary messages carry the bytes of one connection to the sandbox's agent.",
        Nothing => WebSocket, &[400, 404, 409, 422, 426, 502];
    GET "/v1/volumes", VOLUMES_READ, "listVolumes", "All volumes.", Nothing => JsonList("CloudVolume"), &[422];
    POST "/v1/volumes", VOLUMES_WRITE, "createVolume", "Creates a volume.",
        Json("CreateVolume") => Json("CloudVolume"), &[400, 408, 409, 413, 415, 422];
    GET "/v1/volumes/default", VOLUMES_READ, "defaultVolume", "The account's default volume.",
        Nothing => Json("CloudVolume"), &[404, 422];
    DELETE "/v1/volumes/{id}", VOLUMES_WRITE, "removeVolume", "Deletes a volume that no sandbox uses.",
        Nothing => Json("CloudMessageResponse"), &[400, 404, 409, 422];
    GET "/v1/volumes/{id}/files", VOLUMES_READ, "listFiles", "The entries of a directory.",
        Nothing => Json("FileEntries"), &[400, 404, 409, 422], headers PATH;
    DELETE "/v1/volumes/{id}/files", VOLUMES_WRITE, "removeFile", "Deletes a file or a directory.",
        Nothing => Json("CloudMessageResponse"), &[400, 404, 409, 422],
        headers &["x-msb-file-path", "x-msb-file-recursive"];
    GET "/v1/volumes/{id}/files/stat", VOLUMES_READ, "statFile", "What is known of a path.",
        Nothing => Json("FileMetadata"), &[400, 404, 409, 422], headers PATH;
    GET "/v1/volumes/{id}/files/exists", VOLUMES_READ, "fileExists", "Whether a path exists.",
        Nothing => Json("FileExists"), &[400, 404, 409, 422], headers PATH;
    GET "/v1/volumes/{id}/files/content", VOLUMES_READ, "readFile", "The bytes of a file.",
        Nothing => Bytes, &[400, 404, 409, 422], headers PATH;
    PUT "/v1/volumes/{id}/files/content", VOLUMES_WRITE, "writeFile", "Creates or replaces a file.",
        Bytes => Json("CloudMessageResponse"), &[400, 404, 408, 409, 413, 422], headers PATH;
    POST "/v1/volumes/{id}/files/mkdir", VOLUMES_WRITE, "makeDirectory", "Makes a directory, with its parents.",
        Json("PathBody") => Json("CloudMessageResponse"), &[400, 404, 408, 409, 413, 415, 422];
    POST "/v1/volumes/{id}/files/copy", VOLUMES_WRITE, "copyFile", "Copies within the volume.",
        Json("FromTo") => Json("CloudMessageResponse"), &[400, 404, 408, 409, 413, 415, 422];
    POST "/v1/volumes/{id}/files/rename", VOLUMES_WRITE, "renameFile", "Renames within the volume.",
        Json("FromTo") => Json("CloudMessageResponse"), &[400, 404, 408, 409, 413, 415, 422];
}

pub fn find(method: &Method, path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.method == method.as_str() && route.path == path)
}

/// The path as it is in the table.
pub fn template(path: &str) -> Option<&'static str> {
    ROUTES.iter().find(|route| route.path == path).map(|route| route.path)
}

pub fn methods(path: &str) -> Vec<&'static str> {
    ROUTES.iter().filter(|route| route.path == path).map(|route| route.method).collect()
}
