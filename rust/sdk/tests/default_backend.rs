//! Which backend is meant when a call names none.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use microsandbox_core::MicrosandboxError;
use microsandbox_core::backend::*;
use microsandbox_core::config::Environment;
use microsandbox_core::model::{SandboxStatus, VolumeConfig};
use microsandbox_local::LocalBackend;
use microsandbox_sdk::default_backend::*;

use crate::scripted::{self, Scripted};

/// A backend with nothing but what the trait demands.
struct Fake(BackendKind);

impl Backend for Fake {
    fn kind(&self) -> BackendKind {
        self.0
    }
    fn sandboxes(&self) -> &dyn SandboxBackend {
        self
    }
    fn volumes(&self) -> &dyn VolumeBackend {
        self
    }
}

impl VolumeBackend for Fake {
    fn files<'a>(&'a self, _: &'a str) -> Box<dyn Files + 'a> {
        Box::new(Nothing)
    }
}

impl SandboxBackend for Fake {
    fn agent<'a>(&'a self, _: &'a str) -> Box<dyn Agent + 'a> {
        Box::new(Nothing)
    }
}

struct Nothing;

impl Agent for Nothing {
    fn files<'a>(self: Box<Self>) -> Box<dyn Files + 'a>
    where
        Self: 'a,
    {
        self
    }
}

impl Files for Nothing {
    fn lacks(&self, call: &'static str) -> MicrosandboxError {
        MicrosandboxError::Custom(format!("fake {call}"))
    }
}

fn fake() -> SharedBackend {
    Arc::new(Fake(BackendKind::Cloud))
}

/// The process's default is one for all tests of this binary.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let limit = std::time::Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("the test took too long") });
}

fn is_default(backend: &SharedBackend) -> bool {
    Arc::ptr_eq(&default_backend(), backend)
}

// case: 2, 4, 5, 11
#[test]
fn a_scope_names_the_backend_inside_only() {
    let _alone = alone();
    run(async {
        let (before, outer, inner) = (default_backend(), fake(), fake());
        let other = tokio::spawn(async { default_backend() });
        with_backend(outer.clone(), async {
            assert!(is_default(&outer));
            assert_eq!(default_backend_info().source, "programmatic");
            let failed: Result<(), ()> = with_backend(inner.clone(), async {
                tokio::task::yield_now().await;
                assert!(is_default(&inner));
                Err(())
            })
            .await;
            assert!(failed.is_err() && is_default(&outer));
            let spawned = tokio::spawn(async { default_backend() }).await.unwrap();
            assert!(Arc::ptr_eq(&spawned, &before), "a spawned task is its own");
            let spawned = tokio::spawn(inherit_scope(async { default_backend() })).await.unwrap();
            assert!(Arc::ptr_eq(&spawned, &outer), "unless it inherits");
        })
        .await;
        assert!(is_default(&before));
        assert!(Arc::ptr_eq(&other.await.unwrap(), &before));
    });
}

// case: 1, 3, 6
#[test]
fn swap_gives_the_old_default_which_can_be_put_back() {
    let _alone = alone();
    let (original, info) = (default_backend(), default_backend_info());
    let (first, second) = (fake(), fake());
    assert!(Arc::ptr_eq(&swap_default_backend(first.clone()), &original));
    assert!(is_default(&first));
    assert_eq!((default_backend_info().source, default_backend_info().kind), ("programmatic", BackendKind::Cloud));
    assert!(Arc::ptr_eq(&swap_default_backend(second.clone()), &first));
    set_default_backend(original.clone());
    assert!(is_default(&original));
    assert_eq!(default_backend_info(), info, "what is known of it comes back with it");
}

// case: 7
#[test]
fn only_a_local_backend_has_a_local_side() {
    assert!(fake().as_local().is_none());
    let local: SharedBackend = LocalBackend::from_config(Default::default()).into();
    assert!(local.as_local().is_some());
}

/// A document and variables, without the process's own.
struct World {
    dir: tempfile::TempDir,
    document: Option<&'static str>,
}

const PROFILES: &str = r#"{
    "active_profile": "here",
    "profiles": {
        "here": {"backend": "local"},
        "there": {"backend": "cloud", "url": "https://one.example/", "api_key_ref": "env:ONE_KEY"},
        "secret": {"backend": "cloud", "api_key_ref": "inline:hunter2"},
        "keyless": {"backend": "cloud"}
    }
}"#;

impl World {
    fn new(document: Option<&'static str>) -> World {
        World { dir: tempfile::tempdir().unwrap(), document }
    }
    fn config(&self) -> PathBuf {
        let path = self.dir.path().join("config.json");
        if let Some(text) = self.document {
            std::fs::write(&path, text).unwrap();
        }
        path
    }
    fn resolve(&self, variables: &[(&str, &str)]) -> Found {
        let mut pairs = vec![("MSB_CONFIG_PATH".to_string(), self.config().into_os_string())];
        pairs.extend(variables.iter().map(|(name, value)| (name.to_string(), value.into())));
        let resolution = resolve_from(&Environment::of(pairs));
        let outcome = match resolution.backend {
            Ok(backend) if backend.as_local().is_some() => "local".into(),
            Ok(backend) => {
                let address = backend.remote_address().expect("neither local nor cloud");
                assert_eq!(resolution.info.api_url, Some(address.url));
                "cloud".into()
            }
            Err(MicrosandboxError::InvalidConfig(text)) => format!("invalid: {text}"),
            Err(error) => panic!("{error:?}"),
        };
        assert!(!outcome.contains("hunter2") && !format!("{:?}", resolution.info).contains("hunter2"));
        Found { outcome, info: resolution.info }
    }
}

struct Found {
    outcome: String,
    info: BackendInfo,
}

impl Found {
    #[track_caller]
    fn is(&self, outcome: &str, source: &str, profile: Option<&str>) {
        let found = (self.outcome.as_str(), self.info.source, self.info.profile.as_deref());
        assert_eq!(found, (outcome, source, profile));
    }
    #[track_caller]
    fn is_invalid(&self, word: &str) {
        assert!(self.outcome.starts_with("invalid:") && self.outcome.contains(word), "{}", self.outcome);
    }
}

// case: 13
#[test]
fn each_rung_alone_selects_its_backend() {
    let bare = World::new(None);
    bare.resolve(&[]).is("local", "default", None);
    bare.resolve(&[("MSB_BACKEND", " LOCAL ")]).is("local", "MSB_BACKEND", None);
    let direct = bare.resolve(&[("MSB_BACKEND", "cloud"), ("MSB_API_KEY", "hunter2")]);
    direct.is("cloud", "MSB_BACKEND", None);
    assert_eq!(direct.info.api_url.as_deref(), Some("https://api.microsandbox.dev"));
    let world = World::new(Some(PROFILES));
    world.resolve(&[]).is("local", "active_profile", Some("here"));
    let there = world.resolve(&[("MSB_PROFILE", "there"), ("ONE_KEY", "hunter2")]);
    there.is("cloud", "MSB_PROFILE", Some("there"));
    assert_eq!(there.info.api_url.as_deref(), Some("https://one.example"));
    assert_eq!(there.info.kind, BackendKind::Cloud);
}

// case: 14
#[test]
fn higher_rungs_beat_lower_ones() {
    let world = World::new(Some(PROFILES));
    let all = [
        ("MSB_BACKEND", "cloud"),
        ("MSB_API_KEY", "hunter2"),
        ("MSB_API_URL", "https://two.example//"),
        ("MSB_PROFILE", "here"),
        ("ONE_KEY", "hunter2"),
    ];
    let direct = world.resolve(&all);
    direct.is("cloud", "MSB_BACKEND", None);
    assert_eq!(direct.info.api_url.as_deref(), Some("https://two.example"));
    world.resolve(&[("MSB_PROFILE", "secret")]).is("cloud", "MSB_PROFILE", Some("secret"));
    world.resolve(&[("MSB_BACKEND", "cloud"), ("MSB_PROFILE", "there"), ("ONE_KEY", "hunter2")]).is(
        "cloud",
        "MSB_PROFILE",
        Some("there"),
    );
    world.resolve(&[("MSB_PROFILE", " ")]).is("local", "active_profile", Some("here"));
}

// case: 15
#[test]
fn half_a_pair_never_selects_the_cloud() {
    let bare = World::new(None);
    let credentials = [("MSB_API_KEY", "hunter2"), ("MSB_API_URL", "https://two.example")];
    bare.resolve(&credentials).is("cloud", "MSB_API_KEY", None);
    bare.resolve(&credentials[..1]).is("local", "default", None);
    bare.resolve(&credentials[1..]).is("local", "default", None);
    let profiles = World::new(Some(PROFILES));
    profiles.resolve(&[credentials[0], credentials[1], ("MSB_PROFILE", "here")]).is("cloud", "MSB_API_KEY", None);
    let broken = World::new(Some("{ broken"));
    let mut variables = vec![("MSB_BACKEND", "local"), ("MSB_PROFILE", "there")];
    variables.extend(credentials);
    broken.resolve(&variables).is("local", "MSB_BACKEND", None);
    broken.resolve(&[("MSB_BACKEND", "cloud"), ("MSB_API_KEY", "hunter2")]).is("cloud", "MSB_BACKEND", None);
}

// case: 23
#[test]
fn an_unknown_profile_is_an_error() {
    let world = World::new(Some(PROFILES));
    world.resolve(&[("MSB_PROFILE", "nowhere")]).is_invalid("nowhere");
    World::new(Some(r#"{"active_profile": "nowhere"}"#)).resolve(&[]).is_invalid("nowhere");
}

#[test]
fn a_demand_for_the_cloud_never_ends_here() {
    World::new(None).resolve(&[("MSB_BACKEND", "cloud")]).is_invalid("MSB_API_KEY");
    let world = World::new(Some(PROFILES));
    world.resolve(&[("MSB_BACKEND", "cloud")]).is_invalid("local one");
    world.resolve(&[("MSB_PROFILE", "keyless")]).is_invalid("api_key_ref");
    world.resolve(&[("MSB_PROFILE", "there")]).is_invalid("ONE_KEY");
    for value in ["", "clowd"] {
        world.resolve(&[("MSB_BACKEND", value)]).is_invalid("MSB_BACKEND");
    }
    World::new(Some("{ broken")).resolve(&[]).is_invalid("malformed");
}

/// This binary again, only `test`, in an environment of its own.
fn in_a_process(test: &str, variables: &[(&str, &str)]) {
    #[allow(clippy::disallowed_methods, reason = "what is resolved once per process needs a process for each case")]
    let mut child = Command::new("/proc/self/exe");
    child.args(["--exact", test, "--ignored", "--nocapture"]).stdin(Stdio::null());
    for name in ["MSB_BACKEND", "MSB_API_KEY", "MSB_API_URL", "MSB_PROFILE", "MSB_HOME", "MSB_CONFIG_PATH"] {
        child.env_remove(name);
    }
    let output = child.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

// case: 8, 9
#[test]
fn a_failed_resolution_fails_every_operation() {
    let world = World::new(Some("{ broken"));
    in_a_process(
        "default_backend::child_with_a_broken_document",
        &[("MSB_CONFIG_PATH", world.config().to_str().unwrap())],
    );
}

#[test]
#[ignore = "a child of a_failed_resolution_fails_every_operation"]
fn child_with_a_broken_document() {
    run(async {
        let backend = default_backend();
        assert_eq!((backend.kind(), default_backend_info().kind), (BackendKind::Cloud, BackendKind::Cloud));
        assert!(backend.as_local().is_none());
        std::fs::write(std::env::var_os("MSB_CONFIG_PATH").unwrap(), "{}").unwrap();
        assert!(resolve_default_backend().is_ok(), "a direct call looks again");
        assert!(is_default(&backend), "the default does not");
        let reasons = [
            backend.sandboxes().get("a").await.err(),
            backend.sandboxes().wait("a").await.err(),
            backend.sandboxes().agent("a").files().read("/x", u64::MAX).await.err(),
            backend.sandboxes().agent("a").ping().await.err(),
            backend.volumes().create(VolumeConfig::default()).await.err(),
            backend.images().list().await.err(),
            backend.images().doctor(false).await.err(),
        ];
        for (n, reason) in reasons.into_iter().enumerate() {
            let Some(MicrosandboxError::InvalidConfig(text)) = reason else { panic!("{n}: {reason:?}") };
            assert!(text.contains("malformed"), "{text}");
        }
    });
}

// case: 10
#[test]
fn concurrent_first_access_gives_one_instance() {
    let world = World::new(None);
    in_a_process("default_backend::child_with_many_threads", &[("MSB_HOME", world.dir.path().to_str().unwrap())]);
}

#[test]
#[ignore = "a child of concurrent_first_access_gives_one_instance"]
fn child_with_many_threads() {
    let start = std::sync::Barrier::new(16);
    let found: Vec<SharedBackend> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| (start.wait(), default_backend()).1)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.iter().all(|backend| Arc::ptr_eq(backend, &found[0])));
}

// case: 12
#[test]
fn a_handle_keeps_its_backend_whatever_the_scope_names() {
    run(async {
        let (own, other) = (
            Scripted::new(&[Some(SandboxStatus::Running)], Some("stop")),
            Scripted::new(&[Some(SandboxStatus::Running)], None),
        );
        let handle = scripted::of(&own, SandboxStatus::Running);
        let scope: SharedBackend = other.clone();
        with_backend(scope, async { handle.stop(None).await.unwrap() }).await;
        assert_eq!(own.asked(), ["stop"]);
        assert!(other.asked().is_empty() && other.looked.lock().unwrap().is_empty());
    });
}
