//! The OpenAPI document: paths from the table of routes, schemas from the types of the wire.

use std::sync::OnceLock;

use microsandbox_wire::create::CreateRequest;
use microsandbox_wire::error::CloudErrorBody;
use microsandbox_wire::flat::{CloudCreateSandboxRequest, ExecRequest, ExecResponse, LogPage};
use microsandbox_wire::sandbox::{CloudMessageResponse, CloudPaginated, CloudSandbox};
use microsandbox_wire::volume::{CloudVolume, CreateVolume, FileEntries, FileExists, FileMetadata, FromTo, PathBody};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use crate::table::{Content, ROUTES, Route};

const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$";

/// The document; built once.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(build)
}

fn build() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "microsandbox",
            "description": "The sandboxes and volumes of one machine, over the wire of the microsandbox cloud, in both of its dialects.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn schemas() -> Value {
    fn add<T: ToSchema>(list: &mut Vec<(String, RefOr<Schema>)>) {
        list.push((T::name().into_owned(), T::schema()));
        T::schemas(list);
    }
    let mut list = Vec::new();
    add::<CreateRequest>(&mut list);
    add::<CloudCreateSandboxRequest>(&mut list);
    add::<ExecRequest>(&mut list);
    add::<ExecResponse>(&mut list);
    add::<LogPage>(&mut list);
    add::<CloudSandbox>(&mut list);
    add::<CloudMessageResponse>(&mut list);
    add::<CloudVolume>(&mut list);
    add::<CreateVolume>(&mut list);
    add::<FileEntries>(&mut list);
    add::<FileExists>(&mut list);
    add::<FileMetadata>(&mut list);
    add::<FromTo>(&mut list);
    add::<PathBody>(&mut list);
    add::<CloudErrorBody>(&mut list);
    // A generic type: its schema with the item filled in.
    list.push(("CloudPaginated".into(), <CloudPaginated<CloudSandbox> as utoipa::PartialSchema>::schema()));
    let mut schemas: Map<String, Value> =
        list.into_iter().filter_map(|(name, schema)| Some((name, serde_json::to_value(schema).ok()?))).collect();
    schemas.insert(
        "CreateBody".into(),
        json!({ "oneOf": [reference("CreateRequest"), reference("CloudCreateSandboxRequest")] }),
    );
    schemas.insert(
        "Health".into(),
        json!({ "type": "object", "required": ["status"], "properties": { "status": { "type": "string" } } }),
    );
    Value::Object(schemas)
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn operation(route: &Route) -> Value {
    let mut parameters = Vec::new();
    for segment in route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        parameters.push(path_parameter(route, segment));
    }
    parameters.extend(route.query.iter().map(|name| parameter("query", name, query_schema(name), false)));
    parameters.extend(route.headers.iter().map(|name| {
        parameter("header", name, header_schema(name), *name == microsandbox_wire::paths::FILE_PATH_HEADER)
    }));
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses(route),
    });
    if let Some(body) = request_body(route.body) {
        operation["requestBody"] = body;
    }
    if !route.scopes.is_empty() {
        operation["security"] = json!([{ "key": [] }]);
        // One of them is required.
        operation["x-scopes"] = json!(route.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>());
    }
    operation
}

fn parameter(place: &str, name: &str, schema: Value, required: bool) -> Value {
    json!({ "in": place, "name": name, "required": required, "schema": schema })
}

fn path_parameter(route: &Route, name: &str) -> Value {
    let schema = match name {
        "name" => json!({ "type": "string", "pattern": NAME_PATTERN }),
        _ if route.path.starts_with("/v1/volumes") => {
            json!({ "type": "string", "minLength": 1, "maxLength": 128, "pattern": NAME_PATTERN })
        }
        _ => json!({ "type": "string", "format": "uuid" }),
    };
    parameter("path", name, schema, true)
}

fn query_schema(name: &str) -> Value {
    match name {
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 20 }),
        "wait_timeout" => json!({ "type": "integer", "minimum": 0, "maximum": 90 }),
        "wait_for" => json!({ "type": "string", "enum": ["running"] }),
        "start" | "follow" | "usage" => json!({ "type": "boolean" }),
        "tail" => json!({ "type": "integer", "minimum": 0 }),
        "since" | "until" => json!({ "type": "string", "format": "date-time" }),
        "sources" => json!({
            "type": "string", "pattern": "^(stdout|stderr|output|system)(,(stdout|stderr|output|system))*$",
        }),
        "labels" => {
            json!({ "type": "string", "description": "A JSON object of strings; a sandbox is listed when it has all of these labels." })
        }
        "name" => json!({ "type": "string", "pattern": NAME_PATTERN }),
        _ => json!({ "type": "string" }),
    }
}

fn header_schema(name: &str) -> Value {
    match name {
        microsandbox_wire::paths::FILE_PATH_HEADER => {
            json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": 8192 })
        }
        microsandbox_wire::paths::FILE_RECURSIVE_HEADER => json!({ "type": "string", "enum": ["true", "false"] }),
        _ => json!({ "type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$" }),
    }
}

fn content(kind: &str, schema: Value) -> Value {
    json!({ kind: { "schema": schema } })
}

fn request_body(body: Content) -> Option<Value> {
    match body {
        Content::Json(schema) => {
            Some(json!({ "required": true, "content": content("application/json", reference(schema)) }))
        }
        Content::Ignored => {
            Some(json!({ "required": false, "content": content("application/json", json!({ "type": "object" })) }))
        }
        Content::Bytes => Some(json!({
            "required": true,
            "content": content("application/octet-stream", json!({ "type": "string", "format": "binary" })),
        })),
        _ => None,
    }
}

/// Statuses that any operation may return: wrong method, path or head too long, failure, too many requests.
const ANYWHERE: [u16; 5] = [405, 414, 431, 500, 503];
/// Statuses of the operations that require a key.
const WITH_KEY: [u16; 3] = [401, 403, 429];

fn responses(route: &Route) -> Value {
    let (status, good) = match route.response {
        Content::Json(schema) => ("200", Some(content("application/json", reference(schema)))),
        Content::JsonList(schema) => {
            let list = json!({ "type": "array", "items": reference(schema) });
            ("200", Some(content("application/json", list)))
        }
        Content::Ignored => ("200", Some(content("application/json", json!({ "type": "object" })))),
        Content::OpenMetrics => ("200", Some(content("application/openmetrics-text", json!({ "type": "string" })))),
        Content::Events => ("200", Some(content("text/event-stream", json!({ "type": "string" })))),
        Content::JsonOrEvents(schema) => {
            let mut both = content("application/json", reference(schema));
            both["text/event-stream"] = json!({ "schema": { "type": "string" } });
            ("200", Some(both))
        }
        Content::Bytes => {
            let bytes = json!({ "type": "string", "format": "binary" });
            ("200", Some(content("application/octet-stream", bytes)))
        }
        Content::WebSocket => ("101", None),
        Content::Nothing => ("204", None),
    };
    let mut responses = Map::new();
    let mut success = json!({ "description": "Success." });
    if let Some(content) = good {
        success["content"] = content;
    }
    responses.insert(status.into(), success);
    let with_key: &[u16] = if route.scopes.is_empty() { &[] } else { &WITH_KEY };
    for status in ANYWHERE.iter().chain(with_key).chain(route.refusals) {
        let refusal = json!({
            "description": reason(*status),
            "content": content("application/json", reference("CloudErrorBody")),
        });
        responses.insert(status.to_string(), refusal);
    }
    Value::Object(responses)
}

fn reason(status: u16) -> &'static str {
    let known = axum::http::StatusCode::from_u16(status).ok();
    known.and_then(|status| status.canonical_reason()).unwrap_or("Refused")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(target)) = object.get("$ref") {
                    found.insert(target.clone());
                }
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_has_its_schema() {
        let document = document();
        let mut found = BTreeSet::new();
        references(document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for target in found {
            assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
        }
    }

    #[test]
    fn operation_ids_are_unique() {
        let names: BTreeSet<_> = ROUTES.iter().map(|route| route.id).collect();
        assert_eq!(names.len(), ROUTES.len());
    }
}
