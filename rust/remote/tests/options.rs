//! No option of a sandbox is lost on its way to the service: alone and in pairs, in both dialects, each shows in the
//! request, with its value and nothing else changed, or is refused by name before anything is sent.

use std::sync::{Arc, Mutex};

use crate::service::{answer, client, config, soon};
use microsandbox_core::backend::SharedBackend;
use microsandbox_core::config::Wire;
use microsandbox_core::model::{
    EnvVar, ImageSource, InitConfig, Isolation, LogLevel, Mount, MountOptions, MountPolicy, Patch, PullPolicy,
    RegistryAuth, Rlimit, SandboxConfig, SandboxSpec, SecurityProfile, UnsupportedOption,
};
use microsandbox_core::{MicrosandboxError, Sandbox};
use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// What becomes of an option in one dialect.
#[derive(Clone)]
enum Fate {
    /// At this place of the request, with this value.
    Carried(&'static str, Value),
    /// With this feature.
    Refused(&'static str),
    /// Done by this client in steps of its own: the request is that of any creation.
    InSteps,
}

struct Row {
    name: &'static str,
    /// Rows of one group set the same thing.
    group: &'static str,
    change: fn(&mut SandboxConfig),
    spec: Fate,
    flat: Fate,
}

fn row(name: &'static str, change: fn(&mut SandboxConfig), spec: Fate, flat: Fate) -> Row {
    Row { name, group: name, change, spec, flat }
}

/// At the same value in both dialects, in different places.
fn both(
    name: &'static str,
    change: fn(&mut SandboxConfig),
    spec: &'static str,
    flat: &'static str,
    value: Value,
) -> Row {
    row(name, change, Fate::Carried(spec, value.clone()), Fate::Carried(flat, value))
}

/// In neither.
fn never(name: &'static str, change: fn(&mut SandboxConfig), feature: &'static str) -> Row {
    row(name, change, Fate::Refused(feature), Fate::Refused(feature))
}

/// In `spec` only.
fn nested(
    name: &'static str,
    change: fn(&mut SandboxConfig),
    at: &'static str,
    value: Value,
    feature: &'static str,
) -> Row {
    row(name, change, Fate::Carried(at, value), Fate::Refused(feature))
}

/// An option of the surface that no backend of this build takes.
fn given(config: &mut SandboxConfig, feature: &str) {
    config.unsupported.push(UnsupportedOption { feature: feature.into(), available_when: "later".into() });
}

fn of_surface(name: &'static str, change: fn(&mut SandboxConfig), flat: &'static str) -> Row {
    row(name, change, Fate::Refused(name), Fate::Refused(flat))
}

fn tmpfs(config: &mut SandboxConfig) {
    let options = MountOptions { readonly: true, ..MountOptions::default() };
    config.spec.mounts = vec![Mount::Tmpfs { guest: "/t".into(), size_mib: Some(7), options }];
}

fn named(config: &mut SandboxConfig) {
    let (name, guest) = ("data".into(), "/data".into());
    let (options, policy) = (MountOptions::default(), MountPolicy::default());
    config.spec.mounts = vec![Mount::Named { name, guest, options, policy }];
}

fn rows() -> Vec<Row> {
    let options = json!({"readonly": false, "noexec": false, "nosuid": false, "nodev": false});
    let read_only = json!({"readonly": true, "noexec": false, "nosuid": false, "nodev": false});
    let tmpfs_value = json!([{"type": "tmpfs", "guest": "/t", "size_mib": 7, "options": read_only}]);
    let named_value = json!([{"type": "named", "name": "data", "guest": "/data", "options": options,
        "stat_virtualization": "strict", "host_permissions": "private"}]);
    let network = "network policy / ports / secrets";
    let mut rows = vec![
        both("name", |c| c.spec.name = "other".into(), "/name", "/name", json!("other")),
        row(
            "image: a reference",
            |c| c.spec.image = ImageSource::Oci { reference: "other:1".into() },
            Fate::Carried("/image", json!({"type": "oci", "reference": "other:1"})),
            Fate::Carried("/image", json!("other:1")),
        ),
        row(
            "image: host",
            |c| c.spec.image = ImageSource::Host { prefixes: vec!["/opt".into()] },
            Fate::Carried("/image", json!({"type": "oci", "reference": "host"})),
            Fate::Carried("/image", json!("host")),
        ),
        never("image: a directory", |c| c.spec.image = ImageSource::Bind { path: "/x".into() }, "image-from-host-dir"),
        never(
            "image: a disk",
            |c| c.spec.image = ImageSource::DiskImage { path: "/x".into(), format: None, fstype: None },
            "disk-image rootfs",
        ),
        both(
            "cpus",
            |c| (c.spec.resources.cpus, c.spec.resources.max_cpus) = (3, 3),
            "/resources/vcpus",
            "/vcpus",
            json!(3),
        ),
        never("cpus: more later", |c| c.spec.resources.max_cpus = 9, "create(max_cpus=)"),
        both(
            "memory",
            |c| (c.spec.resources.memory_mib, c.spec.resources.max_memory_mib) = (768, 768),
            "/resources/memory_mib",
            "/memory_mib",
            json!(768),
        ),
        never("memory: more later", |c| c.spec.resources.max_memory_mib = 9999, "create(max_memory=)"),
        never("pids", |c| c.spec.resources.pids = 7, "pids"),
        never("thp", |c| c.spec.resources.thp = Some("never".into()), "create(thp=)"),
        row(
            "hostname",
            |c| c.spec.runtime.hostname = Some("h".into()),
            Fate::Refused("create(hostname=)"),
            Fate::Carried("/hostname", json!("h")),
        ),
        both("workdir", |c| c.spec.runtime.workdir = Some("/w".into()), "/runtime/workdir", "/workdir", json!("/w")),
        both("shell", |c| c.spec.runtime.shell = Some("/b".into()), "/runtime/shell", "/shell", json!("/b")),
        both("user", |c| c.spec.runtime.user = Some("u".into()), "/runtime/user", "/user", json!("u")),
        both(
            "scripts",
            |c| drop(c.spec.runtime.scripts.insert("s".into(), "x".into())),
            "/runtime/scripts",
            "/scripts",
            json!({"s": "x"}),
        ),
        both(
            "entrypoint",
            |c| c.spec.runtime.entrypoint = Some(vec!["e".into()]),
            "/runtime/entrypoint",
            "/entrypoint",
            json!(["e"]),
        ),
        nested("cmd", |c| c.spec.runtime.cmd = Some(vec!["x".into()]), "/runtime/cmd", json!(["x"]), "cmd"),
        both(
            "log_level",
            |c| c.spec.runtime.log_level = Some(LogLevel::Debug),
            "/runtime/log_level",
            "/log_level",
            json!("debug"),
        ),
        row(
            "env",
            |c| {
                let pairs = [("B", "1"), ("A", "2"), ("B", "3")];
                c.spec.env = pairs.map(|(key, value)| EnvVar { key: key.into(), value: value.into() }).into();
            },
            // Order and repetition are kept in the one; the last one wins in the other.
            Fate::Carried(
                "/env",
                json!([{"key": "B", "value": "1"}, {"key": "A", "value": "2"}, {"key": "B", "value": "3"}]),
            ),
            Fate::Carried("/env", json!({"A": "2", "B": "3"})),
        ),
        nested(
            "labels",
            |c| drop(c.spec.labels.insert("l".into(), "v".into())),
            "/labels",
            json!({"l": "v"}),
            "labels",
        ),
        nested(
            "rlimits",
            |c| c.spec.rlimits = vec![Rlimit { resource: "nofile".into(), soft: 1, hard: 2 }],
            "/rlimits",
            json!([{"resource": "nofile", "soft": 1, "hard": 2}]),
            "rlimits",
        ),
        nested("mounts: memory", tmpfs, "/mounts", tmpfs_value, "mounts"),
        nested("mounts: a volume", named, "/mounts", named_value, "mounts"),
        nested(
            "init",
            |c| c.spec.init = Some(InitConfig { cmd: "auto".into(), ..InitConfig::default() }),
            "/init",
            json!({"cmd": "auto"}),
            "init",
        ),
        nested(
            "pull: always",
            |c| c.spec.pull_policy = PullPolicy::Always,
            "/pull_policy",
            json!("always"),
            "pull_policy",
        ),
        nested(
            "pull: never",
            |c| c.spec.pull_policy = PullPolicy::Never,
            "/pull_policy",
            json!("never"),
            "pull_policy",
        ),
        both(
            "max_duration",
            |c| c.spec.lifecycle.max_duration_secs = Some(5.0),
            "/lifecycle/max_duration_secs",
            "/max_duration_secs",
            json!(5),
        ),
        both(
            "idle_timeout",
            |c| c.spec.lifecycle.idle_timeout_secs = Some(6.0),
            "/lifecycle/idle_timeout_secs",
            "/idle_timeout_secs",
            json!(6),
        ),
        both("ephemeral", |c| c.spec.lifecycle.ephemeral = true, "/lifecycle/ephemeral", "/ephemeral", json!(true)),
        nested(
            "security",
            |c| c.spec.security_profile = SecurityProfile::Restricted,
            "/security_profile",
            json!("restricted"),
            "security_profile",
        ),
        never("isolation: a microVM", |c| c.spec.isolation = Isolation::Microvm, "create(isolation=)"),
        never("isolation: a container", |c| c.spec.isolation = Isolation::Container, "create(isolation=)"),
        never("metrics", |c| c.spec.metrics.sample_interval_ms = Some(5), "metrics_sample_interval_ms"),
        row("replace", |c| c.replace_existing = true, Fate::InSteps, Fate::Refused(".replace()")),
        nested("no network", |c| c.no_network = true, "/network/enabled", json!(false), network),
        of_surface("create(volumes=)", |c| given(c, "create(volumes=)"), "mounts"),
        of_surface("create(patches=)", |c| c.patches = vec![Patch::Remove { path: "/x".into() }], "patches"),
        nested(
            "credentials of a registry",
            |c| c.registry.auth = Some(RegistryAuth { username: "u".into(), password: "p".into() }),
            "/registry",
            json!({"mode": "inline", "username": "u", "password": "p"}),
            "registry_auth",
        ),
        of_surface("create(registry_insecure=)", |c| c.registry.insecure = true, "insecure registries"),
        of_surface("create(registry_ca_certs=)", |c| c.registry.ca_certs = vec![vec![1]], "ca_certs"),
        of_surface("create(ports=)", |c| given(c, "create(ports=)"), network),
        of_surface("create(network=)", |c| given(c, "create(network=)"), network),
        of_surface("create(secrets=)", |c| given(c, "create(secrets=)"), network),
        of_surface("create(intercept_tls=)", |c| given(c, "create(intercept_tls=)"), network),
        of_surface("create(vsock=)", |c| given(c, "create(vsock=)"), "create(vsock=)"),
        of_surface("create(from_snapshot=)", |c| given(c, "create(from_snapshot=)"), "create(from_snapshot=)"),
        of_surface("create(root_disk=)", |c| given(c, "create(root_disk=)"), "create(root_disk=)"),
        of_surface("anything else", |c| given(c, "anything else"), "anything else"),
    ];
    for row in &mut rows {
        row.group = row.name.split(':').next().unwrap();
    }
    rows
}

/// Keeps the body of the last creation; there is no older sandbox.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Option<Value>>>);

impl Respond for Recorder {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        if request.method.as_str() != "POST" {
            let body = json!({"error": {"code": "sandbox_not_found", "message": "no"}});
            return ResponseTemplate::new(404).set_body_json(body);
        }
        *self.0.lock().unwrap() = Some(request.body_json().unwrap());
        ResponseTemplate::new(200).set_body_json(answer("running"))
    }
}

struct Service {
    backend: SharedBackend,
    recorder: Recorder,
    _server: MockServer,
}

impl Service {
    async fn new(wire: Wire) -> Service {
        let server = MockServer::builder().disable_request_recording().start().await;
        let recorder = Recorder::default();
        Mock::given(any()).respond_with(recorder.clone()).mount(&server).await;
        Service { backend: client(&server.uri(), wire), recorder, _server: server }
    }

    /// What was sent for it, or the feature that was refused with nothing sent.
    async fn create(&self, config: SandboxConfig) -> Result<Value, String> {
        self.recorder.0.lock().unwrap().take();
        let result = soon(Sandbox::create(&self.backend, config)).await;
        let sent = self.recorder.0.lock().unwrap().take();
        match result {
            Ok(_) => Ok(sent.expect("a request")),
            Err(MicrosandboxError::Unsupported { feature, available_when }) => {
                assert!(sent.is_none() && !available_when.is_empty(), "{feature} was refused after a request");
                Err(feature)
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn every_option_and_every_pair_is_carried_or_refused() {
    let rows = rows();
    for wire in [Wire::Spec, Wire::Flat] {
        let service = Service::new(wire).await;
        let plain = service.create(config()).await.unwrap();
        let fate = |row: &Row| if wire == Wire::Spec { row.spec.clone() } else { row.flat.clone() };
        for (number, first) in rows.iter().enumerate() {
            // An option with itself is that option alone.
            for second in &rows[number..] {
                if first.group == second.group && first.name != second.name {
                    continue;
                }
                let (mut wanted, mut expected, mut refusals) = (config(), plain.clone(), Vec::new());
                for row in [first, second] {
                    (row.change)(&mut wanted);
                    match fate(row) {
                        Fate::Carried(place, value) => put(&mut expected, place, value),
                        Fate::Refused(feature) => refusals.push(feature),
                        Fate::InSteps => {}
                    }
                }
                let case = format!("{} with {} ({})", first.name, second.name, wire.as_str());
                match service.create(wanted).await {
                    Ok(sent) => {
                        assert!(refusals.is_empty(), "{case}: sent");
                        assert_eq!(sent, expected, "{case}");
                    }
                    Err(feature) => assert!(refusals.contains(&feature.as_str()), "{case}: refused as {feature}"),
                }
            }
        }
    }
}

/// Sets a value where a key may be absent.
fn put(document: &mut Value, place: &str, value: Value) {
    let (parent, key) = place.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[key] = value;
}

/// The table above knows every field of the model, those that a later version adds, too.
#[test]
fn the_table_knows_every_field() {
    // Findings and identities, not wishes; a service's sandboxes are all detached; `disabled` is a home's default, which
    // a service does not have.
    const NO_WISH: [&str; 5] = ["/id", "/detached", "/isolation_actual", "/image_defaults", "/metrics/disabled"];
    let before = serde_json::to_value(SandboxSpec { image: config().spec.image, ..config().spec }).unwrap();
    let mut unknown = Vec::new();
    fields(&before, String::new(), &mut unknown);
    assert!(unknown.len() > 25, "{unknown:?}");
    for row in rows() {
        let mut changed = config();
        (row.change)(&mut changed);
        let after = serde_json::to_value(changed.spec).unwrap();
        unknown.retain(|place| before.pointer(place) == after.pointer(place));
    }
    unknown.retain(|place| !NO_WISH.iter().any(|known| place.starts_with(known)));
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
    // Everything beside the specification.
    let SandboxConfig {
        spec: _,
        replace_existing: _,
        replace_timeout: _,
        no_network: _,
        patches: _,
        unsupported: _,
        registry: _,
    } = config();
}

/// Places of all values; an empty map is one.
fn fields(value: &Value, place: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                fields(value, format!("{place}/{key}"), found);
            }
        }
        _ => found.push(place),
    }
}

/// Case 77.
#[tokio::test]
async fn the_flat_request_has_its_fifteen_keys_and_no_other() {
    let service = Service::new(Wire::Flat).await;
    let mut full = config();
    for row in rows() {
        if matches!(row.flat, Fate::Carried(..)) {
            (row.change)(&mut full);
        }
    }
    let sent = service.create(full).await.unwrap();
    let mut keys: Vec<_> = sent.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = [
        "entrypoint",
        "env",
        "ephemeral",
        "hostname",
        "idle_timeout_secs",
        "image",
        "log_level",
        "max_duration_secs",
        "memory_mib",
        "name",
        "scripts",
        "shell",
        "user",
        "vcpus",
        "workdir",
    ];
    assert_eq!(keys, expected);
}
