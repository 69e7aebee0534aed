//! Cases of the backends' specification, section 11, that no other file holds; `docs/backend-cases.md` is the whole table.

use std::sync::Arc;
use std::time::Duration;

use crate::home::{Home, assert_passed, finish, raw, spec, timed};
use crate::service::{self, answer, calls, client, config, get, requests, serving, soon};
use crate::warnings::Warnings;
use microsandbox_core::backend::SharedBackend;
use microsandbox_core::config::{LocalConfig, Wire};
use microsandbox_core::model::{EnvVar, ImageSource, LogLevel, SandboxSpec, SandboxStatus, VolumeConfig};
use microsandbox_core::{MicrosandboxError, Sandbox};
use microsandbox_fake::MemoryBackend;
use microsandbox_local::LocalBackend;
use serde_json::{Value, json};
use wiremock::ResponseTemplate;

// case: 47
#[test]
fn naive_times_are_utc_and_absent_ones_are_none() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        store.insert_sandbox(&spec("a"), SandboxStatus::Stopped).await.unwrap();
        let db = raw::raw(&home.database()).await;
        raw::run(&db, "UPDATE sandbox SET created_at = '2026-01-02 03:04:05', updated_at = NULL").await;
        raw::close(db).await;
        let (row, _) = store.sandbox("a").await.unwrap().unwrap();
        assert_eq!(row.created_at.unwrap().to_rfc3339(), "2026-01-02T03:04:05+00:00");
        assert_eq!(row.updated_at, None);
    });
}

/// A creation that is undone late finds another volume of its name.
#[test]
fn a_volume_is_taken_back_by_its_identity() {
    timed(async {
        let home = tempfile::tempdir().unwrap();
        let local = LocalBackend::from_config(LocalConfig::default_for_home(home.path().join("home")));
        let backends: [SharedBackend; 2] = [Arc::new(MemoryBackend::new()), local.into()];
        for backend in backends {
            let volumes = backend.volumes();
            let create = || volumes.create(VolumeConfig { name: "data".into(), ..VolumeConfig::default() });
            let first = create().await.unwrap();
            volumes.remove("data").await.unwrap();
            let second = create().await.unwrap();
            volumes.take_back(&first).await.unwrap();
            assert!(volumes.get("data").await.unwrap().is_same(&second));
            volumes.take_back(&second).await.unwrap();
            assert!(matches!(volumes.get("data").await, Err(MicrosandboxError::VolumeNotFound(_))));
            volumes.take_back(&second).await.unwrap();
        }
    });
}

/// The handle was taken while it ran: what counts is what it is now. What is gone is not found.
// case: 62
#[test]
fn a_removal_uses_the_current_state() {
    timed(async {
        let backend: SharedBackend = Arc::new(MemoryBackend::new());
        let sandbox = Sandbox::create(&backend, config()).await.unwrap();
        let handle = Sandbox::get(&backend, "box").await.unwrap();
        assert!(matches!(handle.remove().await, Err(MicrosandboxError::SandboxStillRunning(name)) if name == "box"));
        sandbox.stop(None).await.unwrap();
        assert_eq!(handle.status_snapshot(), SandboxStatus::Running);
        handle.remove().await.unwrap();
        assert!(matches!(handle.remove().await, Err(MicrosandboxError::SandboxNotFound(_))));
    });
}

/// One warning where a stop is forced, none where there is nothing to force. (That the kill follows: `handle_rules.rs`.)
// case: 50
#[tokio::test]
async fn a_stop_that_is_forced_warns_once() {
    for (status, expected) in [("running", 1), ("stopped", 0)] {
        let server = service::with_status(status).await;
        let handle = get(&client(&server.uri(), Wire::Spec)).await.unwrap();
        let warnings = Warnings::of("microsandbox_core::lifecycle");
        let guard = tracing::subscriber::set_default(warnings.clone());
        let stopped = soon(handle.stop(Some(Duration::from_millis(150)))).await;
        drop(guard);
        assert_eq!((stopped.is_err(), warnings.count()), (expected == 1, expected), "{status}");
    }
}

/// Every field that a specification of the service has, from either shape.
fn sent(wire: Wire) -> Value {
    let fields = json!({
        "hostname": "h", "workdir": "/w", "shell": "/bin/zsh", "user": "u", "scripts": {"s": "echo"},
        "entrypoint": ["e", "f"], "log_level": "trace",
    });
    let lifecycle = json!({"max_duration_secs": 5, "idle_timeout_secs": 6, "ephemeral": true});
    match wire {
        Wire::Spec => json!({
            "image": {"type": "oci", "reference": "alpine:3"}, "resources": {"vcpus": 3, "memory_mib": 256},
            "env": [{"key": "A", "value": "1"}], "labels": {"l": "v"}, "runtime": fields, "lifecycle": lifecycle,
        }),
        Wire::Flat => {
            let mut flat = json!({"image": "alpine:3", "vcpus": 3, "memory_mib": 256, "env": {"A": "1"}});
            for part in [fields, lifecycle] {
                flat.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            }
            flat
        }
    }
}

/// What a service received for a configuration comes back from it.
// case: 73
#[tokio::test]
async fn an_answer_brings_every_field_back() {
    for wire in [Wire::Spec, Wire::Flat] {
        let mut body = answer("running");
        body["spec"] = Value::Null;
        body[if wire == Wire::Spec { "spec" } else { "config" }] = sent(wire);
        let server = serving(ResponseTemplate::new(200).set_body_json(body)).await;
        let sandbox = soon(Sandbox::start(&client(&server.uri(), wire), "box", true)).await.unwrap();
        let SandboxSpec { name, image, resources, runtime, env, labels, lifecycle, .. } = sandbox.spec();
        assert_eq!((name.as_str(), resources.cpus, resources.memory_mib), ("box", 3, 256));
        assert_eq!(*image, ImageSource::Oci { reference: "alpine:3".into() });
        assert_eq!((runtime.hostname.as_deref(), runtime.user.as_deref()), (Some("h"), Some("u")));
        assert_eq!((runtime.workdir.as_deref(), runtime.shell.as_deref()), (Some("/w"), Some("/bin/zsh")));
        assert_eq!(runtime.scripts.get("s").map(String::as_str), Some("echo"));
        assert_eq!(runtime.entrypoint, Some(vec!["e".to_string(), "f".to_string()]));
        assert_eq!(runtime.log_level, Some(LogLevel::Trace));
        assert_eq!(*env, [EnvVar { key: "A".into(), value: "1".into() }]);
        assert_eq!(labels.get("l").map(String::as_str), (wire == Wire::Spec).then_some("v"));
        assert_eq!((lifecycle.max_duration_secs, lifecycle.idle_timeout_secs), (Some(5.0), Some(6.0)));
        assert!(lifecycle.ephemeral);
    }
}

/// A document that cannot be read and a home that is not there do not matter to them, and none is made.
// case: 42, 78
#[test]
fn configurations_need_no_disk() {
    let home = Home::new();
    let (document, nowhere) = (home.path().join("config.json"), home.path().join("nowhere"));
    std::fs::write(&document, "{ broken").unwrap();
    let mut child = home.child("backend_cases::child_of_a_broken_home");
    child.env("MSB_CONFIG_PATH", &document).env("MSB_HOME", &nowhere).env("HOME", &nowhere);
    child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    assert_passed(&finish(child.spawn().unwrap()), "no disk");
    assert!(!nowhere.exists());
}

#[tokio::test]
#[ignore = "a child of configurations_need_no_disk"]
async fn child_of_a_broken_home() {
    let broken = microsandbox_core::config::LocalConfig::load();
    assert!(broken.is_err(), "whoever looked would fail");
    let image = serde_json::to_value(config().spec.image).unwrap();
    let stored: SandboxSpec = serde_json::from_value(json!({"name": "box", "image": image})).unwrap();
    assert_eq!(stored, config().spec);
    let mut body = answer("running");
    body["spec"] = sent(Wire::Spec);
    let server = serving(ResponseTemplate::new(200).set_body_json(body)).await;
    let sandbox = soon(Sandbox::start(&client(&server.uri(), Wire::Spec), "box", true)).await.unwrap();
    assert_eq!(sandbox.spec().resources.cpus, 3);
}

/// The key goes with each kind of request, and nothing but the header carries it.
// case: 83
#[tokio::test]
async fn the_key_goes_with_every_kind_of_request() {
    let server = serving(ResponseTemplate::new(200).set_body_json(answer("running"))).await;
    let backend = client(&server.uri(), Wire::Flat);
    soon(Sandbox::create(&backend, config())).await.unwrap();
    soon(Sandbox::start(&backend, "box", true)).await.unwrap();
    let handle = get(&backend).await.unwrap();
    soon(handle.request_stop()).await.unwrap();
    soon(handle.remove()).await.unwrap();
    let methods: Vec<_> = calls(&server).await.iter().map(|call| call.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(methods, ["POST", "POST", "GET", "GET", "POST", "DELETE"]);
    for request in requests(&server).await {
        assert_eq!(request.headers["authorization"], format!("Bearer {}", service::KEY).as_str());
        assert!(
            !request.url.as_str().contains("hunter2") && !String::from_utf8_lossy(&request.body).contains("hunter2")
        );
    }
}
