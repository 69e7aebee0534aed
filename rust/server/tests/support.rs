//! A server over the memory backend on a loopback port, and a client that sends exactly what a test writes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use microsandbox_fake::MemoryBackend;
use microsandbox_server::{AccessLog, Keys, Limits, Policy, Scope, Server, ServerConfig, bind};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const DEADLINE: Duration = Duration::from_secs(30);

/// The lines of the access log.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub struct Running {
    pub address: SocketAddr,
    pub keys: Keys,
    pub key: String,
    pub owner: String,
    pub backend: MemoryBackend,
    pub log: Lines,
    home: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn start(limits: Limits) -> Running {
        let home = tempfile::tempdir().unwrap();
        let keys = Keys::new(home.path());
        let (made, key) = keys.create("test", &Scope::ALL, None).unwrap();
        let owner = made.owner().to_owned();
        let (backend, log) = (MemoryBackend::new(), Lines::default());
        let config = ServerConfig {
            directory: home.path().to_path_buf(),
            limits,
            policy: Policy { host_image: true, ..Policy::default() },
            private: Vec::new(),
            tls: None,
            access_log: AccessLog::to(Box::new(log.clone())).unwrap(),
        };
        let server = Server::new(Arc::new(backend.clone()), config).unwrap();
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(listener, async {
            let _ = stopped.await;
        }));
        Running { address, keys, key, owner, backend, log, home, stop: Some(stop), task }
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// How the backend calls what the key of this server calls `name`.
    pub fn stored(&self, name: &str) -> String {
        format!("{}-{name}", self.owner)
    }

    pub fn request_shutdown(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub async fn end(mut self) {
        if self.stop.is_some() {
            self.request_shutdown();
        }
        tokio::time::timeout(DEADLINE, self.task).await.expect("the server does not shut down").unwrap();
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// One exchange of raw bytes; reads to the end.
    pub async fn raw(&self, request: &[u8]) -> Reply {
        let mut stream = self.connect().await;
        // A server may respond and close before it has read everything.
        let _ = stream.write_all(request).await;
        Reply::read(&mut stream).await
    }

    pub async fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Reply {
        self.ask_with(method, path, &[("authorization", &format!("Bearer {}", self.key))], body).await
    }

    pub async fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Reply {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            if !headers.iter().any(|(name, _)| *name == "content-type") {
                request.push_str("content-type: application/json\r\n");
            }
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(body.unwrap_or_default());
        self.raw(request.as_bytes()).await
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads until the server closes.
    pub async fn read(stream: &mut TcpStream) -> Reply {
        let mut bytes = Vec::new();
        let read =
            tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("the response does not end");
        if bytes.is_empty() {
            read.unwrap();
        }
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Reply { status, head, body: bytes[end..].to_vec() }
    }
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}
