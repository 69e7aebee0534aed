//! The agent over a WebSocket: honest relays, and relays that stop, lie or vanish.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::service::{self, KEY, answer, client, exec_stream, say, soon, whole_answer};
use bytes::BytesMut;
use futures::{SinkExt as _, StreamExt as _};
use microsandbox_core::MicrosandboxError;
use microsandbox_core::backend::SharedBackend;
use microsandbox_core::config::Wire;
use microsandbox_core::model::{ExecEvent, ExecOptions, ExecOutput};
use microsandbox_protocol::frame::{Flags, FrameDecoder, Message as Framed, encode, encode_id_range};
use microsandbox_protocol::message::{Data, ExecExited, ExecStarted, Kind, Ready};
use microsandbox_protocol::version::EXTENSION;
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// One relay, as the service sees it.
struct Relay {
    socket: WebSocketStream<TcpStream>,
    input: BytesMut,
    decoder: FrameDecoder,
}

impl Relay {
    async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.socket.send(Message::Binary(bytes.to_vec().into())).await;
    }

    async fn send<T: Serialize>(&mut self, id: u32, kind: Kind, payload: &T) {
        self.raw(&encode(id, Flags::NONE, &kind, payload).unwrap()).await;
    }

    /// The service speaks first.
    async fn greet(&mut self) {
        self.raw(&encode_id_range(1000, 2000)).await;
        self.send(0, Kind::Ready, &Ready { extension: Some(EXTENSION), ..Ready::default() }).await;
    }

    /// `None` when the client left.
    async fn read(&mut self) -> Option<Framed> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(frame.open().unwrap());
            }
            if let Message::Binary(data) = self.socket.next().await?.ok()? {
                self.input.extend_from_slice(&data);
            }
        }
    }

    async fn started(&mut self) -> Option<u32> {
        let request = self.read().await?;
        assert_eq!(request.kind, Kind::ExecRequest);
        let started = ExecStarted { pid: 7, session: Some(1), stdin_window: None, job: None };
        self.send(request.id, Kind::ExecStarted, &started).await;
        Some(request.id)
    }

    /// Runs every program it is asked for.
    async fn honest(mut self) {
        self.greet().await;
        while let Some(id) = self.started().await {
            self.send(id, Kind::ExecStdout, &Data { data: b"hi".to_vec() }).await;
            let exited = ExecExited { code: 3, drained: true, ..ExecExited::default() };
            self.raw(&encode(id, Flags::TERMINAL, &Kind::ExecExited, &exited).unwrap()).await;
        }
    }

    /// Connected and silent.
    async fn linger(mut self) {
        while self.read().await.is_some() {}
    }
}

struct Service {
    url: String,
    looks: Arc<AtomicUsize>,
    relays: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    async fn new<F: Future<Output = ()> + Send + 'static>(
        script: impl Fn(Relay) -> F + Send + Sync + Clone + 'static,
    ) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (looks, relays) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (looks.clone(), relays.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (script, counts) = (script.clone(), counts.clone());
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                        let length = stream.peek(&mut head).await.unwrap_or(0);
                        assert_ne!(length, 0);
                    }
                    let text = String::from_utf8_lossy(&head).into_owned();
                    assert!(text.contains(&format!("Bearer {KEY}")) && text.contains("microsandbox-sdk/"), "{text}");
                    if text.contains("/agent ") {
                        counts.1.fetch_add(1, Ordering::SeqCst);
                        let socket = accept_async(stream).await.unwrap();
                        script(Relay { socket, input: BytesMut::new(), decoder: FrameDecoder::default() }).await;
                    } else {
                        counts.0.fetch_add(1, Ordering::SeqCst);
                        let _ = stream.read(&mut head).await;
                        say(&mut stream, whole_answer(&answer("running").to_string())).await;
                    }
                });
            }
        });
        Service { url, looks, relays, task }
    }

    fn client(&self) -> SharedBackend {
        client(&self.url, Wire::Spec)
    }

    fn counts(&self) -> (usize, usize) {
        (self.looks.load(Ordering::SeqCst), self.relays.load(Ordering::SeqCst))
    }
}

async fn exec(backend: &SharedBackend) -> Result<ExecOutput, MicrosandboxError> {
    service::exec(backend, "prog").await
}

fn is_lost(error: &MicrosandboxError) -> bool {
    matches!(error, MicrosandboxError::AgentLost { name, .. } if name == "box")
}

/// One look and one connection for call after call; another one when the service closed it in between.
#[tokio::test]
async fn a_relay_is_kept_for_the_next_call() {
    let service = Service::new(Relay::honest).await;
    let backend = service.client();
    for _ in 0..5 {
        let output = exec(&backend).await.unwrap();
        assert_eq!((output.exit.code, output.stdout.as_ref()), (3, b"hi".as_slice()));
    }
    assert_eq!(service.counts(), (1, 1));
    let service = Service::new(|mut relay: Relay| async move {
        relay.greet().await;
        let id = relay.started().await.unwrap();
        let exited = ExecExited { code: 0, drained: true, ..ExecExited::default() };
        relay.raw(&encode(id, Flags::TERMINAL, &Kind::ExecExited, &exited).unwrap()).await;
        let _ = relay.socket.close(None).await;
    })
    .await;
    let backend = service.client();
    for _ in 0..3 {
        assert_eq!(exec(&backend).await.unwrap().exit.code, 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(service.counts(), (3, 3));
}

/// Binary messages are one stream wherever they are cut; text and pings are not part of it.
#[tokio::test]
async fn boundaries_of_messages_mean_nothing() {
    let service = Service::new(|mut relay: Relay| async move {
        let mut greeting = encode_id_range(1000, 2000).to_vec();
        let ready = Ready { extension: Some(EXTENSION), ..Ready::default() };
        greeting.extend_from_slice(&encode(0, Flags::NONE, &Kind::Ready, &ready).unwrap());
        for byte in greeting {
            relay.raw(&[byte]).await;
            let _ = relay.socket.send(Message::Text("noise".into())).await;
            let _ = relay.socket.send(Message::Ping(Vec::new().into())).await;
            relay.raw(&[]).await;
        }
        let id = relay.started().await.unwrap();
        let mut rest = encode(id, Flags::NONE, &Kind::ExecStdout, &Data { data: b"hi".to_vec() }).unwrap().to_vec();
        let exited = ExecExited { code: 3, drained: true, ..ExecExited::default() };
        rest.extend_from_slice(&encode(id, Flags::TERMINAL, &Kind::ExecExited, &exited).unwrap());
        relay.raw(&rest).await;
        relay.linger().await;
    })
    .await;
    let output = exec(&service.client()).await.unwrap();
    assert_eq!((output.exit.code, output.stdout.as_ref()), (3, b"hi".as_slice()));
}

/// The look, the connection and the greeting have one budget.
#[tokio::test]
async fn a_relay_that_says_nothing_runs_into_the_budget() {
    let service = Service::new(Relay::linger).await;
    let began = Instant::now();
    let error = exec(&service.client()).await.unwrap_err();
    assert!(is_lost(&error) || matches!(error, MicrosandboxError::Runtime(_)), "{error:?}");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn greetings_that_are_none_are_named_errors() {
    let range = encode_id_range(1000, 2000).to_vec();
    let stranger = encode(0, Flags::NONE, &Kind::Ready, &Ready { extension: None, ..Ready::default() }).unwrap();
    let greetings = [
        ("closes at once", Vec::new()),
        ("half a range", range[..5].to_vec()),
        ("a range backwards", encode_id_range(2000, 1000).to_vec()),
        ("garbage", [range.clone(), vec![0xff; 64]].concat()),
        // A service whose agent lacks this project's extension of the protocol.
        ("no extension", [range.clone(), stranger.to_vec()].concat()),
        ("a message beyond every bound", vec![0; 17 << 20]),
    ];
    for (what, greeting) in greetings {
        let greeting = Arc::new(greeting);
        let service = Service::new(move |mut relay: Relay| {
            let greeting = greeting.clone();
            async move {
                relay.raw(&greeting).await;
                let _ = relay.socket.close(None).await;
            }
        })
        .await;
        let began = Instant::now();
        let error = exec(&service.client()).await.unwrap_err();
        assert!(is_lost(&error) || matches!(error, MicrosandboxError::Protocol { .. }), "{what}: {error:?}");
        assert!(began.elapsed() < Duration::from_secs(8), "{what}");
        assert!(what != "no extension" || error.to_string().contains("extension none"), "{error}");
    }
}

/// With a goodbye and without one.
// hazard: C5
#[tokio::test]
async fn a_program_whose_relay_vanishes_ends_with_a_named_error() {
    for polite in [true, false] {
        let service = Service::new(move |mut relay: Relay| async move {
            relay.greet().await;
            let id = relay.started().await.unwrap();
            relay.send(id, Kind::ExecStdout, &Data { data: b"half".to_vec() }).await;
            if polite {
                let _ = relay.socket.close(None).await;
            }
        })
        .await;
        let backend = service.client();
        let error = exec(&backend).await.unwrap_err();
        assert!(is_lost(&error), "{error:?}");
        let live = exec_stream(&backend, "prog", ExecOptions::default()).await.unwrap();
        let mut output = Vec::new();
        let error = loop {
            match soon(live.recv()).await {
                Ok(Some(ExecEvent::Stdout(data))) => output.extend_from_slice(&data),
                Ok(Some(_)) => {}
                Ok(None) => panic!("an end without an error"),
                Err(error) => break error,
            }
        };
        assert!(is_lost(&error), "{error:?}");
        assert_eq!(output, b"half");
        // Nothing of it is kept.
        assert_eq!(service.counts(), (2, 2));
    }
}

#[tokio::test]
async fn a_file_call_whose_relay_vanishes_ends_with_a_named_error() {
    let service = Service::new(|mut relay: Relay| async move {
        relay.greet().await;
        relay.read().await;
    })
    .await;
    let backend = service.client();
    let files = backend.sandboxes().agent("box").files();
    for error in [
        soon(files.read("/f", u64::MAX)).await.map(drop).unwrap_err(),
        soon(files.list("/d")).await.map(drop).unwrap_err(),
        soon(files.write("/f", vec![0; 1 << 20].into())).await.unwrap_err(),
        soon(files.stat("/f", true)).await.map(drop).unwrap_err(),
    ] {
        assert!(is_lost(&error), "{error:?}");
    }
}

/// An answer that is no upgrade.
#[tokio::test]
async fn a_service_without_websockets_is_reported() {
    let server = service::with_status("running").await;
    let error = exec(&client(&server.uri(), Wire::Spec)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/agent") && !text.contains("hunter2"), "{text}");
    assert!(!matches!(error, MicrosandboxError::SandboxNotFound(_)), "{error:?}");
}
