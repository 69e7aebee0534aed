//! What a handle does by itself, whatever its backend is: cases 44 to 64 of the backends' specification, section 11.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use microsandbox_core::api::{LastRun, SandboxHandleInner, SandboxRecord};
use microsandbox_core::backend::*;
use microsandbox_core::model::{ExecOptions, ExecOutput, SandboxConfig, SandboxSpec, SandboxStatus};
use microsandbox_core::{MicrosandboxError, MicrosandboxResult, Sandbox, SandboxHandle};

use SandboxStatus::{Crashed, Created, Draining, Paused, Running, Starting, Stopped};

/// Says of its sandbox what it is told to say, and remembers what it was asked for.
#[derive(Default)]
struct Scripted {
    /// What each look sees, one after the other; the last one stays. `None`: the look fails.
    looks: Mutex<VecDeque<Option<SandboxStatus>>>,
    asked: Mutex<Vec<&'static str>>,
    looked: Mutex<Vec<Instant>>,
    /// The sandbox is stopped as soon as it was asked so.
    obeys: Option<&'static str>,
}

impl Scripted {
    fn new(looks: &[Option<SandboxStatus>], obeys: Option<&'static str>) -> Arc<Scripted> {
        Arc::new(Scripted { looks: Mutex::new(looks.iter().copied().collect()), obeys, ..Scripted::default() })
    }
    fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().unwrap().clone()
    }
    fn ask<'a, T: Send + 'a>(&'a self, what: &'static str, answer: MicrosandboxResult<T>) -> Operation<'a, T> {
        self.asked.lock().unwrap().push(what);
        if self.obeys == Some(what) {
            *self.looks.lock().unwrap() = [Some(Stopped)].into();
        }
        Box::pin(async { answer })
    }
}

fn record(status: SandboxStatus, config_json: String) -> SandboxRecord {
    SandboxRecord {
        name: "box".into(),
        id: String::new(),
        status,
        config_json,
        created_at: None,
        updated_at: None,
        isolation: None,
        last_run: Some(LastRun { exit_code: Some(3), ..LastRun::default() }),
        last_error: None,
        inner: SandboxHandleInner::Other,
    }
}

fn of(backend: &Arc<Scripted>, status: SandboxStatus) -> SandboxHandle {
    let text = serde_json::to_string(&SandboxSpec { name: "box".into(), ..SandboxSpec::default() }).unwrap();
    SandboxHandle::new(backend.clone(), record(status, text))
}

impl Backend for Scripted {
    fn kind(&self) -> BackendKind {
        BackendKind::Local
    }
    fn sandboxes(&self) -> &dyn SandboxBackend {
        self
    }
    fn volumes(&self) -> &dyn VolumeBackend {
        self
    }
}

impl VolumeBackend for Scripted {}

impl SandboxBackend for Scripted {
    fn create<'a>(&'a self, _: &'a SharedBackend, config: SandboxConfig, _: bool) -> Operation<'a, Sandbox> {
        self.ask("create", Err(MicrosandboxError::SandboxAlreadyExists(config.spec.name)))
    }
    fn start<'a>(&'a self, _: &'a SharedBackend, _: &'a str, _: bool) -> Operation<'a, Sandbox> {
        self.ask("start", Err(MicrosandboxError::Runtime("no room".into())))
    }
    fn connect<'a>(&'a self, _: &'a SharedBackend, _: &'a str, _: Duration) -> Operation<'a, Sandbox> {
        self.ask("connect", Err(MicrosandboxError::Runtime("reached".into())))
    }
    fn get<'a>(&'a self, backend: &'a SharedBackend, _: &'a str) -> Operation<'a, SandboxHandle> {
        self.looked.lock().unwrap().push(Instant::now());
        let mut looks = self.looks.lock().unwrap();
        let seen = if looks.len() > 1 { looks.pop_front().unwrap() } else { looks[0] };
        let answer = match seen {
            Some(status) => Ok(SandboxHandle::new(backend.clone(), record(status, "{}".into()))),
            None => Err(MicrosandboxError::Runtime("the look failed".into())),
        };
        Box::pin(async { answer })
    }
    fn list<'a>(&'a self, _: &'a SharedBackend, _: ListQuery) -> Operation<'a, SandboxList> {
        Box::pin(async { Ok(SandboxList { sandboxes: Vec::new(), next_cursor: None }) })
    }
    fn remove<'a>(&'a self, _: &'a SharedBackend, _: &'a str, _: Option<&'a str>) -> Operation<'a, ()> {
        self.ask("remove", Ok(()))
    }
    fn stop<'a>(&'a self, _: &'a SharedBackend, _: &'a str) -> Operation<'a, ()> {
        self.ask("stop", Ok(()))
    }
    fn kill<'a>(&'a self, _: &'a SharedBackend, _: &'a str) -> Operation<'a, ()> {
        self.ask("kill", Ok(()))
    }
    fn drain<'a>(&'a self, _: &'a SharedBackend, _: &'a str) -> Operation<'a, ()> {
        self.ask("drain", Ok(()))
    }
    fn exec<'a>(&'a self, _: &'a str, _: &'a SandboxSpec, _: String, _: ExecOptions) -> Operation<'a, ExecOutput> {
        self.ask("exec", Err(MicrosandboxError::Runtime("no programs here".into())))
    }
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") });
}

const SOON: Option<Duration> = Some(Duration::from_millis(150));

// case: 45
#[test]
fn a_configuration_that_is_no_json_keeps_its_text() {
    let backend = Scripted::new(&[Some(Stopped)], None);
    let handle = SandboxHandle::new(backend.clone(), record(Stopped, "{broken".into()));
    assert!(handle.config().is_err_and(|error| error.to_string().contains("box")));
    assert_eq!(handle.config_json(), "{broken");
    assert_eq!(of(&backend, Stopped).config().unwrap().name, "box");
}

// case: 48, 55
#[test]
fn what_has_ended_is_stopped_without_asking() {
    run(async {
        for ended in [Stopped, Crashed] {
            let backend = Scripted::new(&[Some(ended)], None);
            let handle = of(&backend, Running);
            handle.stop(None).await.unwrap();
            handle.kill(None).await.unwrap();
            handle.request_stop().await.unwrap();
            handle.request_kill().await.unwrap();
            handle.request_drain().await.unwrap();
            assert_eq!(backend.asked(), [""; 0], "{ended:?}");
        }
    });
}

// case: 49
#[test]
fn a_stop_that_is_heard_needs_no_force() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], Some("stop"));
        of(&backend, Running).stop(None).await.unwrap();
        assert_eq!(backend.asked(), ["stop"]);
    });
}

// case: 50
#[test]
fn a_stop_that_is_not_heard_ends_in_a_kill() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], Some("kill"));
        of(&backend, Running).stop(SOON).await.unwrap();
        assert_eq!(backend.asked(), ["stop", "kill"]);
    });
}

// case: 51, 54
#[test]
fn surviving_a_kill_is_an_error_with_the_name() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], None);
        for done in [of(&backend, Running).kill(SOON).await, of(&backend, Running).stop(SOON).await] {
            let error = done.unwrap_err();
            assert!(matches!(error, MicrosandboxError::Runtime(_)), "{error:?}");
            assert!(error.to_string().contains("box") && error.to_string().contains("after the kill"), "{error}");
        }
        assert_eq!(backend.asked(), ["kill", "stop", "kill"]);
    });
}

// case: 52
#[test]
fn a_stop_without_time_is_a_kill() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], Some("kill"));
        of(&backend, Running).stop(Some(Duration::ZERO)).await.unwrap();
        assert_eq!(backend.asked(), ["kill"]);
    });
}

// case: 53
#[test]
fn a_failed_query_while_waiting_is_reported() {
    run(async {
        let backend = Scripted::new(&[Some(Running), Some(Running), None], None);
        let error = of(&backend, Running).stop(None).await.unwrap_err();
        assert!(error.to_string().contains("the look failed"), "{error}");
        assert_eq!(backend.asked(), ["stop"]);
    });
}

// case: 55
#[test]
fn a_request_waits_for_no_end() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], None);
        let handle = of(&backend, Running);
        handle.request_stop().await.unwrap();
        handle.request_kill().await.unwrap();
        handle.request_drain().await.unwrap();
        assert_eq!(backend.asked(), ["stop", "kill", "drain"]);
    });
}

// case: 56
#[test]
fn waiting_for_what_has_ended_looks_once() {
    run(async {
        let backend = Scripted::new(&[Some(Crashed)], None);
        let result = of(&backend, Running).wait_until_stopped().await.unwrap();
        assert_eq!((result.name.as_str(), result.status, result.exit_code), ("box", Crashed, Some(3)));
        assert_eq!(result.source.as_deref(), Some("refreshed backend state"));
        assert_eq!(backend.looked.lock().unwrap().len(), 1);
        assert_eq!(backend.asked(), [""; 0]);
    });
}

// case: 57
#[test]
fn waiting_polls_every_tenth_of_a_second() {
    run(async {
        let backend = Scripted::new(&[Some(Running), Some(Running), Some(Running), Some(Stopped)], None);
        of(&backend, Running).wait_until_stopped().await.unwrap();
        let looked = backend.looked.lock().unwrap();
        assert_eq!(looked.len(), 4);
        // A busy machine looks later, never sooner.
        for pair in looked.windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_millis(95), "{:?}", pair[1] - pair[0]);
        }
    });
}

// case: 58
#[test]
fn connecting_goes_by_what_the_handle_saw() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], None);
        for status in [Stopped, Crashed, Starting, Paused] {
            let error = of(&backend, status).connect(None).await.unwrap_err();
            assert!(
                matches!(&error, MicrosandboxError::SandboxNotRunning { name, status: told } if name == "box" && *told == status),
                "{error:?}"
            );
        }
        assert_eq!(backend.asked(), [""; 0]);
        let now = of(&backend, Stopped).refresh().await.unwrap();
        assert_eq!((now.status_snapshot(), of(&backend, Draining).status_snapshot()), (Running, Draining));
        for handle in [now, of(&backend, Draining)] {
            assert!(handle.connect(None).await.is_err_and(|error| error.to_string().contains("reached")));
        }
    });
}

// case: 64
#[test]
fn a_start_that_fails_leaves_the_handle_usable() {
    run(async {
        let backend = Scripted::new(&[Some(Stopped)], None);
        let handle = of(&backend, Stopped);
        assert!(handle.start(false).await.is_err_and(|error| error.to_string().contains("no room")));
        assert_eq!(handle.refresh().await.unwrap().status_snapshot(), Stopped);
        handle.remove().await.unwrap();
        assert_eq!(backend.asked(), ["start", "remove"]);
    });
}

// case: 12
#[test]
fn a_handle_keeps_its_backend_whatever_the_scope_names() {
    run(async {
        let (own, other) = (Scripted::new(&[Some(Running)], Some("stop")), Scripted::new(&[Some(Running)], None));
        let handle = of(&own, Running);
        let scope: SharedBackend = other.clone();
        with_backend(scope, async { handle.stop(None).await.unwrap() }).await;
        assert_eq!(own.asked(), ["stop"]);
        assert!(other.asked().is_empty() && other.looked.lock().unwrap().is_empty());
    });
}

// case: 101
#[test]
fn debug_output_shows_name_kind_and_status_only() {
    let backend = Scripted::new(&[Some(Running)], None);
    let handle = SandboxHandle::new(backend, record(Running, r#"{"env": "a-secret"}"#.into()));
    assert_eq!(format!("{handle:?}"), r#"SandboxHandle { name: "box", backend_kind: Local, status: Running }"#);
}

// case: 61
#[test]
fn what_is_live_is_not_removed() {
    for status in [Running, Draining, Paused] {
        assert!(status.blocks_remove(), "{status:?}");
    }
    for status in [Stopped, Crashed, Created, Starting] {
        assert!(!status.blocks_remove(), "{status:?}");
    }
}
