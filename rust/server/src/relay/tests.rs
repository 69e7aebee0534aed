use std::sync::Arc;
use std::time::Duration;

use microsandbox_fake::MemoryBackend;
use microsandbox_protocol::frame::{self, Flags, FrameDecoder};
use microsandbox_protocol::message::{Data, Empty, Kind};
use tokio::io::duplex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::access_log::AccessLog;
use crate::app::Parts;
use crate::keys::{Keys, Scope};
use crate::limits::Limits;
use crate::tenancy::Caller;

const DEADLINE: Duration = Duration::from_secs(60);

struct Relayed {
    client: WebSocketStream<tokio::io::DuplexStream>,
    agent: UnixStream,
    ending: watch::Sender<bool>,
    task: JoinHandle<()>,
}

async fn relayed() -> Relayed {
    let (ending, watched) = watch::channel(false);
    let app = Arc::new(App::new(Parts {
        backend: Arc::new(MemoryBackend::new()),
        keys: Keys::new(std::path::Path::new("/nonexistent")),
        org_id: String::new(),
        limits: Limits::default(),
        policy: crate::serve::Policy::default(),
        private: Vec::new(),
        access: AccessLog::default(),
        ending: watched,
    }));
    let (near, far) = duplex(64 << 10);
    let (agent, inner) = UnixStream::pair().unwrap();
    let keys = tempfile::tempdir().unwrap();
    let (key, _) = Keys::new(keys.path()).create("k", &[Scope::FilesWrite], None).unwrap();
    let gate = Gate::of(&Caller::of(&key));
    let task = tokio::spawn(async move { run(&app, near, inner, Bytes::from_static(b"greeting"), gate).await });
    let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
    assert_eq!(data(&mut client).await.unwrap(), "greeting");
    Relayed { client, agent, ending, task }
}

/// The next bytes; the code of a close as an error.
async fn data(client: &mut WebSocketStream<tokio::io::DuplexStream>) -> Result<Bytes, Option<CloseCode>> {
    loop {
        match timeout(DEADLINE, client.next()).await.expect("the relay is silent") {
            Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
            Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code)),
            Some(Ok(_)) => {}
            _ => return Err(None),
        }
    }
}

async fn ended(task: JoinHandle<()>) {
    timeout(DEADLINE, task).await.expect("the relay does not return").unwrap();
}

#[tokio::test]
async fn bytes_and_the_close_of_the_client_reach_the_other_side() {
    let Relayed { mut client, mut agent, task, ending } = relayed().await;
    client.send(Message::Text("ignored".into())).await.unwrap();
    let sent = frame::encode(7, Flags::NONE, &Kind::FsData, &Data { data: b"to the agent".to_vec() }).unwrap();
    // What is refused is answered, and does not arrive.
    let refused = frame::encode(8, Flags::NONE, &Kind::Shutdown, &Empty {}).unwrap();
    client.send(Message::Binary([refused, sent.clone()].concat().into())).await.unwrap();
    let mut heard = vec![0u8; sent.len()];
    timeout(DEADLINE, agent.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, sent);
    let answer = data(&mut client).await.unwrap();
    assert!(answer.windows(9).any(|part| part == b"forbidden"), "{answer:?}");
    agent.write_all(b"to the client").await.unwrap();
    assert_eq!(data(&mut client).await.unwrap(), "to the client");
    let closing = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    client.close(Some(closing)).await.unwrap();
    assert_eq!(timeout(DEADLINE, agent.read(&mut heard)).await.unwrap().unwrap(), 0);
    assert_eq!(data(&mut client).await.unwrap_err(), Some(CloseCode::Normal), "the closing frame got no reply");
    ended(task).await;
    drop(ending);
}

#[tokio::test]
async fn the_end_of_the_agent_closes_after_its_last_bytes() {
    let Relayed { mut client, mut agent, task, ending } = relayed().await;
    agent.write_all(b"last words").await.unwrap();
    drop(agent);
    assert_eq!(data(&mut client).await.unwrap(), "last words");
    assert_eq!(data(&mut client).await.unwrap_err(), Some(CloseCode::Normal));
    drop(client);
    ended(task).await;
    drop(ending);
}

#[tokio::test]
async fn a_shutdown_closes_the_socket_as_going_away() {
    let Relayed { mut client, agent, task, ending } = relayed().await;
    ending.send(true).unwrap();
    assert_eq!(data(&mut client).await.unwrap_err(), Some(CloseCode::Away));
    drop(client);
    ended(task).await;
    drop(agent);
}

#[tokio::test]
async fn a_client_that_does_not_read_blocks_the_agent() {
    let Relayed { mut client, mut agent, task, ending } = relayed().await;
    const TOTAL: usize = 32 << 20;
    let writer = tokio::spawn(async move {
        let block = vec![7u8; 1 << 20];
        for _ in 0..TOTAL / block.len() {
            agent.write_all(&block).await.unwrap();
        }
        agent
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writer.is_finished(), "32 MiB were queued somewhere");
    let mut count = 0;
    while count < TOTAL {
        count += data(&mut client).await.unwrap().len();
    }
    assert_eq!(count, TOTAL);
    drop(timeout(DEADLINE, writer).await.unwrap().unwrap());
    drop(client);
    ended(task).await;
    drop(ending);
}

#[tokio::test]
async fn bytes_that_are_no_frames_close_the_socket() {
    let Relayed { mut client, agent, task, ending } = relayed().await;
    client.send(Message::Binary(Bytes::from_static(&[0xff; 64]))).await.unwrap();
    assert_eq!(data(&mut client).await.unwrap_err(), Some(CloseCode::Policy));
    drop(client);
    ended(task).await;
    drop((agent, ending));
}

#[tokio::test]
async fn an_answer_of_the_gate_waits_for_the_end_of_a_frame() {
    let Relayed { mut client, mut agent, task, ending } = relayed().await;
    let frame = frame::encode(7, Flags::NONE, &Kind::FsData, &Data { data: vec![1; 100] }).unwrap();
    agent.write_all(&frame[..50]).await.unwrap();
    assert_eq!(data(&mut client).await.unwrap(), &frame[..50]);
    let refused = frame::encode(8, Flags::NONE, &Kind::Drain, &Empty {}).unwrap();
    client.send(Message::Binary(refused.into())).await.unwrap();
    let next = timeout(Duration::from_millis(200), data(&mut client)).await;
    assert!(next.is_err(), "the answer came within a frame of the agent");
    agent.write_all(&[&frame[50..], &frame[..]].concat()).await.unwrap();
    let mut all = BytesMut::from(&frame[..50]);
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        all.extend_from_slice(&data(&mut client).await.unwrap());
        while let Some(frame) = FrameDecoder::default().decode(&mut all).unwrap() {
            kinds.push(frame.open().unwrap().kind);
        }
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::FsData).count(), 2, "{kinds:?}");
    assert!(kinds.contains(&Kind::Error) && all.is_empty(), "{kinds:?}");
    drop((client, agent));
    ended(task).await;
    drop(ending);
}
