//! The cloud client against a server of lies: faults, refusals, shapes. The honest server is `msb serve` (tests/conformance).

use std::time::Duration;

use crate::service::{self, ID, KEY, answer, client, cloud, config, exec, exec_stream, requests, serving, soon};
use microsandbox_core::backend::{ListQuery, SharedBackend};
use microsandbox_core::config::Wire;
use microsandbox_core::model::{
    EnvVar, ExecOptions, ImageSource, InitConfig, Isolation, LogLevel, Mount, MountOptions, Patch, PullPolicy,
    RegistryAuth, Rlimit, SandboxConfig, SandboxSpec, SandboxStatus, SecurityProfile, UnsupportedOption, VolumeConfig,
    VolumeQuery,
};
use microsandbox_core::{MicrosandboxError, Sandbox};
use microsandbox_remote::CloudBackend;
use serde_json::{Value, json};
use wiremock::matchers::{any, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

async fn get(server: &MockServer) -> Result<SandboxStatus, MicrosandboxError> {
    service::get(&client(&server.uri(), Wire::Spec)).await.map(|handle| handle.status_snapshot())
}

/// Cases 83, 84: the key is sent as a bearer, and is in no error.
// hazard: C6
#[tokio::test]
async fn the_key_is_on_every_request_and_in_no_error() {
    for status in [400, 401, 403, 404, 409, 418, 422, 429, 500, 502] {
        let body = format!(r#"{{"error":{{"code":"x","message":"you sent Bearer {KEY}"}}}}"#);
        let server = serving(ResponseTemplate::new(status).set_body_raw(body, "application/json")).await;
        let backend = client(&server.uri(), Wire::Spec);
        assert!(!format!("{:?}", cloud(&server.uri(), Wire::Spec)).contains("hunter2"));
        soon(Sandbox::get(&backend, "box")).await.unwrap_err();
        let expected = format!("Bearer {KEY}");
        assert!(requests(&server).await.iter().all(|r| r.headers["authorization"] == expected.as_str()));
    }
}

/// Case 75, and an unknown status.
#[tokio::test]
async fn statuses_map_one_to_one() {
    use SandboxStatus as S;
    let all = [
        ("created", S::Created),
        ("starting", S::Starting),
        ("running", S::Running),
        ("stopping", S::Draining),
        ("stopped", S::Stopped),
        ("failed", S::Crashed),
    ];
    for (wire, ours) in all {
        let server = serving(ResponseTemplate::new(200).set_body_json(answer(wire))).await;
        assert_eq!(get(&server).await.unwrap(), ours);
    }
    let server = serving(ResponseTemplate::new(200).set_body_json(answer("melting"))).await;
    let handle = service::get(&client(&server.uri(), Wire::Spec)).await.unwrap();
    assert_eq!(handle.status_snapshot(), S::Unknown);
    assert!(handle.last_error_snapshot().is_some_and(|text| text.contains("melting")));
}

// hazard: C2
#[tokio::test]
async fn answers_that_are_no_answers_are_named_errors() {
    let html = ResponseTemplate::new(200).set_body_raw("<html>welcome</html>", "text/html");
    let cut = ResponseTemplate::new(200).set_body_raw(r#"{"id": "#, "application/json");
    let huge = ResponseTemplate::new(200).set_body_raw(vec![b' '; (16 << 20) + 1], "application/json");
    for (template, word) in [(html, "text/html"), (cut, "cannot be decoded"), (huge, "larger than")] {
        let error = get(&serving(template).await).await.unwrap_err();
        assert!(matches!(error, MicrosandboxError::Custom(_)), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn an_unreachable_service_is_reported_with_its_address() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let backend: SharedBackend = CloudBackend::new(&uri, KEY).unwrap().into();
    let error = soon(Sandbox::get(&backend, "box")).await.unwrap_err();
    let MicrosandboxError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&uri) && error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_slow_service_runs_into_the_timeout() {
    let server = serving(ResponseTemplate::new(200).set_delay(Duration::from_secs(30))).await;
    let backend = CloudBackend::builder().url(server.uri()).api_key(KEY).request_timeout(Duration::from_millis(200));
    let backend: SharedBackend = backend.build().unwrap().into();
    let error = soon(Sandbox::get(&backend, "box")).await.unwrap_err();
    assert!(error.to_string().contains("within 0.2 s"), "{error}");
}

#[tokio::test]
async fn a_redirect_never_takes_the_key_to_another_origin() {
    let thief = serving(ResponseTemplate::new(200).set_body_json(answer("running"))).await;
    let to = format!("{}/v1/sandboxes/by-name/box", thief.uri());
    let server = serving(ResponseTemplate::new(307).insert_header("location", to.as_str())).await;
    let error = get(&server).await.unwrap_err().to_string();
    assert!(error.contains("redirects to") && error.contains(&thief.uri()), "{error}");
    assert_eq!(requests(&thief).await.len(), 0);
}

#[tokio::test]
async fn a_redirect_in_circles_ends() {
    let server = serving(ResponseTemplate::new(307).insert_header("location", "/again")).await;
    let error = get(&server).await.unwrap_err().to_string();
    assert!(error.contains("more than 5 redirects"), "{error}");
    assert!(requests(&server).await.len() <= 7);
}

#[tokio::test]
async fn what_changes_nothing_is_asked_again_and_retry_after_is_heard() {
    let server = MockServer::start().await;
    let busy = ResponseTemplate::new(503).insert_header("retry-after", "1");
    Mock::given(any()).respond_with(busy).up_to_n_times(1).mount(&server).await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(answer("running"))).mount(&server).await;
    let began = std::time::Instant::now();
    assert_eq!(get(&server).await.unwrap(), SandboxStatus::Running);
    assert!(began.elapsed() >= Duration::from_secs(1));
    // More patience than there is: an error at once.
    let server = serving(ResponseTemplate::new(429).insert_header("retry-after", "3600")).await;
    assert!(matches!(get(&server).await, Err(MicrosandboxError::CloudHttp { status: 429, .. })));
    assert_eq!(requests(&server).await.len(), 1);
}

// hazard: C3
#[tokio::test]
async fn a_creation_is_repeated_with_its_key_only() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(502)).up_to_n_times(1).mount(&server).await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(answer("running"))).mount(&server).await;
    soon(Sandbox::create(&client(&server.uri(), Wire::Spec), config())).await.unwrap();
    let sent = requests(&server).await;
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].headers["idempotency-key"], sent[1].headers["idempotency-key"]);
    // The other dialect has no such key: once.
    let server = serving(ResponseTemplate::new(502)).await;
    soon(Sandbox::create(&client(&server.uri(), Wire::Flat), config())).await.unwrap_err();
    assert_eq!(requests(&server).await.len(), 1);
}

/// Case 79 and readiness (cloud-wire 5.1).
#[tokio::test]
async fn create_waits_for_running_and_keeps_the_configuration() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/sandboxes"))
        .and(query_param("start", "true"))
        .and(query_param("wait_for", "running"))
        .and(query_param("wait_timeout", "90"))
        .and(header("user-agent", concat!("microsandbox-sdk/", env!("CARGO_PKG_VERSION"))))
        .respond_with(ResponseTemplate::new(200).set_body_json(answer("running")))
        .expect(1)
        .mount(&server)
        .await;
    let mut wanted = config();
    wanted.spec.env = vec![EnvVar { key: "A".into(), value: "1".into() }];
    let sandbox = soon(Sandbox::create(&client(&server.uri(), Wire::Spec), wanted.clone())).await.unwrap();
    assert_eq!(sandbox.spec().env, wanted.spec.env);
    assert_eq!((sandbox.id(), sandbox.owns_lifecycle()), (ID, false));
    for (status, word) in [("failed", "failed to start"), ("starting", "still starting"), ("stopped", "is stopped")] {
        let server = serving(ResponseTemplate::new(200).set_body_json(answer(status))).await;
        let error = soon(Sandbox::create(&client(&server.uri(), Wire::Spec), config())).await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// Cases 80, 81, 82, 90.
#[tokio::test]
async fn paths_pages_and_times() {
    let server = MockServer::start().await;
    let mut with_times = answer("stopped");
    with_times["started_at"] = json!("2026-01-01T00:00:01Z");
    with_times["stopped_at"] = json!("2026-01-01T00:00:02Z");
    Mock::given(method("GET"))
        .and(path("/v1/sandboxes"))
        .and(query_param("limit", "2"))
        .and(query_param("cursor", "abc"))
        .and(query_param("labels", r#"{"a":"b"}"#))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"data": [with_times], "next_cursor": "next"})))
        .mount(&server)
        .await;
    Mock::given(method("DELETE")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    let backend = client(&server.uri(), Wire::Spec);
    let query = ListQuery {
        cursor: Some("abc".into()),
        limit: Some(2),
        labels: [("a".to_string(), "b".to_string())].into(),
        ..ListQuery::default()
    };
    let page = soon(Sandbox::list(&backend, query)).await.unwrap();
    assert_eq!(page.next_cursor.as_deref(), Some("next"));
    assert_eq!(page.sandboxes[0].updated_at().unwrap().to_rfc3339(), "2026-01-01T00:00:02+00:00");
    soon(Sandbox::remove(&backend, "box")).await.unwrap();
    let last = requests(&server).await.pop().unwrap();
    assert_eq!((last.method.as_str(), last.url.path()), ("DELETE", "/v1/sandboxes/by-name/box"));
    let bad = ListQuery { limit: Some(101), ..ListQuery::default() };
    assert!(matches!(soon(Sandbox::list(&backend, bad)).await, Err(MicrosandboxError::InvalidConfig(_))));
    let undecodable = json!({"data": [answer("running"), {"id": 1}]});
    let server = serving(ResponseTemplate::new(200).set_body_json(undecodable)).await;
    assert!(soon(Sandbox::list(&client(&server.uri(), Wire::Spec), ListQuery::default())).await.is_err());
}

/// Cases 73, 74, 78: what start synthesises, from either shape, whatever is missing or odd.
#[tokio::test]
async fn start_synthesises_a_configuration_field_by_field() {
    let shapes = [
        json!({"image": "alpine", "resources": {"vcpus": 3, "memory_mib": 256}, "env": [{"key": "A", "value": "1"}],
            "runtime": {"workdir": "/w", "log_level": "DEBUG", "entrypoint": ["x"]}, "labels": {"l": "v"}}),
        json!({"image": "alpine", "vcpus": 3, "memory_mib": 256, "env": {"A": "1"}, "workdir": "/w",
            "log_level": "debug", "entrypoint": ["x"]}),
    ];
    for (number, shape) in shapes.into_iter().enumerate() {
        let server = MockServer::start().await;
        let mut body = answer("running");
        body["spec"] = Value::Null;
        body[if number == 0 { "spec" } else { "config" }] = shape;
        Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(body)).mount(&server).await;
        let wire = if number == 0 { Wire::Spec } else { Wire::Flat };
        let sandbox = soon(Sandbox::start(&client(&server.uri(), wire), "box", true)).await.unwrap();
        let spec = sandbox.spec();
        assert_eq!((spec.resources.cpus, spec.resources.memory_mib), (3, 256));
        assert_eq!(spec.env, [EnvVar { key: "A".into(), value: "1".into() }]);
        assert_eq!(spec.runtime.workdir.as_deref(), Some("/w"));
        assert_eq!(spec.runtime.log_level, Some(LogLevel::Debug));
        assert_eq!(spec.runtime.entrypoint, Some(vec!["x".to_string()]));
    }
    let mut odd = answer("running");
    odd["spec"] = json!({"resources": "many", "env": 7, "runtime": {"log_level": "loud"}});
    let server = serving(ResponseTemplate::new(200).set_body_json(odd)).await;
    let sandbox = soon(Sandbox::start(&client(&server.uri(), Wire::Spec), "box", true)).await.unwrap();
    assert_eq!((sandbox.spec().resources.cpus, sandbox.spec().runtime.log_level), (1, None));
}

/// Cases 85 to 89: refused by name, without a request.
#[tokio::test]
async fn what_the_wire_lacks_is_refused_by_name() {
    let server = serving(ResponseTemplate::new(200).set_body_json(answer("running"))).await;
    let unsupported = |error: MicrosandboxError| match error {
        MicrosandboxError::Unsupported { feature, available_when } => (feature, available_when),
        other => panic!("{other:?}"),
    };
    for wire in [Wire::Spec, Wire::Flat] {
        let backend = client(&server.uri(), wire);
        let sandboxes = backend.sandboxes();
        let kill = unsupported(soon(sandboxes.kill("box")).await.unwrap_err());
        assert_eq!(kill, ("cloud sandbox kill".into(), "when cloud forced-stop lands".into()));
        let drain = unsupported(soon(sandboxes.drain("box")).await.unwrap_err());
        assert_eq!(drain, ("cloud sandbox drain".into(), "when cloud graceful-drain lands".into()));
        let spec = SandboxSpec::default();
        let metrics = unsupported(soon(sandboxes.metrics("box", &spec)).await.unwrap_err());
        assert_eq!(metrics, ("Sandbox::metrics".into(), "when cloud metrics land".into()));
        let mut stream = sandboxes.metrics_stream("box".into(), spec, Duration::from_secs(1));
        let first = soon(futures::StreamExt::next(&mut stream)).await.unwrap().unwrap_err();
        assert_eq!(unsupported(first).0, "Sandbox::metrics_stream");
        assert!(soon(futures::StreamExt::next(&mut stream)).await.is_none());
    }
    let backend = client(&server.uri(), Wire::Flat);
    let (sandboxes, volumes) = (backend.sandboxes(), backend.volumes());
    let live = unsupported(exec_stream(&backend, "true", ExecOptions::default()).await.err().unwrap());
    assert_eq!(live, ("Sandbox::exec_stream".into(), "when cloud exec lands".into()));
    let fs = sandboxes.agent("box").files();
    let files = [
        (unsupported(soon(fs.read("/f", u64::MAX)).await.unwrap_err()), "SandboxFs::read"),
        (unsupported(soon(fs.write("/f", "x".into())).await.unwrap_err()), "SandboxFs::write"),
        (unsupported(soon(fs.list("/f")).await.unwrap_err()), "SandboxFs::list"),
        (unsupported(soon(fs.remove("/f", true)).await.unwrap_err()), "SandboxFs::remove"),
        (unsupported(soon(fs.exists("/f")).await.unwrap_err()), "SandboxFs::exists"),
    ];
    for ((feature, when), expected) in files {
        assert_eq!((feature.as_str(), when.as_str()), (expected, "when cloud guest fs lands"));
    }
    let volume = VolumeConfig { name: "v".into(), ..VolumeConfig::default() };
    for error in [
        soon(volumes.create(volume)).await.unwrap_err(),
        soon(volumes.list(VolumeQuery::default())).await.unwrap_err(),
        soon(volumes.remove("v")).await.unwrap_err(),
        soon(volumes.files("v").read("f", u64::MAX)).await.unwrap_err(),
        volumes.path("v").unwrap_err(),
    ] {
        assert_eq!(unsupported(error).1, "when cloud volumes ship");
    }
    assert_eq!(requests(&server).await.len(), 0);
}

/// One option that differs from its default.
type Change = (&'static str, fn(&mut SandboxConfig));

fn given(config: &mut SandboxConfig, feature: &str) {
    config.unsupported.push(UnsupportedOption { feature: feature.into(), available_when: "later".into() });
}

/// Cases 69 to 72: the table of refusals, in its order, with its words, before any request.
#[tokio::test]
async fn the_flat_dialect_refuses_in_order() {
    let table: [(Change, &str); 13] = [
        (
            ("mounts", |c| {
                let options = MountOptions::default();
                c.spec.mounts.push(Mount::Tmpfs { guest: "/x".into(), size_mib: None, options });
            }),
            "when cloud volumes ship",
        ),
        (("patches", |c| c.patches = vec![Patch::Remove { path: "/x".into() }]), "when cloud volumes ship"),
        (
            ("rlimits", |c| c.spec.rlimits.push(Rlimit { resource: "nofile".into(), soft: 1, hard: 1 })),
            "when rlimits land on the cloud API",
        ),
        (("cmd", |c| c.spec.runtime.cmd = Some(vec!["x".into()])), "when cmd lands on the cloud API"),
        ((".replace()", |c| c.replace_existing = true), "when cloud sandbox replace semantics land"),
        (("init", |c| c.spec.init = Some(InitConfig::default())), "when cloud init wrapper lands"),
        (("pull_policy", |c| c.spec.pull_policy = PullPolicy::Always), "when cloud pull policy lands"),
        (
            ("registry_auth", |c| c.registry.auth = Some(RegistryAuth { username: "u".into(), password: "p".into() })),
            "when cloud registry auth lands",
        ),
        (
            ("insecure registries", |c| given(c, "create(registry_insecure=)")),
            "when cloud insecure-registry support lands",
        ),
        (("ca_certs", |c| given(c, "create(registry_ca_certs=)")), "when cloud custom CA certs land"),
        (("network policy / ports / secrets", |c| given(c, "create(ports=)")), "when cloud networking ships"),
        (
            ("image-from-host-dir", |c| c.spec.image = ImageSource::Bind { path: "/x".into() }),
            "when cloud volumes ship",
        ),
        (
            ("disk-image rootfs", |c| {
                c.spec.image = ImageSource::DiskImage { path: "/x".into(), format: None, fstype: None };
            }),
            "never on cloud",
        ),
    ];
    let server = MockServer::start().await;
    let backend = client(&server.uri(), Wire::Flat);
    for (number, ((feature, change), when)) in table.iter().enumerate() {
        let mut one = config();
        change(&mut one);
        let mut several = one.clone();
        // A root that is two things at once there is not.
        for ((_, later), _) in table[number + 1..].iter().take(11usize.saturating_sub(number)) {
            later(&mut several);
        }
        for tried in [one, several] {
            match soon(Sandbox::create(&backend, tried)).await {
                Err(MicrosandboxError::Unsupported { feature: got, available_when }) => {
                    assert_eq!((got.as_str(), available_when.as_str()), (*feature, *when));
                }
                other => panic!("{feature}: {other:?}"),
            }
        }
    }
    assert_eq!(requests(&server).await.len(), 0);
}

/// Every option, one at a time, in both dialects: it shows in the request, or is refused. (A field that is new in the model
/// does not compile in `cloud/request.rs` until it is decided there.)
#[tokio::test]
async fn no_option_is_dropped() {
    let changes: [Change; 24] = [
        ("name", |c| c.spec.name = "other".into()),
        ("image", |c| c.spec.image = ImageSource::Oci { reference: "other".into() }),
        ("host image", |c| c.spec.image = ImageSource::Host { prefixes: Vec::new() }),
        ("cpus", |c| (c.spec.resources.cpus, c.spec.resources.max_cpus) = (3, 3)),
        ("max_cpus", |c| c.spec.resources.max_cpus = 9),
        ("memory", |c| (c.spec.resources.memory_mib, c.spec.resources.max_memory_mib) = (99, 99)),
        ("max_memory", |c| c.spec.resources.max_memory_mib = 9999),
        ("pids", |c| c.spec.resources.pids = 7),
        ("thp", |c| c.spec.resources.thp = Some("never".into())),
        ("hostname", |c| c.spec.runtime.hostname = Some("h".into())),
        ("workdir", |c| c.spec.runtime.workdir = Some("/w".into())),
        ("shell", |c| c.spec.runtime.shell = Some("/bin/x".into())),
        ("user", |c| c.spec.runtime.user = Some("u".into())),
        ("scripts", |c| drop(c.spec.runtime.scripts.insert("s".into(), "x".into()))),
        ("entrypoint", |c| c.spec.runtime.entrypoint = Some(vec!["e".into()])),
        ("log_level", |c| c.spec.runtime.log_level = Some(LogLevel::Trace)),
        ("env", |c| c.spec.env.push(EnvVar { key: "A".into(), value: "1".into() })),
        ("labels", |c| drop(c.spec.labels.insert("l".into(), "v".into()))),
        ("max_duration", |c| c.spec.lifecycle.max_duration_secs = Some(5.0)),
        ("idle_timeout", |c| c.spec.lifecycle.idle_timeout_secs = Some(5.0)),
        ("ephemeral", |c| c.spec.lifecycle.ephemeral = true),
        ("security", |c| c.spec.security_profile = SecurityProfile::Restricted),
        ("isolation", |c| c.spec.isolation = Isolation::Microvm),
        ("metrics", |c| c.spec.metrics.sample_interval_ms = Some(5)),
    ];
    for wire in [Wire::Spec, Wire::Flat] {
        let plain = body_of(wire, config()).await.unwrap();
        if wire == Wire::Flat {
            let keys: Vec<&str> = plain.as_object().unwrap().keys().map(String::as_str).collect();
            assert!(keys.len() <= 15 && !keys.contains(&"cmd") && !keys.contains(&"rlimits"), "{keys:?}");
        }
        for (name, change) in changes {
            let mut changed = config();
            change(&mut changed);
            match body_of(wire, changed).await {
                Ok(body) => assert_ne!(body, plain, "{name} was dropped ({})", wire.as_str()),
                Err(MicrosandboxError::Unsupported { feature, available_when }) => {
                    assert!(!feature.is_empty() && !available_when.is_empty());
                }
                Err(error) => panic!("{name}: {error:?}"),
            }
        }
    }
    // Rounding would be a change, too.
    let mut fraction = config();
    fraction.spec.lifecycle.max_duration_secs = Some(1.5);
    assert!(matches!(body_of(Wire::Spec, fraction).await, Err(MicrosandboxError::InvalidConfig(_))));
}

/// What is sent for a configuration.
async fn body_of(wire: Wire, config: SandboxConfig) -> Result<Value, MicrosandboxError> {
    let server = serving(ResponseTemplate::new(200).set_body_json(answer("running"))).await;
    soon(Sandbox::create(&client(&server.uri(), wire), config)).await?;
    Ok(requests(&server).await.last().unwrap().body_json().unwrap())
}

/// Case 94, and a service that stops in the middle.
#[tokio::test]
async fn programs_and_logs_of_the_flat_dialect() {
    let server = MockServer::start().await;
    let ran = json!({"exit_code": 3, "stdout": "aGk=", "stderr": "", "stdout_total": 2, "stderr_total": 0});
    Mock::given(path("/v1/sandboxes/by-name/box/exec"))
        .respond_with(ResponseTemplate::new(200).set_body_json(ran))
        .mount(&server)
        .await;
    let page = json!({"entries": [{"source": "stdout", "ts": "2026-01-01T00:00:00Z", "text": "hello", "cursor": "c"}]});
    Mock::given(path("/v1/sandboxes/by-name/box/logs"))
        .respond_with(ResponseTemplate::new(200).set_body_json(page))
        .mount(&server)
        .await;
    let backend = client(&server.uri(), Wire::Flat);
    let output = exec(&backend, "echo").await.unwrap();
    assert_eq!((output.exit.code, output.stdout.as_ref()), (3, b"hi".as_slice()));
    let logs = soon(backend.sandboxes().logs("box", Default::default())).await.unwrap();
    assert_eq!((logs[0].data.as_ref(), logs[0].cursor.as_str()), (b"hello".as_slice(), "c"));
}

#[tokio::test]
async fn a_truncated_or_false_log_is_a_named_error() {
    let bodies = [
        (
            "id: a\nevent: log\ndata: {\"source\":\"stdout\",\"ts\":\"2026-01-01T00:00:00Z\",\"text\":\"x\"}\n\nevent: log\ndata: {\n\n",
            "cannot be decoded",
        ),
        (
            "event: log\ndata: {\"source\":\"nowhere\",\"ts\":\"2026-01-01T00:00:00Z\",\"text\":\"x\"}\n\n",
            "unknown source",
        ),
    ];
    for (body, word) in bodies {
        let server = MockServer::start().await;
        Mock::given(path(format!("/v1/sandboxes/{ID}/logs")))
            .respond_with(ResponseTemplate::new(200).set_body_raw(body, "text/event-stream"))
            .mount(&server)
            .await;
        Mock::given(any())
            .respond_with(ResponseTemplate::new(200).set_body_json(answer("running")))
            .mount(&server)
            .await;
        let backend = client(&server.uri(), Wire::Spec);
        let error = soon(backend.sandboxes().logs("box", Default::default())).await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// The upgrade to the agent's WebSocket is refused in the words of the wire.
#[tokio::test]
async fn a_refused_upgrade_is_mapped() {
    for (status, code) in [(401, "invalid_api_key"), (404, "sandbox_not_found"), (409, "sandbox_not_running")] {
        let server = MockServer::start().await;
        let body = json!({"error": {"code": code, "message": "no", "details": {"status": "stopped"}}});
        Mock::given(path(format!("/v1/sandboxes/{ID}/agent")))
            .respond_with(ResponseTemplate::new(status).set_body_json(body))
            .mount(&server)
            .await;
        Mock::given(any())
            .respond_with(ResponseTemplate::new(200).set_body_json(answer("running")))
            .mount(&server)
            .await;
        let backend = client(&server.uri(), Wire::Spec);
        let error = exec(&backend, "true").await.unwrap_err();
        let right = match status {
            401 => matches!(error, MicrosandboxError::CloudHttp { status: 401, .. }),
            404 => matches!(error, MicrosandboxError::SandboxNotFound(_)),
            _ => matches!(error, MicrosandboxError::SandboxNotRunning { status: SandboxStatus::Stopped, .. }),
        };
        assert!(right, "{error:?}");
    }
}
