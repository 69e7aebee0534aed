//! A scripted agent on a real unix socket, honest or not.

#![allow(dead_code, reason = "each test file uses a part")]

use std::future::Future;
use std::time::Duration;

use bytes::BytesMut;
use microsandbox_core::MicrosandboxResult;
use microsandbox_core::agent::connections::{Connections, KeptDialer};
use microsandbox_core::agent::{AgentAddress, StreamAgent};
use microsandbox_core::backend::{Agent as _, ExecRequest};
use microsandbox_core::model::{ExecHandle, ExecOptions, ExecOutput, ImageSource, SandboxSpec};
use microsandbox_protocol::frame::{Flags, FrameDecoder, Message, encode, encode_id_range};
use microsandbox_protocol::message::{Data, ExecExited, ExecStarted, Hello, Kind, Ready};
use microsandbox_protocol::version::EXTENSION;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

pub const TOKEN: &[u8] = b"token of this run";
pub const DEADLINE: Duration = Duration::from_secs(20);

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("the deadline of this test passed")
}

pub struct Peer {
    pub address: AgentAddress,
    directory: tempfile::TempDir,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Every connection is handed to `script`.
    pub fn new<F: Future<Output = ()> + Send + 'static>(script: impl Fn(Line) -> F + Send + 'static) -> Peer {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(script(Line { stream, input: BytesMut::new(), decoder: FrameDecoder::default() }));
            }
        });
        Peer { address: AgentAddress { name: "box".into(), socket, token: TOKEN.to_vec() }, directory, task }
    }

    /// After an honest greeting.
    pub fn greeted<F: Future<Output = ()> + Send + 'static>(
        script: impl Fn(Line) -> F + Send + Sync + Clone + 'static,
    ) -> Peer {
        Peer::new(move |mut line| {
            let script = script.clone();
            async move {
                line.greet().await;
                script(line).await;
            }
        })
    }
}

/// One client, as the agent sees it.
pub struct Line {
    pub stream: UnixStream,
    input: BytesMut,
    decoder: FrameDecoder,
}

impl Line {
    pub async fn greet(&mut self) {
        let message = self.read().await.expect("a hello");
        assert_eq!(message.kind, Kind::Hello);
        assert_eq!(message.parse::<Hello>().unwrap().token, TOKEN);
        self.raw(&encode_id_range(1000, 2000)).await;
        self.send(0, Kind::Ready, &Ready { extension: Some(EXTENSION), ..Ready::default() }).await;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        // A client may have left: that is what some tests are about.
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn send<T: Serialize>(&mut self, id: u32, kind: Kind, payload: &T) {
        self.raw(&encode(id, Flags::NONE, &kind, payload).unwrap()).await;
    }

    pub async fn data(&mut self, id: u32, kind: Kind, data: &[u8]) {
        self.send(id, kind, &Data { data: data.to_vec() }).await;
    }

    /// The next message; `None` when the client left.
    pub async fn read(&mut self) -> Option<Message> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(frame.open().unwrap());
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub async fn expect(&mut self, kind: Kind) -> Message {
        let message = self.read().await.expect("a message");
        assert_eq!(message.kind, kind);
        message
    }

    /// Takes an exec request and says that it runs.
    pub async fn started(&mut self, stdin_window: Option<u64>) -> u32 {
        let id = self.expect(Kind::ExecRequest).await.id;
        self.send(id, Kind::ExecStarted, &ExecStarted { pid: 7, session: Some(1), stdin_window, job: None }).await;
        id
    }

    pub async fn exited(&mut self, id: u32, code: i32) {
        self.send(id, Kind::ExecExited, &ExecExited { code, drained: true, ..ExecExited::default() }).await;
    }

    /// Stays connected and silent until the client leaves.
    pub async fn linger(&mut self) {
        while self.read().await.is_some() {}
    }
}

pub fn spec() -> SandboxSpec {
    SandboxSpec { name: "box".into(), image: ImageSource::Host { prefixes: Vec::new() }, ..SandboxSpec::default() }
}

pub fn options() -> ExecOptions {
    ExecOptions::default()
}

/// The client under test, with a connection of its own for each call.
pub fn agent(address: &AgentAddress) -> StreamAgent<AgentAddress> {
    StreamAgent::new(address.clone())
}

/// Runs a program to its end, as a backend does that keeps connections between calls.
pub async fn exec(
    connections: &Connections<UnixStream>,
    address: &AgentAddress,
    spec: &SandboxSpec,
    cmd: String,
    options: ExecOptions,
) -> MicrosandboxResult<ExecOutput> {
    let dialer = KeptDialer { address: address.clone(), connections };
    StreamAgent::new(dialer).exec(ExecRequest { spec, cmd, options }).await
}

/// Starts a program and returns its events.
pub async fn exec_stream(
    address: &AgentAddress,
    spec: &SandboxSpec,
    cmd: String,
    options: ExecOptions,
) -> MicrosandboxResult<ExecHandle> {
    agent(address).exec_stream(ExecRequest { spec, cmd, options }).await
}
