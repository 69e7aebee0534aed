//! Handles and operations of the cloud client: which requests they make, and what is refused without one.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::service::{
    ID, answer, calls, client, config, exec_stream, get, refused, requests, serving, soon, with_status,
};
use microsandbox_core::backend::CreateRequest;
use microsandbox_core::config::Wire;
use microsandbox_core::model::{ExecOptions, SandboxSpec, SandboxStatus, VolumeConfig, VolumeKind, VolumeQuery};
use microsandbox_core::{MicrosandboxError, Sandbox};
use serde_json::json;
use wiremock::matchers::{any, method, path, query_param, query_param_is_missing};
use wiremock::{Mock, MockServer, ResponseTemplate};

const BY_NAME: &str = "/v1/sandboxes/by-name/box";

fn fine(status: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(answer(status))
}

/// Case 79: `start` travels both ways; the live sandbox keeps the caller's configuration.
#[tokio::test]
async fn create_says_whether_to_start() {
    for wire in [Wire::Spec, Wire::Flat] {
        let server = MockServer::start().await;
        Mock::given(query_param("start", "true")).respond_with(fine("running")).mount(&server).await;
        let without = Mock::given(method("POST"));
        let without = match wire {
            // Left out, not false.
            Wire::Spec => without.and(query_param_is_missing("start")).and(query_param_is_missing("wait_for")),
            Wire::Flat => without.and(query_param("start", "false")),
        };
        without.respond_with(fine("created")).mount(&server).await;
        let backend = client(&server.uri(), wire);
        for start in [true, false] {
            let mut wanted = config();
            wanted.spec.runtime.workdir = Some("/mine".into());
            let request = CreateRequest { config: wanted, start, owner: None, progress: None };
            let sandbox = soon(backend.sandboxes().create(request)).await.unwrap();
            assert_eq!(sandbox.spec.runtime.workdir.as_deref(), Some("/mine"));
        }
        assert_eq!(calls(&server).await, ["POST /v1/sandboxes"; 2]);
    }
}

/// Case 80.
#[tokio::test]
async fn both_ways_to_start_go_by_name() {
    for detached in [true, false] {
        let server = with_status("running").await;
        let sandbox = soon(Sandbox::start(&client(&server.uri(), Wire::Flat), "box", detached)).await.unwrap();
        assert!(!sandbox.owns_lifecycle());
        assert_eq!(calls(&server).await, [format!("POST {BY_NAME}/start")]);
        let sent = requests(&server).await.pop().unwrap();
        assert_eq!(sent.body, b"{}");
    }
}

/// Case 81: what is absent is not sent.
#[tokio::test]
async fn a_list_sends_what_was_given() {
    for (wire, query) in [(Wire::Spec, Some("limit=20")), (Wire::Flat, None)] {
        let server = serving(ResponseTemplate::new(200).set_body_json(json!({"data": [], "next_cursor": null}))).await;
        let page = soon(Sandbox::list(&client(&server.uri(), wire), Default::default())).await.unwrap();
        assert!(page.sandboxes.is_empty() && page.next_cursor.is_none());
        assert_eq!(requests(&server).await[0].url.query(), query);
    }
}

/// Case 85.
#[tokio::test]
async fn operations_that_no_dialect_has() {
    let server = MockServer::start().await;
    for wire in [Wire::Spec, Wire::Flat] {
        let backend = client(&server.uri(), wire);
        let (sandboxes, spec) = (backend.sandboxes(), SandboxSpec::default());
        let table = [
            (refused(soon(sandboxes.kill("box")).await), "cloud sandbox kill", "when cloud forced-stop lands"),
            (refused(soon(sandboxes.drain("box")).await), "cloud sandbox drain", "when cloud graceful-drain lands"),
            (refused(soon(sandboxes.metrics("box", &spec)).await), "Sandbox::metrics", "when cloud metrics land"),
            (refused(soon(sandboxes.agent("box").ping()).await), "Sandbox::ping", "on the local backend"),
            (refused(soon(sandboxes.agent("box").touch()).await), "Sandbox::touch", "on the local backend"),
        ];
        for ((feature, when), expected, hint) in table {
            assert_eq!((feature.as_str(), when.as_str()), (expected, hint));
        }
    }
    let backend = client(&server.uri(), Wire::Flat);
    for options in [
        ExecOptions::default(),
        // A terminal: what attach asks for.
        ExecOptions { tty: true, ..ExecOptions::default() },
    ] {
        let live = exec_stream(&backend, "sh", options).await;
        assert_eq!(refused(live), ("Sandbox::exec_stream".into(), "when cloud exec lands".into()));
    }
    assert!(requests(&server).await.is_empty());
}

/// Case 87: the view of files is there; each of its calls is refused by its own name.
#[tokio::test]
async fn every_file_call_of_the_flat_dialect() {
    let server = with_status("running").await;
    let backend = client(&server.uri(), Wire::Flat);
    let sandbox = soon(Sandbox::create(&backend, config())).await.unwrap();
    let before = requests(&server).await.len();
    let fs = sandbox.fs();
    let host = Path::new("/nowhere");
    let table = [
        (refused(soon(fs.read("/f", u64::MAX)).await), "read"),
        (refused(soon(fs.read_stream("/f")).await), "read_stream"),
        (refused(soon(fs.write("/f", "x".into())).await), "write"),
        (refused(soon(fs.write_stream("/f")).await), "write_stream"),
        (refused(soon(fs.list("/")).await), "list"),
        (refused(soon(fs.stat("/", true)).await), "stat"),
        (refused(soon(fs.mkdir("/d")).await), "mkdir"),
        (refused(soon(fs.remove("/f", false)).await), "remove"),
        (refused(soon(fs.remove("/d", true)).await), "remove"),
        (refused(soon(fs.copy("/a", "/b")).await), "copy"),
        (refused(soon(fs.rename("/a", "/b")).await), "rename"),
        (refused(soon(fs.exists("/f")).await), "exists"),
        (refused(soon(fs.copy_from_host(host, "/f", None)).await), "copy_from_host"),
        (refused(soon(fs.copy_to_host("/f", host, None)).await), "copy_to_host"),
    ];
    for ((feature, when), call) in table {
        assert_eq!((feature, when.as_str()), (format!("SandboxFs::{call}"), "when cloud guest fs lands"));
    }
    assert_eq!(requests(&server).await.len(), before);
}

/// Case 88.
#[tokio::test]
async fn every_volume_call_of_the_flat_dialect() {
    let server = MockServer::start().await;
    let backend = client(&server.uri(), Wire::Flat);
    let volumes = backend.volumes();
    let files = volumes.files("v");
    let config = VolumeConfig { name: "v".into(), ..VolumeConfig::default() };
    let table = [
        (refused(soon(volumes.create(config)).await), "Volume::create"),
        (refused(soon(volumes.get("v")).await), "Volume::get"),
        (refused(soon(volumes.get_default()).await), "Volume::get_default"),
        (refused(soon(volumes.list(VolumeQuery::default())).await), "Volume::list"),
        (refused(soon(volumes.remove("v")).await), "Volume::remove"),
        (refused(volumes.path("v")), "Volume::path"),
        (refused(soon(files.read("f", u64::MAX)).await), "VolumeFs::read"),
        (refused(soon(files.read_stream("f")).await), "VolumeFs::read_stream"),
        (refused(soon(files.write("f", "x".into())).await), "VolumeFs::write"),
        (refused(soon(files.write_stream("f")).await), "VolumeFs::write_stream"),
        (refused(soon(files.list("d")).await), "VolumeFs::list"),
        (refused(soon(files.stat("f", true)).await), "VolumeFs::stat"),
        (refused(soon(files.mkdir("d")).await), "VolumeFs::mkdir"),
        (refused(soon(files.remove("f", true)).await), "VolumeFs::remove"),
        (refused(soon(files.copy("a", "b")).await), "VolumeFs::copy"),
        (refused(soon(files.rename("a", "b")).await), "VolumeFs::rename"),
        (refused(soon(files.exists("f")).await), "VolumeFs::exists"),
    ];
    for ((feature, when), expected) in table {
        assert_eq!((feature.as_str(), when.as_str()), (expected, "when cloud volumes ship"));
    }
    assert!(requests(&server).await.is_empty());
}

/// Case 89: each its own feature, from what the handle already knows.
#[tokio::test]
async fn what_a_handle_of_the_cloud_refuses() {
    let server = with_status("running").await;
    let handle = get(&client(&server.uri(), Wire::Flat)).await.unwrap();
    let table = [
        (refused(handle.config()), "SandboxHandle::config on cloud", "when SandboxConfig is the cloud wire shape"),
        (refused(soon(handle.metrics()).await), "SandboxHandle::metrics on cloud", "when cloud metrics land"),
        (refused(soon(handle.connect(None)).await), "SandboxHandle::connect on cloud", "when cloud attach lands"),
    ];
    for ((feature, when), expected, hint) in table {
        assert_eq!((feature.as_str(), when.as_str()), (expected, hint));
    }
    assert_eq!(requests(&server).await.len(), 1);
    assert_eq!(handle.config_json(), r#"{"image":"alpine"}"#);
    assert!(handle.cloud().is_some() && handle.local().is_none());
}

/// The dialect `spec` connects without a request to the agent, and only to what was running.
#[tokio::test]
async fn connect_needs_a_sandbox_that_was_running() {
    for (status, ok) in [("running", true), ("stopping", true), ("created", false), ("stopped", false)] {
        let server = with_status(status).await;
        let handle = get(&client(&server.uri(), Wire::Spec)).await.unwrap();
        match soon(handle.connect(None)).await {
            Ok(sandbox) => assert!(ok && sandbox.id() == ID && !sandbox.owns_lifecycle()),
            Err(error) => assert!(!ok && matches!(error, MicrosandboxError::SandboxNotRunning { .. }), "{error:?}"),
        }
    }
}

/// Case 90: in this order of preference, not the latest.
#[tokio::test]
async fn the_time_of_the_last_change_is_an_order_of_preference() {
    let times = [(None, None, "2026-01-01"), (Some("2026-03-01"), None, "2026-03-01")];
    for (started, stopped, expected) in
        times.into_iter().chain([(Some("2026-03-01"), Some("2026-02-01"), "2026-02-01")])
    {
        let mut body = answer("running");
        let time = |day: Option<&str>| day.map(|day| format!("{day}T00:00:00Z"));
        body["started_at"] = json!(time(started));
        body["stopped_at"] = json!(time(stopped));
        let server = serving(ResponseTemplate::new(200).set_body_json(body)).await;
        let handle = get(&client(&server.uri(), Wire::Spec)).await.unwrap();
        assert!(handle.updated_at().unwrap().to_rfc3339().starts_with(expected));
        assert!(handle.created_at().unwrap().to_rfc3339().starts_with("2026-01-01"));
    }
}

/// Case 91: a look before the request; nothing is asked of what has ended.
#[tokio::test]
async fn a_stop_looks_first() {
    for status in ["stopped", "failed"] {
        let server = with_status(status).await;
        let handle = get(&client(&server.uri(), Wire::Spec)).await.unwrap();
        soon(handle.stop(None)).await.unwrap();
        soon(handle.kill(None)).await.unwrap();
        soon(handle.request_stop()).await.unwrap();
        assert!(calls(&server).await.iter().all(|call| call.starts_with("GET")));
    }
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(fine("running")).up_to_n_times(2).mount(&server).await;
    Mock::given(method("GET")).respond_with(fine("stopped")).mount(&server).await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    let handle = get(&client(&server.uri(), Wire::Spec)).await.unwrap();
    soon(handle.stop(None)).await.unwrap();
    let look = format!("GET {BY_NAME}");
    assert_eq!(calls(&server).await, [look.clone(), look.clone(), format!("POST {BY_NAME}/stop"), look]);
    assert_eq!(handle.status_snapshot(), SandboxStatus::Running);
}

/// Case 92: there is no force here, and the error says so.
#[tokio::test]
async fn a_stop_that_never_ends_surfaces_that_there_is_no_force() {
    let server = with_status("running").await;
    let handle = get(&client(&server.uri(), Wire::Spec)).await.unwrap();
    let began = Instant::now();
    let (feature, _) = refused(soon(handle.stop(Some(Duration::from_millis(300)))).await);
    assert_eq!(feature, "cloud sandbox kill");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(refused(soon(handle.stop(Some(Duration::ZERO))).await).0, "cloud sandbox kill");
    let stops = calls(&server).await.into_iter().filter(|call| call.ends_with("/stop")).count();
    assert_eq!(stops, 1);
}

/// Case 93.
#[tokio::test]
async fn a_removal_asks_nothing_first() {
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(fine("running")).mount(&server).await;
    Mock::given(method("DELETE")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    let handle = get(&client(&server.uri(), Wire::Spec)).await.unwrap();
    soon(handle.remove()).await.unwrap();
    assert_eq!(calls(&server).await, [format!("GET {BY_NAME}"), format!("DELETE {BY_NAME}")]);
    // It is this sandbox that goes, not a later one of its name.
    assert_eq!(requests(&server).await[1].headers["x-msb-expected-id"], ID);
}

/// Case 95: either name of it, the newer one first; bounded, and nothing that moves a cursor.
#[tokio::test]
async fn the_last_error_is_the_services_text() {
    let shapes = [
        (json!({"last_failure_message": "out of room", "last_error": "older"}), Some("out of room")),
        (json!({"last_failure_message": null, "last_error": "older"}), Some("older")),
        (json!({}), None),
        (json!({"last_error": "\u{1b}[2Jx"}), Some(r"\u{1b}[2Jx")),
    ];
    for (shape, expected) in shapes {
        let mut body = answer("failed");
        body.as_object_mut().unwrap().extend(shape.as_object().unwrap().clone());
        let server = serving(ResponseTemplate::new(200).set_body_json(body)).await;
        assert_eq!(get(&client(&server.uri(), Wire::Spec)).await.unwrap().last_error_snapshot(), expected);
    }
}

/// Leaving a context: asking has to do, and what is left is removed.
#[tokio::test]
async fn a_sandbox_is_destroyed_without_force() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path("/v1/sandboxes")).respond_with(fine("running")).mount(&server).await;
    Mock::given(method("GET")).respond_with(fine("running")).up_to_n_times(3).mount(&server).await;
    Mock::given(method("GET")).respond_with(fine("stopped")).mount(&server).await;
    Mock::given(any()).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    let sandbox = soon(Sandbox::create(&client(&server.uri(), Wire::Spec), config())).await.unwrap();
    soon(sandbox.destroy(true, None)).await.unwrap();
    let called = calls(&server).await;
    assert!(called.contains(&format!("POST {BY_NAME}/stop")), "{called:?}");
    assert_eq!(called.last().unwrap(), &format!("DELETE {BY_NAME}"));
}

/// Replacing, in steps; what cannot be created removes nothing.
#[tokio::test]
async fn a_replacement_checks_before_it_removes() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path("/v1/sandboxes")).respond_with(fine("running")).mount(&server).await;
    Mock::given(method("GET")).respond_with(fine("running")).up_to_n_times(2).mount(&server).await;
    Mock::given(method("GET")).respond_with(fine("stopped")).mount(&server).await;
    Mock::given(any()).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    let backend = client(&server.uri(), Wire::Spec);
    let mut wanted = config();
    wanted.replace_existing = true;
    let mut impossible = wanted.clone();
    impossible.spec.runtime.hostname = Some("h".into());
    refused(soon(Sandbox::create(&backend, impossible)).await);
    assert!(requests(&server).await.is_empty());
    soon(Sandbox::create(&backend, wanted)).await.unwrap();
    let changes: Vec<_> = calls(&server).await.into_iter().filter(|call| !call.starts_with("GET")).collect();
    let stop = format!("POST {BY_NAME}/stop");
    assert_eq!(changes, [stop, format!("DELETE {BY_NAME}"), "POST /v1/sandboxes".into()]);
}

/// Volumes of the dialect `spec`: by name through the list; sizes in GiB; no disks; no path.
#[tokio::test]
async fn volumes_by_name_and_in_whole_gib() {
    let volume = |name: Option<&str>, id: &str| {
        json!({"id": id, "name": name, "kind": "managed", "status": "active", "used_bytes": 5,
            "capacity_bytes": 2_u64 << 30, "labels": {}, "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z"})
    };
    let server = MockServer::start().await;
    let all = json!([volume(None, "v0"), volume(Some("data"), "v1"), volume(Some("data2"), "v2")]);
    let list = ResponseTemplate::new(200).set_body_json(all);
    Mock::given(method("GET")).and(path("/v1/volumes")).respond_with(list).mount(&server).await;
    let made = ResponseTemplate::new(200).set_body_json(volume(Some("data3"), "v3"));
    Mock::given(method("POST")).and(path("/v1/volumes")).respond_with(made).mount(&server).await;
    Mock::given(method("DELETE")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let backend = client(&server.uri(), Wire::Spec);
    let volumes = backend.volumes();
    let found = soon(volumes.get("data")).await.unwrap();
    assert_eq!((found.id.as_deref(), found.quota_mib, found.used_bytes), (Some("v1"), Some(2048), 5));
    soon(volumes.remove("data2")).await.unwrap();
    assert_eq!(calls(&server).await.pop().unwrap(), "DELETE /v1/volumes/v2");
    let missing = soon(volumes.files("data9").read("f", u64::MAX)).await;
    assert!(matches!(missing, Err(MicrosandboxError::VolumeNotFound(name)) if name == "data9"));
    let sized =
        |quota_mib| VolumeConfig { name: "data3".into(), quota_mib: Some(quota_mib), ..VolumeConfig::default() };
    soon(volumes.create(sized(3072))).await.unwrap();
    let body: serde_json::Value = requests(&server).await.last().unwrap().body_json().unwrap();
    assert_eq!(body, json!({"name": "data3", "labels": {}, "capacity_gib": 3}));
    let before = requests(&server).await.len();
    for odd in [0, 1, 1023, 1025] {
        let result = soon(volumes.create(sized(odd))).await;
        assert!(matches!(result, Err(MicrosandboxError::InvalidConfig(_))), "{odd}");
    }
    let disk = VolumeConfig { name: "d".into(), kind: VolumeKind::Disk, ..VolumeConfig::default() };
    refused(soon(volumes.create(disk)).await);
    refused(volumes.path("data"));
    assert_eq!(requests(&server).await.len(), before);
}
