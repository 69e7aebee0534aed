//! Requests and responses in both dialects, over the memory backend.

use crate::support::Running;
use base64::Engine;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::SandboxStatus;
use microsandbox_server::Limits;
use serde_json::json;

const SPEC: &str = r#"{"name": "a", "image": {"type": "oci", "reference": "host"}, "labels": {"team": "x"}}"#;
const START: &str = "/v1/sandboxes?start=true&wait_for=running&wait_timeout=90";

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_created_stopped_started_and_removed() {
    let server = Running::start(Limits::default()).await;
    let made = server.ask("POST", START, Some(SPEC)).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let made = made.json();
    assert_eq!((made["name"].as_str(), made["status"].as_str()), (Some("a"), Some("running")));
    assert_eq!(made["spec"]["image"], "host");
    assert_eq!(made["config"]["image"], "host");
    assert_eq!(made["last_failure_message"], made["last_error"]);
    let id = made["id"].as_str().unwrap();
    assert_eq!((id.len(), made["org_id"].as_str().unwrap().len()), (36, 36));
    for path in [format!("/v1/sandboxes/{id}"), "/v1/sandboxes/by-name/a".into()] {
        assert_eq!(server.ask("GET", &path, None).await.json()["id"], id);
    }
    assert_eq!(server.ask("POST", START, Some(SPEC)).await.code(), "name_already_exists");
    assert_eq!(server.ask("DELETE", "/v1/sandboxes/by-name/a", None).await.code(), "sandbox_still_running");
    let stopped = server.ask("POST", &format!("/v1/sandboxes/{id}/stop"), Some("{}")).await;
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    let backend: microsandbox_core::backend::SharedBackend = std::sync::Arc::new(server.backend.clone());
    let handle = microsandbox_core::Sandbox::get(&backend, &server.stored("a")).await;
    let ended =
        tokio::time::timeout(crate::support::DEADLINE, handle.unwrap().wait_until_stopped()).await.unwrap().unwrap();
    assert_eq!(ended.status, SandboxStatus::Stopped);
    let again = server.ask("POST", "/v1/sandboxes/by-name/a/start?wait_for=running", Some("{}")).await;
    assert_eq!(again.json()["status"], "running", "{}", again.text());
    assert_eq!(server.ask("POST", "/v1/sandboxes/by-name/a/stop", None).await.status, 200);
    let removed = loop {
        let removed = server.ask("DELETE", &format!("/v1/sandboxes/{id}"), None).await;
        if removed.status != 409 {
            break removed;
        }
    };
    assert!(removed.json()["message"].as_str().unwrap().contains('a'));
    assert_eq!(server.ask("GET", &format!("/v1/sandboxes/{id}"), None).await.code(), "sandbox_not_found");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flat_creates_runs_and_reads_logs() {
    let server = Running::start(Limits::default()).await;
    let made = server.ask("POST", "/v1/sandboxes", Some(r#"{"name": "f", "image": "host", "env": {"A": "1"}}"#)).await;
    // The names of variables, not their values.
    assert_eq!(made.json()["config"]["env"], json!({ "A": "" }), "{}", made.text());
    assert_eq!(made.json()["spec"]["env"], json!([{ "key": "A", "value": "" }]), "{}", made.text());
    let body = json!({ "cmd": "sh", "args": ["-c", "echo out"] }).to_string();
    let ran = server.ask("POST", "/v1/sandboxes/by-name/f/exec", Some(&body)).await;
    assert_eq!(ran.status, 200, "{}", ran.text());
    let out = base64::engine::general_purpose::STANDARD.decode(ran.json()["stdout"].as_str().unwrap()).unwrap();
    assert_eq!((ran.json()["exit_code"].as_i64(), out.as_slice()), (Some(0), b"out\n".as_slice()));
    for (secs, status) in [(-1.0, 400), (0.0, 400), (1e300, 200)] {
        let body = json!({ "cmd": "true", "timeout_secs": secs }).to_string();
        let timed = server.ask("POST", "/v1/sandboxes/by-name/f/exec", Some(&body)).await;
        assert_eq!(timed.status, status, "{secs}: {}", timed.text());
        assert!(status == 200 || timed.text().contains("timeout_secs must be greater than 0"), "{}", timed.text());
    }
    let missing = server.ask("POST", "/v1/sandboxes/by-name/f/exec", Some(r#"{"cmd": "no-such-program"}"#)).await;
    assert_eq!((missing.status, missing.code().as_str()), (422, "exec_failed"), "{}", missing.text());
    let page = server.ask("GET", "/v1/sandboxes/by-name/f/logs?tail=5", None).await.json();
    let entry = page["entries"].as_array().unwrap().iter().find(|entry| entry["text"] == "out\n").unwrap().clone();
    let key = format!("Bearer {}", server.key);
    let headers = [("authorization", key.as_str()), ("accept", "text/event-stream")];
    let path = "/v1/sandboxes/by-name/f/logs?follow=false";
    let events = server.ask_with("GET", path, &headers, None).await;
    assert!(events.head.contains("content-type: text/event-stream"), "{}", events.head);
    assert!(events.text().contains("event: log") && events.text().contains("event: end"), "{}", events.text());
    // A stream that resumes after the entry does not repeat it.
    let cursor = entry["cursor"].as_str().unwrap();
    let headers = [headers[0], headers[1], ("last-event-id", cursor)];
    assert!(!server.ask_with("GET", path, &headers, None).await.text().contains("\"out"));
    let headers = [headers[0], headers[1], ("last-event-id", "?")];
    assert_eq!(server.ask_with("GET", path, &headers, None).await.status, 400);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_a_limit_and_a_label_filter() {
    let server = Running::start(Limits::default()).await;
    for (name, team) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let body = json!({ "name": name, "image": { "type": "oci", "reference": "host" }, "labels": { "team": team } });
        assert_eq!(server.ask("POST", START, Some(&body.to_string())).await.status, 200);
    }
    let first = server.ask("GET", "/v1/sandboxes?limit=2", None).await.json();
    assert_eq!((first["data"].as_array().unwrap().len(), first["has_more"].as_bool()), (2, Some(true)));
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = server.ask("GET", &format!("/v1/sandboxes?limit=2&cursor={cursor}"), None).await.json();
    assert_eq!((second["data"][0]["name"].as_str(), second["has_more"].as_bool()), (Some("a"), Some(false)));
    assert!(second["next_cursor"].is_null());
    let labelled = server.ask("GET", "/v1/sandboxes?labels=%7B%22team%22%3A%22y%22%7D", None).await.json();
    assert_eq!((labelled["data"].as_array().unwrap().len(), labelled["data"][0]["name"].as_str()), (1, Some("b")));
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=***", "labels=[1]", "labels=%FF", "limit=1&limit=2"] {
        assert_eq!(server.ask("GET", &format!("/v1/sandboxes?{bad}"), None).await.status, 400, "{bad}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_and_finding_by_id_read_no_other_record() {
    let server = Running::start(Limits { sandboxes: 4, ..Limits::default() }).await;
    // A list would fail: nothing below the limit may need one.
    server.backend.fail_next("list", MicrosandboxError::Runtime("listed".into()));
    for name in ["one", "two", "three"] {
        let made =
            server.ask("POST", "/v1/sandboxes", Some(&json!({ "name": name, "image": "host" }).to_string())).await;
        assert_eq!(made.status, 200, "{}", made.text());
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let found = server.ask("GET", &format!("/v1/sandboxes/{id}"), None).await;
        assert_eq!(found.json()["name"], name, "{}", found.text());
    }
    let absent = "/v1/sandboxes/00000000-0000-0000-0000-000000000000";
    assert_eq!(server.ask("GET", absent, None).await.code(), "sandbox_not_found");
    assert_eq!(server.ask("GET", "/v1/sandboxes", None).await.status, 500, "something listed before");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_creation_gets_the_first_result() {
    let server = Running::start(Limits::default()).await;
    let key = format!("Bearer {}", server.key);
    let headers = [("authorization", key.as_str()), ("idempotency-key", "once")];
    let first = server.ask_with("POST", START, &headers, Some(SPEC)).await;
    let second = server.ask_with("POST", START, &headers, Some(SPEC)).await;
    assert_eq!((second.status, second.json()["id"].clone()), (200, first.json()["id"].clone()));
    let other = SPEC.replace("\"a\"", "\"b\"");
    assert_eq!(server.ask_with("POST", START, &headers, Some(&other)).await.status, 422);
    assert_eq!(server.ask("GET", "/v1/sandboxes/by-name/b", None).await.status, 404);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_a_client_error() {
    let server = Running::start(Limits::default()).await;
    let cases = [
        ("POST", "/v1/sandboxes", Some("{half"), 400),
        ("POST", "/v1/sandboxes", Some("[]"), 400),
        ("POST", "/v1/sandboxes", Some(r#"{"name": "", "image": "host"}"#), 400),
        ("POST", "/v1/sandboxes", Some(r#"{"name": "../x", "image": "host"}"#), 400),
        ("POST", "/v1/sandboxes?wait_timeout=5", Some(SPEC), 400),
        ("POST", "/v1/sandboxes?wait_for=stopped", Some(SPEC), 400),
        ("POST", "/v1/sandboxes", Some(r#"{"name": "a", "image": {"type": "bind", "path": "/"}}"#), 422),
        ("GET", "/v1/sandboxes/by-name/%FF", None, 400),
        ("GET", "/v1/sandboxes/by-name/none", None, 404),
        ("GET", "/v1/sandboxes/no-uuid", None, 404),
        ("GET", "/nothing", None, 404),
        ("PATCH", "/v1/sandboxes", None, 405),
        ("GET", "/v1/volumes/v/files", None, 400),
        ("GET", "/v1/volumes/no-volume/files/stat", None, 400),
        ("GET", "/v1/sandboxes/00000000-0000-0000-0000-000000000000/agent", None, 426),
    ];
    for (method, path, body, status) in cases {
        let reply = server.ask(method, path, body).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert!(!reply.code().is_empty(), "{method} {path}");
    }
    let key = format!("Bearer {}", server.key);
    let headers = [("authorization", key.as_str()), ("content-type", "text/plain")];
    assert_eq!(server.ask_with("POST", "/v1/sandboxes", &headers, Some(SPEC)).await.status, 415);
    server.end().await;
}
