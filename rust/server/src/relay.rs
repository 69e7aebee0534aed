//! Bytes between a WebSocket and an agent's socket, both ways, each at the pace of its reader.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::app::App;

/// Room for one read of the agent's output.
const BLOCK: usize = 256 << 10;
/// Largest message of a client: several frames of 4 MiB.
const MESSAGE_MAX: usize = 16 << 20;
const PING: Duration = Duration::from_secs(20);
/// A client that says nothing for so long, not even to pings, is gone.
const SILENCE: Duration = Duration::from_secs(65);
/// For the other side's close.
const CLOSING: Duration = Duration::from_secs(5);

/// Relays until either side ends or the server does.
pub async fn run<S>(app: &App, stream: S, agent: UnixStream, greeting: Bytes)
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
    let end = tokio::select! {
        end = down(app, &mut sink, output, greeting) => end,
        end = up(app, &mut source, input) => end,
        () = app.ended() => End::Server,
    };
    close(&mut sink, &mut source, end, app.limits.write_timeout).await;
}

/// Why a relay ended.
enum End {
    /// The agent closed its side, in order.
    Agent,
    AgentLost,
    /// The client closed or went.
    Client,
    ClientSilent,
    Server,
}

/// From the agent to the client.
async fn down<S>(
    app: &App,
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    mut agent: OwnedReadHalf,
    greeting: Bytes,
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
    loop {
        block.reserve(BLOCK);
        let message = tokio::select! {
            read = agent.read_buf(&mut block) => match read {
                Ok(0) => return End::Agent,
                Ok(count) => {
                    app.metrics.relayed_down.inc_by(count as u64);
                    Message::Binary(block.split().freeze())
                }
                Err(_) => return End::AgentLost,
            },
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
async fn up<S>(app: &App, source: &mut SplitStream<WebSocketStream<S>>, mut agent: OwnedWriteHalf) -> End
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
                if agent.write_all(&data).await.is_err() {
                    // It takes no more; what it still says is worth sending, and its end comes with it.
                    return std::future::pending().await;
                }
            }
            Message::Close(_) => return End::Client,
            // Text means nothing here; pings were answered below us.
            _ => {}
        }
    }
}

/// Says goodbye and waits a little for the answer.
async fn close<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    source: &mut SplitStream<WebSocketStream<S>>,
    end: End,
    write: Duration,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (code, reason) = match end {
        // The answer to its goodbye was queued when that was read.
        End::Client => {
            let _ = timeout(CLOSING, sink.flush()).await;
            return;
        }
        End::Agent => (CloseCode::Normal, "ended"),
        End::AgentLost => (CloseCode::Error, "the agent is gone"),
        End::ClientSilent => (CloseCode::Policy, "silent for too long"),
        End::Server => (CloseCode::Away, "the server ends"),
    };
    let goodbye = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    if matches!(timeout(write.min(CLOSING), sink.send(goodbye)).await, Ok(Ok(()))) {
        let drained = async { while let Some(Ok(_)) = source.next().await {} };
        let _ = timeout(CLOSING, drained).await;
    }
}

#[cfg(test)]
mod tests;
