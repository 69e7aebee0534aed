//! A connection that is handed over raw after the greeting, for callers that relay bytes.

use bytes::{Bytes, BytesMut};
use microsandbox_protocol::frame::{FrameDecoder, MAX_HELLO_FRAME};
use microsandbox_protocol::message::{CoreError, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::failure;
use crate::error::MicrosandboxResult;

/// Id range: two numbers of four bytes.
const RANGE: usize = 8;
/// Length field of a frame.
const LENGTH: usize = 4;

/// Our hello, then the agent's id range and ready, or its reason why not.
pub async fn greet(name: &str, mut stream: UnixStream, hello: &[u8]) -> MicrosandboxResult<(UnixStream, Bytes)> {
    let lost = |error: std::io::Error| failure::lost(name, format!("during the handshake: {error}"));
    let broke = |error: &dyn std::fmt::Display| failure::protocol(name, error.to_string());
    stream.write_all(hello).await.map_err(lost)?;
    let mut greeting = vec![0u8; RANGE + LENGTH];
    stream.read_exact(&mut greeting).await.map_err(lost)?;
    let length = greeting[RANGE..].iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
    if length > MAX_HELLO_FRAME {
        return Err(broke(&format!("a greeting of {length} bytes")));
    }
    greeting.resize(RANGE + LENGTH + length, 0);
    stream.read_exact(&mut greeting[RANGE + LENGTH..]).await.map_err(lost)?;
    let mut frames = BytesMut::from(&greeting[RANGE..]);
    let frame = FrameDecoder::new(MAX_HELLO_FRAME).decode(&mut frames).map_err(|error| broke(&error))?;
    let frame = frame.ok_or_else(|| broke(&"an incomplete greeting"))?;
    let message = frame.open().map_err(|error| broke(&error))?;
    match &message.kind {
        Kind::Ready => Ok((stream, greeting.into())),
        Kind::Error => match message.parse::<CoreError>() {
            Ok(error) => Err(failure::refusal(name, &error)),
            Err(error) => Err(broke(&error)),
        },
        other => Err(broke(&format!("`{}` instead of ready", failure::quote(other.as_wire())))),
    }
}
