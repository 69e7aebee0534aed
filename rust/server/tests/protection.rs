//! Keys, scopes, limits and the shutdown.

use std::time::{Duration, Instant};

use crate::support::{DEADLINE, Reply, Running};
use chrono::{TimeDelta, Utc};
use microsandbox_core::config::Budget;
use microsandbox_server::{Limits, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HOST: &str = r#"{"name": "a", "image": "host"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_api_requires_a_key() {
    let server = Running::start(Limits::default()).await;
    let document = server.ask_with("GET", "/openapi.json", &[], None).await.json();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let open = ["/healthz", "/openapi.json"].contains(&path.as_str());
            let real = path.replace("{name}", "x").replace("{id}", "x");
            let reply = server.ask_with(&method.to_ascii_uppercase(), &real, &[], None).await;
            assert_eq!(reply.status, if open { 200 } else { 401 }, "{method} {path}");
            asked += 1;
        }
    }
    assert!(asked >= 30, "{asked}");
    for header in ["", "Bearer", "Bearer msb_live_wrong", "Basic dTpw", &format!("Bearer {} x", server.key)] {
        let reply = server.ask_with("GET", "/v1/sandboxes", &[("authorization", header)], None).await;
        assert_eq!((reply.status, reply.code().as_str()), (401, "invalid_api_key"), "{header}");
        assert!(reply.head.contains("www-authenticate: bearer"));
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_works_within_its_scopes_until_revoked_or_expired() {
    let server = Running::start(Limits::default()).await;
    let (_, reader) = server.keys.create("reader", &[Scope::SandboxesRead], None).unwrap();
    let bearer = format!("Bearer {reader}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(server.ask_with("GET", "/v1/sandboxes", &headers, None).await.status, 200);
    for (method, path, scope) in [
        ("POST", "/v1/sandboxes", "sandboxes:write"),
        ("POST", "/v1/sandboxes/by-name/a/exec", "exec"),
        ("GET", "/v1/sandboxes/x/agent", "exec"),
        ("GET", "/v1/volumes", "volumes:read"),
        ("POST", "/v1/volumes", "volumes:write"),
        ("GET", "/metrics", "metrics"),
    ] {
        let reply = server.ask_with(method, path, &headers, Some("{}")).await;
        assert_eq!((reply.status, reply.json()["error"]["details"]["scope"].as_str()), (403, Some(scope)));
    }
    server.keys.revoke("reader").unwrap();
    assert_eq!(server.ask_with("GET", "/v1/sandboxes", &headers, None).await.status, 401);
    let past = Utc::now() - TimeDelta::seconds(1);
    let (_, old) = server.keys.create("old", &Scope::ALL, Some(past)).unwrap();
    let bearer = format!("Bearer {old}");
    let reply = server.ask_with("GET", "/v1/sandboxes", &[("authorization", &bearer)], None).await;
    assert!(reply.status == 401 && reply.text().contains("expired"), "{}", reply.text());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_key_file_refuses_all_and_reveals_no_path() {
    let server = Running::start(Limits::default()).await;
    std::fs::write(server.keys.file(), "{half").unwrap();
    let reply = server.ask("GET", "/v1/sandboxes", None).await;
    assert_eq!((reply.status, reply.code().as_str()), (500, "internal"));
    assert!(!reply.text().contains(server.home().to_str().unwrap()));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_limited() {
    let limits = Limits { json_body: 1000, sandboxes: 1, ..Limits::default() };
    let server = Running::start(limits).await;
    let long = format!(r#"{{"name": "a", "image": "host", "hostname": "{}"}}"#, "x".repeat(1000));
    assert_eq!(server.ask("POST", "/v1/sandboxes", Some(&long)).await.status, 413);
    // The rest of the head is less than 1 KiB.
    for (kib, status) in [(31, 200), (33, 431), (64, 431)] {
        let huge = "x".repeat(kib << 10);
        assert_eq!(server.ask_with("GET", "/healthz", &[("x-long", &huge)], None).await.status, status, "{kib} KiB");
    }
    let many: Vec<(String, &str)> = (0..200).map(|n| (format!("x-{n}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(server.ask_with("GET", "/healthz", &many, None).await.status, 431);
    assert_eq!(server.ask("POST", "/v1/sandboxes", Some(HOST)).await.status, 200);
    let second = server.ask("POST", "/v1/sandboxes", Some(&HOST.replace("\"a\"", "\"b\""))).await;
    assert_eq!((second.status, second.code().as_str()), (429, "resource_exhausted"));
    assert!(second.head.contains("retry-after: 1"), "{}", second.head);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_senders_time_out() {
    let short = Duration::from_millis(300);
    let server = Running::start(Limits { head_timeout: short, body_timeout: short, ..Limits::default() }).await;
    let begun = Instant::now();
    let mut head = server.connect().await;
    head.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, head.read_to_end(&mut answer)).await.expect("a slow head never times out");
    assert!(begun.elapsed() < Duration::from_secs(10) && !answer.starts_with(b"HTTP/1.1 200"));
    let request = format!(
        "POST /v1/sandboxes HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         authorization: Bearer {}\r\ncontent-length: 50\r\n\r\n{{",
        server.key
    );
    let mut body = server.connect().await;
    body.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(Reply::read(&mut body).await.status, 408);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_requests_over_the_limit_are_refused() {
    let server = Running::start(Limits { connections: 1, ..Limits::default() }).await;
    let mut held = server.connect().await;
    let request = format!("GET /v1/sandboxes HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", server.key);
    held.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0u8; 12];
    held.read_exact(&mut first).await.unwrap();
    assert_eq!(server.ask_with("GET", "/healthz", &[], None).await.status, 503);
    drop(held);
    server.end().await;

    let server = Running::start(Limits { requests_per_key: 1, ..Limits::default() }).await;
    assert_eq!(server.ask("POST", "/v1/sandboxes", Some(HOST)).await.status, 200);
    let mut stream = server.connect().await;
    let follow = format!(
        "GET /v1/sandboxes/by-name/a/logs HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nauthorization: Bearer {}\r\n\r\n",
        server.key
    );
    stream.write_all(follow.as_bytes()).await.unwrap();
    stream.read_exact(&mut first).await.unwrap();
    let second = server.ask("GET", "/v1/sandboxes", None).await;
    assert_eq!((second.status, second.code().as_str()), (429, "too_many_requests"));
    drop(stream);
    let freed = async { while server.ask("GET", "/v1/sandboxes", None).await.status != 200 {} };
    tokio::time::timeout(DEADLINE, freed).await.expect("a closed stream still counts");
    server.end().await;
}

/// M12: strangers from one address, then silent ones.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_occupy_the_server() {
    let limits = Limits { connections: 8, first_byte_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = Running::start(limits).await;
    let mut idle = Vec::new();
    for _ in 0..32 {
        idle.push(server.connect().await);
        assert_eq!(server.ask("GET", "/v1/sandboxes", None).await.status, 200);
    }
    // Connections that send nothing are closed, without another that needs their place.
    let mut last = idle.pop().unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, last.read_to_end(&mut answer)).await.expect("a silent connection stays").unwrap();
    assert!(answer.is_empty());
    server.end().await;

    let server = Running::start(Limits { strangers_per_address: 2, ..Limits::default() }).await;
    let _idle = (server.connect().await, server.connect().await);
    let refused = async { while server.ask_with("GET", "/healthz", &[], None).await.status != 503 {} };
    tokio::time::timeout(DEADLINE, refused).await.expect("an address has no share");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_streams_and_accepts_no_connection() {
    let mut server = Running::start(Limits::default()).await;
    assert_eq!(server.ask("POST", "/v1/sandboxes", Some(HOST)).await.status, 200);
    let mut stream = server.connect().await;
    let follow = format!(
        "GET /v1/sandboxes/by-name/a/logs HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nauthorization: Bearer {}\r\n\r\n",
        server.key
    );
    stream.write_all(follow.as_bytes()).await.unwrap();
    let mut first = [0u8; 12];
    stream.read_exact(&mut first).await.unwrap();
    let begun = Instant::now();
    server.request_shutdown();
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the stream stays open").unwrap();
    // The chunked body is complete, but has no event that says that the log is.
    assert!(rest.ends_with(b"0\r\n\r\n"));
    assert!(!String::from_utf8_lossy(&rest).contains("event: end"));
    let (address, backend, stored) = (server.address, server.backend.clone(), server.stored("a"));
    server.end().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "the shutdown waited for the grace period");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let handle = microsandbox_core::Sandbox::get(&(std::sync::Arc::new(backend) as _), &stored).await.unwrap();
    assert_eq!(handle.status_snapshot(), microsandbox_core::model::SandboxStatus::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_has_route_and_key_name_but_no_key() {
    let server = Running::start(Limits::default()).await;
    let key = format!("Bearer {}", server.key);
    let headers = [("authorization", key.as_str()), ("x-request-id", "mine-1")];
    let reply = server.ask_with("GET", "/v1/sandboxes/by-name/secret-name", &headers, None).await;
    assert!(reply.head.contains("x-request-id: mine-1"), "{}", reply.head);
    let written = async {
        while !server.log.text().contains("mine-1") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, written).await.expect("no line in the access log");
    let line: serde_json::Value = serde_json::from_str(server.log.text().lines().next().unwrap()).unwrap();
    assert_eq!(line["route"], "/v1/sandboxes/by-name/{name}");
    assert_eq!((line["key"].as_str(), line["status"].as_u64()), (Some("test"), Some(404)));
    assert_eq!(line["bytes"].as_u64(), Some(reply.body.len() as u64));
    assert!(!server.log.text().contains(&server.key));
    let metrics = server.ask("GET", "/metrics", None).await.text();
    let counted = "msb_requests_total{method=\"GET\",route=\"/v1/sandboxes/by-name/{name}\",status=\"404\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    server.end().await;
}

/// Larger than what both sockets buffer.
const FILE: usize = 32 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_times_out_a_slow_one_does_not() {
    let limit = Duration::from_secs(1);
    let server = Running::start(Limits { write_timeout: limit, ..Limits::default() }).await;
    assert_eq!(server.ask("POST", "/v1/volumes", Some(r#"{"name": "v"}"#)).await.status, 200);
    let key = format!("Bearer {}", server.key);
    let path = "/v1/volumes/v/files/content";
    let headers =
        [("authorization", key.as_str()), ("x-msb-file-path", "Zg"), ("content-type", "application/octet-stream")];
    let written = server.ask_with("PUT", path, &headers, Some(&"x".repeat(FILE))).await;
    assert_eq!(written.status, 200, "{}", written.text());
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {key}\r\nx-msb-file-path: Zg\r\n\r\n"
    );

    let begun = Instant::now();
    let mut slow = server.connect().await;
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut block = vec![0u8; 1 << 20];
    let mut received = 0;
    loop {
        let count = tokio::time::timeout(DEADLINE, slow.read(&mut block)).await.unwrap().unwrap();
        if count == 0 {
            break;
        }
        received += count;
        // Each pause is shorter than the limit, their sum is longer.
        if received < FILE / 2 {
            tokio::time::sleep(limit / 10).await;
        }
    }
    assert!(received > FILE && begun.elapsed() > limit, "{received} bytes in {:?}", begun.elapsed());

    let mut silent = server.connect().await;
    silent.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(limit * 3).await;
    let mut received = Vec::new();
    let end = tokio::time::timeout(DEADLINE, silent.read_to_end(&mut received)).await.expect("still connected");
    assert!(end.is_err() || received.len() < FILE, "the whole file was sent");
    server.end().await;
}

/// H4: budgets of a key and of all, at their limits.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_used_up_is_named() {
    let key_budget = Budget { memory_mib: Some(1024), volumes: Some(1), ..Budget::default() };
    let budget = Budget { cpus: Some(3), ..Budget::default() };
    let server = Running::start(Limits { budget, key_budget, ..Limits::default() }).await;
    let of = |name: &str, memory: u32| {
        format!(r#"{{"name": "{name}", "image": "host", "memory_mib": {memory}, "vcpus": 1}}"#)
    };
    assert_eq!(server.ask("POST", "/v1/sandboxes", Some(&of("a", 1000))).await.status, 200);
    let full = server.ask("POST", "/v1/sandboxes", Some(&of("b", 25))).await;
    assert_eq!((full.status, full.code().as_str()), (429, "resource_exhausted"), "{}", full.text());
    let details = full.json()["error"]["details"].clone();
    assert_eq!((details["resource"].as_str(), details["scope"].as_str()), (Some("memory"), Some("key")));
    assert!(full.text().contains("--key-budget memory="), "{}", full.text());
    assert_eq!(server.ask("POST", "/v1/sandboxes", Some(&of("b", 24))).await.status, 200);
    let (_, other) = server.keys.create("other", &Scope::ALL, None).unwrap();
    let bearer = format!("Bearer {other}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(server.ask_with("POST", "/v1/sandboxes", &headers, Some(&of("c", 1024))).await.status, 200);
    let full = server.ask_with("POST", "/v1/sandboxes", &headers, Some(&of("d", 16))).await;
    assert_eq!((full.status, full.code().as_str()), (429, "resource_exhausted"), "{}", full.text());
    // What is stopped needs no memory and no processors.
    assert_eq!(server.ask("POST", "/v1/sandboxes/by-name/a/stop", None).await.status, 200);
    assert_eq!(server.ask("POST", "/v1/sandboxes", Some(&of("e", 1000))).await.status, 200);
    let full = server.ask("POST", "/v1/sandboxes/by-name/a/start", None).await;
    assert_eq!((full.status, full.code().as_str()), (429, "resource_exhausted"), "{}", full.text());
    assert_eq!(server.ask("POST", "/v1/volumes", Some(r#"{"name": "v"}"#)).await.status, 200);
    let full = server.ask("POST", "/v1/volumes", Some(r#"{"name": "w"}"#)).await;
    assert_eq!(full.json()["error"]["details"]["resource"].as_str(), Some("volumes"), "{}", full.text());
    server.end().await;
}
