//! Changes of a sandbox between a look at it and the request that follows.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use microsandbox_core::api::{SandboxHandleInner, SandboxInner, SandboxRecord};
use microsandbox_core::backend::*;
use microsandbox_core::model::{ExecOutput, SandboxConfig, SandboxSpec, SandboxStatus};
use microsandbox_core::{MicrosandboxError, Sandbox};

use SandboxStatus::{Crashed, Running, Starting, Stopped};

/// A backend whose sandbox is never what the last look at it said.
struct Changing {
    /// What each look sees, one after the other; the last one stays. `None`: the record is gone.
    looks: Mutex<VecDeque<Option<SandboxStatus>>>,
    /// What a request then finds.
    found: Option<SandboxStatus>,
    ephemeral: bool,
    requests: AtomicUsize,
}

impl Changing {
    fn shared(looks: &[Option<SandboxStatus>], found: Option<SandboxStatus>, ephemeral: bool) -> Arc<Changing> {
        let looks = Mutex::new(looks.iter().copied().collect());
        Arc::new(Changing { looks, found, ephemeral, requests: AtomicUsize::new(0) })
    }

    fn look(&self) -> Option<SandboxStatus> {
        let mut looks = self.looks.lock().unwrap();
        if looks.len() > 1 { looks.pop_front().unwrap() } else { looks[0] }
    }

    fn request<'a, T: Send + 'a>(&'a self, name: &'a str) -> Operation<'a, T> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            Err(match self.found {
                Some(status) => MicrosandboxError::SandboxNotRunning { name: name.into(), status },
                None => not_found(name),
            })
        })
    }
}

fn not_found(name: &str) -> MicrosandboxError {
    MicrosandboxError::SandboxNotFound(name.into())
}

impl Backend for Changing {
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

/// Files that cannot do anything.
struct Nothing;

impl Files for Nothing {
    fn lacks(&self, call: &'static str) -> MicrosandboxError {
        MicrosandboxError::Runtime(format!("no {call} here"))
    }
}

impl VolumeBackend for Changing {
    fn files<'a>(&'a self, _: &'a str) -> Box<dyn Files + 'a> {
        Box::new(Nothing)
    }
}

impl SandboxBackend for Changing {
    fn create(&self, request: CreateRequest) -> Operation<'_, LiveRecord> {
        Box::pin(async move { Err(MicrosandboxError::SandboxAlreadyExists(request.config.spec.name)) })
    }
    fn start<'a>(&'a self, request: StartRequest<'a>) -> Operation<'a, LiveRecord> {
        Box::pin(async move { Err(MicrosandboxError::SandboxStillRunning(request.name.into())) })
    }
    fn connect<'a>(&'a self, request: ConnectRequest<'a>) -> Operation<'a, LiveRecord> {
        let spec = SandboxSpec { name: request.name.into(), ..SandboxSpec::default() };
        Box::pin(async move { Ok(LiveRecord { inner: SandboxInner::Other, spec, boot: Vec::new() }) })
    }
    fn get<'a>(&'a self, name: &'a str) -> Operation<'a, SandboxRecord> {
        Box::pin(async move {
            let status = self.look().ok_or_else(|| not_found(name))?;
            let mut spec = SandboxSpec { name: name.into(), ..SandboxSpec::default() };
            spec.lifecycle.ephemeral = self.ephemeral;
            Ok(SandboxRecord {
                name: name.into(),
                id: String::new(),
                status,
                config_json: serde_json::to_string(&spec).unwrap(),
                owner: None,
                created_at: None,
                updated_at: None,
                isolation: None,
                last_run: None,
                last_error: None,
                inner: SandboxHandleInner::Other,
            })
        })
    }
    fn list(&self, _: ListQuery) -> Operation<'_, RecordPage> {
        Box::pin(async { Ok(RecordPage { records: Vec::new(), next_cursor: None }) })
    }
    fn remove<'a>(&'a self, _: RemoveRequest<'a>) -> Operation<'a, ()> {
        Box::pin(async { Ok(()) })
    }
    fn stop<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        self.request(name)
    }
    fn kill<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        self.request(name)
    }
    fn drain<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        self.request(name)
    }
    fn agent<'a>(&'a self, name: &'a str) -> Box<dyn Agent + 'a> {
        Box::new(Requested { of: self, name })
    }
}

/// Its programs: a request as the others.
struct Requested<'a> {
    of: &'a Changing,
    name: &'a str,
}

impl Agent for Requested<'_> {
    fn exec<'a>(&'a self, _: ExecRequest<'a>) -> Operation<'a, ExecOutput> {
        self.of.request(self.name)
    }
    fn files<'a>(self: Box<Self>) -> Box<dyn Files + 'a>
    where
        Self: 'a,
    {
        Box::new(Nothing)
    }
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs") });
}

/// Asks for the end of a sandbox that looks alive and, asked, is `found`; exactly one request reaches the backend.
async fn ask(way: &str, found: Option<SandboxStatus>, ephemeral: bool) -> Result<(), MicrosandboxError> {
    // One look to make the handle, one before the request; afterwards it is what was found.
    let changing = Changing::shared(&[Some(Running), Some(Running), found], found, ephemeral);
    let backend: SharedBackend = changing.clone();
    let handle = Sandbox::get(&backend, "box").await.unwrap();
    let result = match way {
        "request_stop" => handle.request_stop().await,
        "request_kill" => handle.request_kill().await,
        "request_drain" => handle.request_drain().await,
        "kill" => handle.kill(None).await,
        "stop" => handle.stop(None).await,
        "stop at once" => handle.stop(Some(Duration::ZERO)).await,
        _ => handle.stop_with_timeout(Duration::from_secs(5)).await,
    };
    assert_eq!(changing.requests.load(Ordering::Relaxed), 1, "{way} proves nothing without its request");
    result
}

const WAYS: [&str; 7] =
    ["request_stop", "request_kill", "request_drain", "kill", "stop", "stop at once", "stop_with_timeout"];

// hazard: L3
#[test]
fn a_stop_of_an_ended_sandbox_is_no_error() {
    run(async {
        for found in [Stopped, Crashed] {
            for way in WAYS {
                let result = ask(way, Some(found), false).await;
                assert!(result.is_ok(), "{way} of one that is {found:?}: {result:?}");
            }
        }
    });
}

// hazard: L3
#[test]
fn an_ephemeral_sandbox_that_is_gone_has_ended() {
    run(async {
        for way in WAYS {
            let result = ask(way, None, true).await;
            assert!(result.is_ok(), "{way}: {result:?}");
            let result = ask(way, None, false).await;
            assert!(matches!(result, Err(MicrosandboxError::SandboxNotFound(_))), "{way}, not ephemeral: {result:?}");
        }
    });
}

// hazard: L3
#[test]
fn a_request_to_one_that_has_not_ended_still_fails() {
    run(async {
        for way in WAYS {
            let result = ask(way, Some(Starting), false).await;
            assert!(matches!(result, Err(MicrosandboxError::SandboxNotRunning { .. })), "{way}: {result:?}");
        }
    });
}

// hazard: L3
#[test]
fn connect_or_start_rereads_after_a_concurrent_start() {
    run(async {
        // The handle's look and the first turn's see it stopped; its start finds it running; the second turn sees that.
        let changing = Changing::shared(&[Some(Stopped), Some(Stopped), Some(Running)], Some(Running), false);
        let backend: SharedBackend = changing;
        let handle = Sandbox::get(&backend, "box").await.unwrap();
        assert_eq!(handle.connect_or_start(false).await.unwrap().name(), "box");
    });
}

// hazard: L3
#[test]
fn connect_or_create_uses_a_concurrent_creation() {
    run(async {
        let changing = Changing::shared(&[None, Some(Running)], Some(Running), false);
        let backend: SharedBackend = changing;
        let config = SandboxConfig {
            spec: SandboxSpec { name: "box".into(), ..SandboxSpec::default() },
            ..SandboxConfig::default()
        };
        assert_eq!(Sandbox::connect_or_create(&backend, config).await.unwrap().name(), "box");
    });
}
