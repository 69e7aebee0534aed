//! Forwards bytes between a WebSocket and the socket of an agent, those of the client through [`Gate`]. Each direction is as fast
//! as its reader.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::app::App;
use crate::gate::{Boundary, Gate};

/// Space for one read of the agent's output.
const BLOCK: usize = 256 << 10;
/// Largest message of a client: several protocol frames of 4 MiB.
const MESSAGE_MAX: usize = 16 << 20;
/// Answers of the gate that wait for the end of a frame of the agent.
const REFUSALS: usize = 64;
const PING: Duration = Duration::from_secs(20);
/// A client that sends nothing for this long, not even pongs, counts as disconnected.
const SILENCE: Duration = Duration::from_secs(65);
/// Longest wait for the closing frame of the client.
const CLOSING: Duration = Duration::from_secs(5);

/// Forwards until either side closes or the server shuts down.
pub async fn run<S>(app: &App, stream: S, agent: UnixStream, greeting: Bytes, gate: Gate)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX))
        .write_buffer_size(0)
        .max_write_buffer_size(BLOCK * 4);
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let (mut sink, mut source) = socket.split();
    let (output, input) = agent.into_split();
    let (refuse, refusals) = mpsc::channel(REFUSALS);
    let end = tokio::select! {
        end = down(app, &mut sink, output, greeting, refusals) => end,
        end = up(app, &mut source, input, gate, refuse) => end,
        () = app.shutting_down() => End::Server,
    };
    close(&mut sink, &mut source, end, app.limits.write_timeout).await;
}

/// Why a relay ended.
enum End {
    /// The agent closed its side in order.
    Agent,
    AgentLost,
    /// The client closed the WebSocket or disconnected.
    Client,
    ClientSilent,
    /// The client sent bytes that are no frames.
    ClientMalformed,
    Server,
}

/// From the agent to the client, and what the gate answers in its place.
async fn down<S>(
    app: &App,
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    mut agent: OwnedReadHalf,
    greeting: Bytes,
    mut refusals: mpsc::Receiver<Bytes>,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if sink.send(Message::Binary(greeting)).await.is_err() {
        return End::Client;
    }
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut block = BytesMut::with_capacity(BLOCK);
    let mut boundary = Boundary::default();
    loop {
        block.reserve(BLOCK);
        let is_between = boundary.is_here();
        let message = tokio::select! {
            read = agent.read_buf(&mut block) => match read {
                Ok(0) => return End::Agent,
                Ok(count) => {
                    app.metrics.relayed_down.inc_by(count as u64);
                    let data = block.split().freeze();
                    // An agent that never pauses between two frames must not hold back what the gate answers.
                    match boundary.advance(&data).map(|at| (at, refusals.try_recv())) {
                        Some((at, Ok(refusal))) => {
                            Message::Binary([&data[..at], &refusal, &data[at..]].concat().into())
                        }
                        _ => Message::Binary(data),
                    }
                }
                Err(_) => return End::AgentLost,
            },
            Some(refusal) = refusals.recv(), if is_between => Message::Binary(refusal),
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        match timeout(app.limits.write_timeout, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Client,
            Err(_elapsed) => return End::ClientSilent,
        }
    }
}

/// From the client to the agent.
async fn up<S>(
    app: &App,
    source: &mut SplitStream<WebSocketStream<S>>,
    mut agent: OwnedWriteHalf,
    mut gate: Gate,
    refuse: mpsc::Sender<Bytes>,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = match timeout(SILENCE, source.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(_) => return End::Client,
            Err(_elapsed) => return End::ClientSilent,
        };
        match message {
            Message::Binary(data) => {
                app.metrics.relayed_up.inc_by(data.len() as u64);
                let Ok(admitted) = gate.admit(data) else { return End::ClientMalformed };
                for frames in admitted.forward {
                    if agent.write_all(&frames).await.is_err() {
                        // The agent reads no more. Its remaining output is still forwarded, and `down` reports its end.
                        return std::future::pending().await;
                    }
                }
                for answer in admitted.refuse {
                    // `down` has ended, and with it the relay.
                    let _ = refuse.send(answer).await;
                }
            }
            Message::Close(_) => return End::Client,
            // Text has no meaning here; tungstenite replies to pings.
            _ => {}
        }
    }
}

/// Sends the closing frame and waits up to [`CLOSING`] for that of the client.
async fn close<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    source: &mut SplitStream<WebSocketStream<S>>,
    end: End,
    write: Duration,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (code, reason) = match end {
        // The reply to its closing frame was queued when the frame was read.
        End::Client => {
            let _ = timeout(CLOSING, sink.flush()).await;
            return;
        }
        End::Agent => (CloseCode::Normal, "the agent closed the connection"),
        End::AgentLost => (CloseCode::Error, "the connection to the agent was lost"),
        End::ClientSilent => (CloseCode::Policy, "the client sent nothing for too long"),
        End::ClientMalformed => (CloseCode::Policy, "the client sent bytes that are no frames of the agent's protocol"),
        End::Server => (CloseCode::Away, "the server is shutting down"),
    };
    let closing = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    if matches!(timeout(write.min(CLOSING), sink.send(closing)).await, Ok(Ok(()))) {
        let drained = async { while let Some(Ok(_)) = source.next().await {} };
        let _ = timeout(CLOSING, drained).await;
    }
}

#[cfg(test)]
mod tests;
