//! A backend that says what a test wants said, and notes what it was asked for.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use microsandbox_core::api::{LastRun, SandboxHandleInner, SandboxRecord};
use microsandbox_core::backend::*;
use microsandbox_core::model::{ExecOutput, SandboxSpec, SandboxStatus};
use microsandbox_core::{MicrosandboxError, MicrosandboxResult, SandboxHandle};

/// Reports the scripted state of its sandbox, and records each request.
#[derive(Default)]
pub struct Scripted {
    /// What each look sees, one after the other; the last one stays. `None`: the look fails.
    looks: Mutex<VecDeque<Option<SandboxStatus>>>,
    asked: Mutex<Vec<&'static str>>,
    pub looked: Mutex<Vec<Instant>>,
    /// The sandbox is stopped as soon as it was asked so.
    obeys: Option<&'static str>,
}

impl Scripted {
    pub fn new(looks: &[Option<SandboxStatus>], obeys: Option<&'static str>) -> Arc<Scripted> {
        Arc::new(Scripted { looks: Mutex::new(looks.iter().copied().collect()), obeys, ..Scripted::default() })
    }
    pub fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().unwrap().clone()
    }
    fn ask<'a, T: Send + 'a>(&'a self, what: &'static str, answer: MicrosandboxResult<T>) -> Operation<'a, T> {
        self.asked.lock().unwrap().push(what);
        if self.obeys == Some(what) {
            *self.looks.lock().unwrap() = [Some(SandboxStatus::Stopped)].into();
        }
        Box::pin(async { answer })
    }
}

pub fn record(status: SandboxStatus, config_json: String) -> SandboxRecord {
    SandboxRecord {
        name: "box".into(),
        id: String::new(),
        status,
        config_json,
        owner: None,
        created_at: None,
        updated_at: None,
        isolation: None,
        last_run: Some(LastRun { exit_code: Some(3), ..LastRun::default() }),
        last_error: None,
        inner: SandboxHandleInner::Other,
    }
}

pub fn of(backend: &Arc<Scripted>, status: SandboxStatus) -> SandboxHandle {
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

/// Files that cannot do anything.
struct Nothing;

impl Files for Nothing {
    fn lacks(&self, call: &'static str) -> MicrosandboxError {
        MicrosandboxError::Runtime(format!("no {call} here"))
    }
}

impl VolumeBackend for Scripted {
    fn files<'a>(&'a self, _: &'a str) -> Box<dyn Files + 'a> {
        Box::new(Nothing)
    }
}

impl SandboxBackend for Scripted {
    fn create(&self, request: CreateRequest) -> Operation<'_, LiveRecord> {
        self.ask("create", Err(MicrosandboxError::SandboxAlreadyExists(request.config.spec.name)))
    }
    fn start<'a>(&'a self, _: StartRequest<'a>) -> Operation<'a, LiveRecord> {
        self.ask("start", Err(MicrosandboxError::Runtime("no room".into())))
    }
    fn connect<'a>(&'a self, _: ConnectRequest<'a>) -> Operation<'a, LiveRecord> {
        self.ask("connect", Err(MicrosandboxError::Runtime("reached".into())))
    }
    fn get<'a>(&'a self, _: &'a str) -> Operation<'a, SandboxRecord> {
        self.looked.lock().unwrap().push(Instant::now());
        let mut looks = self.looks.lock().unwrap();
        let seen = if looks.len() > 1 { looks.pop_front().unwrap() } else { looks[0] };
        let answer = match seen {
            Some(status) => Ok(record(status, "{}".into())),
            None => Err(MicrosandboxError::Runtime("the look failed".into())),
        };
        Box::pin(async { answer })
    }
    fn list(&self, _: ListQuery) -> Operation<'_, RecordPage> {
        Box::pin(async { Ok(RecordPage { records: Vec::new(), next_cursor: None }) })
    }
    fn remove<'a>(&'a self, _: RemoveRequest<'a>) -> Operation<'a, ()> {
        self.ask("remove", Ok(()))
    }
    fn stop<'a>(&'a self, _: &'a str) -> Operation<'a, ()> {
        self.ask("stop", Ok(()))
    }
    fn kill<'a>(&'a self, _: &'a str) -> Operation<'a, ()> {
        self.ask("kill", Ok(()))
    }
    fn drain<'a>(&'a self, _: &'a str) -> Operation<'a, ()> {
        self.ask("drain", Ok(()))
    }
    fn agent<'a>(&'a self, _: &'a str) -> Box<dyn Agent + 'a> {
        Box::new(Asked(self))
    }
}

/// Runs nothing, and notes that it was asked.
struct Asked<'a>(&'a Scripted);

impl Agent for Asked<'_> {
    fn exec<'a>(&'a self, _: ExecRequest<'a>) -> Operation<'a, ExecOutput> {
        self.0.ask("exec", Err(MicrosandboxError::Runtime("no programs here".into())))
    }
    fn files<'a>(self: Box<Self>) -> Box<dyn Files + 'a>
    where
        Self: 'a,
    {
        Box::new(Nothing)
    }
}

pub fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") });
}
