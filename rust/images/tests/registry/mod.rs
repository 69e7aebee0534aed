//! A registry of a test: serves what an image layout holds, and behaves as badly as the test wants.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use microsandbox_core::MicrosandboxResult;
use microsandbox_core::error::{ImageErrorKind, MicrosandboxError};
use microsandbox_core::model::{ImageInfo, PullEvent, PullPolicy, PullRequest, RegistryAuth};
use microsandbox_images as images;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::archive::*;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    /// How many requests for this target came before.
    pub before: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn is_blob(&self) -> bool {
        self.target.contains("/blobs/")
    }
}

/// What is sent back.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close after as many bytes of the body.
    pub cut: Option<usize>,
    /// Between two bytes of the body.
    pub slow: Option<Duration>,
    /// Repeat the body without an end and without a length.
    pub endless: bool,
}

impl Reply {
    pub fn new(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Reply {
        self.body = body.into();
        self
    }

    pub fn to(location: impl Into<String>) -> Reply {
        Reply::new(307).header("Location", location)
    }
}

pub struct Registry {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Registry {
    pub async fn serve(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (seen, answer) = (log.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, seen.clone(), answer.clone()));
            }
        });
        Registry { address, log, task }
    }

    /// One that serves `layout` well.
    pub async fn of(layout: &Layout) -> Registry {
        let shelf = Shelf::of(layout);
        Registry::serve(move |seen| shelf.answer(seen)).await
    }

    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    pub fn log(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    pub fn targets(&self) -> Vec<String> {
        self.log().into_iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }
}

async fn connection(
    stream: TcpStream,
    log: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<impl Fn(&Seen) -> Reply + Send + Sync + 'static>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(mut seen) = read(&mut stream).await {
        let reply = {
            let mut log = log.lock().unwrap();
            seen.before =
                log.iter().filter(|other| (&other.target, &other.method) == (&seen.target, &seen.method)).count();
            log.push(seen.clone());
            answer(&seen)
        };
        if write(stream.get_mut(), &seen, reply).await.is_none() {
            return;
        }
    }
}

/// A request; `None` at the end of the connection and for what is no HTTP (the beginning of TLS).
async fn read(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
        if head.len() > 65_536 || head[0] == 0x16 {
            return None;
        }
    }
    let text = String::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> =
        lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect();
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { method, target, headers, before: 0 })
}

/// `None`: the connection ends.
async fn write(stream: &mut TcpStream, seen: &Seen, reply: Reply) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let given = reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !given && !reply.endless {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    if seen.method == "HEAD" {
        return Some(());
    }
    if reply.endless {
        loop {
            stream.write_all(&reply.body).await.ok()?;
        }
    }
    let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    match reply.slow {
        None => stream.write_all(&reply.body[..end]).await.ok()?,
        Some(pause) => {
            for byte in &reply.body[..end] {
                stream.write_all(&[*byte]).await.ok()?;
                tokio::time::sleep(pause).await;
            }
        }
    }
    stream.flush().await.ok()?;
    (reply.cut.is_none()).then_some(())
}

/// The content of a well-behaved registry: one repository, whatever its name.
#[derive(Clone)]
pub struct Shelf {
    /// By digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// What every tag means.
    pub tagged: String,
}

impl Shelf {
    /// Every tag means the first image.
    pub fn of(layout: &Layout) -> Shelf {
        let named = |name: &String| name.strip_prefix("blobs/sha256/").map(|hex| format!("sha256:{hex}"));
        let blobs = layout.files.iter().filter_map(|(name, bytes)| Some((named(name)?, bytes.clone()))).collect();
        Shelf { blobs, tagged: layout.index[0]["digest"].as_str().unwrap().to_owned() }
    }

    /// As [`Shelf::of`], with an index of all images before them.
    pub fn indexed(layout: &Layout) -> Shelf {
        let mut shelf = Shelf::of(layout);
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": layout.index});
        shelf.tagged = shelf.add(index.to_string().as_bytes());
        shelf
    }

    pub fn add(&mut self, bytes: &[u8]) -> String {
        self.blobs.insert(sha256(bytes), bytes.to_vec());
        sha256(bytes)
    }

    /// The layers' digests of the image that a tag means, bottom first.
    pub fn layers(&self) -> Vec<String> {
        let manifest: Value = serde_json::from_slice(&self.blobs[&self.tagged]).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    }

    pub fn answer(&self, seen: &Seen) -> Reply {
        let path = seen.target.split('?').next().unwrap();
        let name = path.rsplit('/').next().unwrap();
        let digest = if name.starts_with("sha256:") { name } else { &self.tagged };
        let Some(bytes) = self.blobs.get(digest) else {
            return Reply::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#);
        };
        if path.contains("/manifests/") {
            let document: Value = serde_json::from_slice(bytes).unwrap();
            let kind = document["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
            let reply = Reply::new(200).header("Content-Type", kind).header("Docker-Content-Digest", digest);
            return reply.body(bytes.clone());
        }
        let range = seen.header("range").and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        match range {
            Some(from) if from < bytes.len() => {
                let last = bytes.len() - 1;
                let range = format!("bytes {from}-{last}/{}", bytes.len());
                Reply::new(206).header("Content-Range", range).body(&bytes[from..])
            }
            _ => Reply::new(200).header("ETag", format!("\"{digest}\"")).body(bytes.clone()),
        }
    }
}

pub fn request(reference: impl Into<String>) -> PullRequest {
    PullRequest { reference: reference.into(), ..PullRequest::default() }
}

pub fn always(reference: impl Into<String>) -> PullRequest {
    PullRequest { policy: PullPolicy::Always, ..request(reference) }
}

pub fn with_password(reference: impl Into<String>) -> PullRequest {
    let mut request = request(reference);
    request.access.auth = Some(RegistryAuth { username: "ann".into(), password: "correct horse".into() });
    request
}

pub async fn pull(home: &Home, request: PullRequest) -> MicrosandboxResult<ImageInfo> {
    in_time(images::pull(home, &request, None)).await
}

/// A pull that must fail like this; its text.
pub async fn fails(home: &Home, request: PullRequest, kind: ImageErrorKind) -> String {
    let error = pull(home, request).await.expect_err("the registry is wrong");
    match &error {
        MicrosandboxError::ImagePull { kind: actual, .. } => assert_eq!(*actual, kind, "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(images::list(home).await.unwrap().is_empty(), "a refused image is listed");
    assert_eq!(home.layer_count(), 0, "a refused layer is in the cache");
    home.assert_nothing_half_made();
    error.to_string()
}

/// A pull and its events.
pub async fn watched(home: &Home, request: PullRequest) -> (MicrosandboxResult<ImageInfo>, Vec<PullEvent>) {
    let events: Arc<Mutex<Vec<PullEvent>>> = Arc::default();
    let sink = events.clone();
    let done =
        in_time(images::pull(home, &request, Some(Arc::new(move |event| sink.lock().unwrap().push(event))))).await;
    let events = events.lock().unwrap().clone();
    (done, events)
}

/// An image of two small layers.
pub fn small() -> Layout {
    let base = Layer::gzip(&[("bin/sh", b"#!"), ("etc/os-release", b"ID=test\n")]);
    Layout::of("app:1", &[base, Layer::plain(&[("srv/app", b"print(1)")])])
}

/// An image with a layer of `size` bytes that do not compress.
pub fn large(size: usize) -> Layout {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(size)
    .collect();
    Layout::of("app:1", &[Layer::plain(&[("bin/noise", &noise)])])
}
