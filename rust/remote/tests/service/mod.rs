//! Services for the cloud client to meet: polite ones over wiremock, and one that sends the bytes it was given.

#![allow(dead_code, reason = "each test file uses a part")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use microsandbox_core::backend::{ExecRequest, SharedBackend};
use microsandbox_core::config::Wire;
use microsandbox_core::model::{ExecHandle, ExecOptions, ExecOutput, ImageSource, SandboxConfig, SandboxSpec};
use microsandbox_core::{MicrosandboxError, Sandbox, SandboxHandle};
use microsandbox_remote::CloudBackend;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

pub const KEY: &str = "msb_test_hunter2hunter2";
pub const ID: &str = "11111111-2222-3333-4444-555555555555";
const DEADLINE: Duration = Duration::from_secs(60);

pub async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(DEADLINE, work).await.expect("the deadline of this test passed")
}

pub fn cloud(url: &str, wire: Wire) -> CloudBackend {
    CloudBackend::builder().url(url).api_key(KEY).wire(wire).build().unwrap()
}

pub fn client(url: &str, wire: Wire) -> SharedBackend {
    cloud(url, wire).into()
}

pub fn hasty(url: &str, timeout: Duration) -> SharedBackend {
    CloudBackend::builder().url(url).api_key(KEY).request_timeout(timeout).build().unwrap().into()
}

pub fn answer(status: &str) -> Value {
    json!({
        "id": ID, "org_id": ID, "name": "box", "status": status, "ephemeral": false,
        "created_at": "2026-01-01T00:00:00Z", "spec": {"image": "alpine"}, "later": 1,
    })
}

pub fn config() -> SandboxConfig {
    let image = ImageSource::Oci { reference: "alpine".into() };
    SandboxConfig {
        spec: SandboxSpec { name: "box".into(), image, ..SandboxSpec::default() },
        ..SandboxConfig::default()
    }
}

pub async fn serving(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(template).mount(&server).await;
    server
}

pub async fn with_status(status: &str) -> MockServer {
    serving(ResponseTemplate::new(200).set_body_json(answer(status))).await
}

pub async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.unwrap()
}

/// Method and path of everything that came.
pub async fn calls(server: &MockServer) -> Vec<String> {
    requests(server).await.iter().map(|request| format!("{} {}", request.method, request.url.path())).collect()
}

pub async fn get(backend: &SharedBackend) -> Result<SandboxHandle, MicrosandboxError> {
    soon(Sandbox::get(backend, "box")).await
}

/// Runs a program of the sandbox to its end.
pub async fn exec(backend: &SharedBackend, cmd: &str) -> Result<ExecOutput, MicrosandboxError> {
    let spec = SandboxSpec::default();
    let request = ExecRequest { spec: &spec, cmd: cmd.into(), options: ExecOptions::default() };
    soon(backend.sandboxes().agent("box").exec(request)).await
}

/// Starts a program of the sandbox.
pub async fn exec_stream(
    backend: &SharedBackend,
    cmd: &str,
    options: ExecOptions,
) -> Result<ExecHandle, MicrosandboxError> {
    let spec = SandboxSpec::default();
    let request = ExecRequest { spec: &spec, cmd: cmd.into(), options };
    soon(backend.sandboxes().agent("box").exec_stream(request)).await
}

/// Feature and hint of a refusal.
pub fn refused<T>(result: Result<T, MicrosandboxError>) -> (String, String) {
    match result.map(drop) {
        Err(MicrosandboxError::Unsupported { feature, available_when }) => (feature, available_when),
        other => panic!("not refused: {other:?}"),
    }
}

/// Every connection is handed to a script, after its first request's head.
pub struct Liar {
    pub url: String,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Liar {
    pub async fn new<F: Future<Output = ()> + Send + 'static>(
        script: impl Fn(TcpStream, String) -> F + Send + Sync + Clone + 'static,
    ) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let script = script.clone();
                tokio::spawn(async move {
                    let head = head(&mut stream).await;
                    script(stream, head).await;
                });
            }
        });
        Liar { url, connections, task }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A client may have left: that is what some tests are about.
pub async fn say(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) -> bool {
    stream.write_all(bytes.as_ref()).await.is_ok()
}

pub fn whole_answer(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
