//! Framing: `u32 BE length | u32 BE correlation id | u8 flags | CBOR {v, t, p}`.
//!
//! The length counts what follows it. `p` is a byte string that holds the CBOR payload of the message kind `t`.
//! A length over the limit is refused before a single byte of the body is buffered.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::message::Kind;
use crate::version::{GENERATION, GENERATION_MIN};

/// Largest value of the length field: 4 MiB.
pub const MAX_FRAME: usize = 4 << 20;
/// Largest frame accepted before the peer has shown its session token.
pub const MAX_HELLO_FRAME: usize = 4096;
/// Largest `data` byte string sent in one frame: 3 MiB, which leaves room for the envelope.
pub const MAX_DATA: usize = 3 << 20;
/// What a frame may hold besides its content before the content is copied out of it.
const PADDING: usize = 4096;
/// Correlation id + flags.
const FIXED: usize = 5;
/// Bytes in front of the body: length, correlation id, flags.
pub const HEADER: usize = 4 + FIXED;

/// Why a peer's bytes were refused. The connection they came over is finished.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtocolError {
    #[error("frame of {len} bytes is outside the allowed {min}..={max}")]
    FrameLength { len: u64, min: usize, max: usize },
    #[error("malformed {what}: {detail}")]
    Malformed { what: &'static str, detail: String },
    #[error("unsupported generation {got} (understood: {min}..={max})")]
    Generation { got: u32, min: u32, max: u32 },
    #[error("unexpected message `{got}` while waiting for {expected}")]
    Unexpected { got: String, expected: &'static str },
    #[error("id range {min}..{max} is empty")]
    IdRange { min: u32, max: u32 },
    #[error("connection ended inside a frame")]
    Truncated,
}

/// Flag bits of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    pub const NONE: Flags = Flags(0);
    /// Last frame of its session.
    pub const TERMINAL: Flags = Flags(1);
    /// First frame of a session.
    pub const SESSION_START: Flags = Flags(2);
    /// Part of an orderly shutdown.
    pub const SHUTDOWN: Flags = Flags(4);

    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One frame as it came off the wire; `body` is the undecoded envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub id: u32,
    pub flags: Flags,
    pub body: Bytes,
}

/// An opened envelope. `payload` is a slice of the frame, not a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: u32,
    pub flags: Flags,
    pub generation: u32,
    pub kind: Kind,
    pub payload: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    v: u32,
    #[serde(borrow)]
    t: &'a str,
    #[serde(borrow, with = "serde_bytes")]
    p: &'a [u8],
}

#[derive(Deserialize)]
struct DataRef<'a> {
    #[serde(borrow, with = "serde_bytes")]
    data: &'a [u8],
}

impl Frame {
    /// Opens the envelope. An unknown kind is not an error here: the receiver decides (see [`Kind::Unknown`]).
    pub fn open(&self) -> Result<Message, ProtocolError> {
        let envelope: Envelope<'_> = decode("envelope", &self.body)?;
        if envelope.v < GENERATION_MIN {
            return Err(ProtocolError::Generation { got: envelope.v, min: GENERATION_MIN, max: GENERATION });
        }
        Ok(Message {
            id: self.id,
            flags: self.flags,
            generation: envelope.v,
            kind: Kind::from_wire(envelope.t),
            payload: part(&self.body, envelope.p),
        })
    }
}

impl Message {
    /// Decodes the payload as `T`.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ProtocolError> {
        decode("payload", &self.payload)
    }

    /// The `data` field of a stream message, without copying it.
    pub fn data(&self) -> Result<Bytes, ProtocolError> {
        let body: DataRef<'_> = decode("data payload", &self.payload)?;
        Ok(part(&self.payload, body.data))
    }
}

/// A slice of `whole`, or a copy if `whole` is mostly something else: a slice keeps all of it in memory, and a peer may
/// put one byte of content into a frame of 4 MiB.
fn part(whole: &Bytes, slice: &[u8]) -> Bytes {
    if slice.len() * 2 + PADDING < whole.len() { Bytes::copy_from_slice(slice) } else { whole.slice_ref(slice) }
}

fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, ProtocolError> {
    minicbor_serde::from_slice(bytes).map_err(|error| ProtocolError::Malformed { what, detail: error.to_string() })
}

/// Encodes a whole frame. Fails only if the payload would not fit into one frame.
pub fn encode<T: Serialize>(id: u32, flags: Flags, kind: &Kind, payload: &T) -> Result<Vec<u8>, ProtocolError> {
    let malformed = |error: &dyn std::fmt::Display| ProtocolError::Malformed {
        what: "outgoing payload",
        detail: error.to_string(),
    };
    let payload = minicbor_serde::to_vec(payload).map_err(|e| malformed(&e))?;
    let body = minicbor_serde::to_vec(Envelope { v: GENERATION, t: kind.as_wire(), p: &payload })
        .map_err(|e| malformed(&e))?;
    encode_raw(id, flags, &body)
}

/// A whole frame around an envelope that is already encoded.
pub fn encode_raw(id: u32, flags: Flags, body: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let len = body.len() + FIXED;
    if body.is_empty() || len > MAX_FRAME {
        return Err(ProtocolError::FrameLength { len: len as u64, min: FIXED + 1, max: MAX_FRAME });
    }
    let mut out = Vec::with_capacity(len + 4);
    out.put_u32(len as u32);
    out.put_u32(id);
    out.put_u8(flags.0);
    out.extend_from_slice(body);
    Ok(out)
}

/// The bytes in front of `len` bytes of stream data, so that the data itself is written from where it lies
/// (`[head, data]` in one vectored write). `len` must be at most [`MAX_DATA`].
pub fn encode_data_head(id: u32, flags: Flags, kind: &Kind, len: usize) -> Vec<u8> {
    debug_assert!(len <= MAX_DATA);
    let mut payload_head = Vec::with_capacity(16);
    cbor_head(&mut payload_head, 5, 1); // map(1)
    cbor_text(&mut payload_head, "data");
    cbor_head(&mut payload_head, 2, len as u64); // bytes(len)
    encode_head(id, flags, kind, &payload_head, len)
}

/// The same for a [`crate::message::LogRecord`] whose `data` of `len` bytes follows.
pub fn encode_log_head(id: u32, source: u8, time_ns: u64, len: usize) -> Vec<u8> {
    debug_assert!(len <= MAX_DATA);
    let mut payload_head = Vec::with_capacity(48);
    cbor_head(&mut payload_head, 5, 3); // map(3)
    cbor_text(&mut payload_head, "source");
    cbor_head(&mut payload_head, 0, u64::from(source));
    cbor_text(&mut payload_head, "time_ns");
    cbor_head(&mut payload_head, 0, time_ns);
    cbor_text(&mut payload_head, "data");
    cbor_head(&mut payload_head, 2, len as u64);
    encode_head(id, Flags::NONE, &Kind::Log, &payload_head, len)
}

/// Frame and envelope in front of a payload that is `payload_head` and `len` bytes behind it.
fn encode_head(id: u32, flags: Flags, kind: &Kind, payload_head: &[u8], len: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    cbor_head(&mut body, 5, 3);
    cbor_text(&mut body, "v");
    cbor_head(&mut body, 0, u64::from(GENERATION));
    cbor_text(&mut body, "t");
    cbor_text(&mut body, kind.as_wire());
    cbor_text(&mut body, "p");
    cbor_head(&mut body, 2, (payload_head.len() + len) as u64);
    body.extend_from_slice(payload_head);
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.put_u32((FIXED + body.len() + len) as u32);
    out.put_u32(id);
    out.put_u8(flags.0);
    out.extend_from_slice(&body);
    out
}

/// A CBOR initial byte with its argument (RFC 8949 section 3).
fn cbor_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.put_u16(argument as u16);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.put_u32(argument as u32);
        }
        _ => {
            out.push(major | 27);
            out.put_u64(argument);
        }
    }
}

fn cbor_text(out: &mut Vec<u8>, text: &str) {
    cbor_head(out, 3, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Cuts a byte stream into frames. Feed it the connection's read buffer; it consumes whole frames only.
#[derive(Debug, Clone)]
pub struct FrameDecoder {
    max: usize,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        FrameDecoder::new(MAX_FRAME)
    }
}

impl FrameDecoder {
    /// `max` bounds the length field; it is clamped to [`MAX_FRAME`].
    pub fn new(max: usize) -> Self {
        FrameDecoder { max: max.min(MAX_FRAME) }
    }

    /// Raises or lowers the bound, e.g. after the hello.
    pub fn set_max(&mut self, max: usize) {
        self.max = max.min(MAX_FRAME);
    }

    /// The next frame, or `None` when more bytes are needed (capacity for the rest of it is then reserved).
    pub fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        if buffer.len() < 4 {
            return Ok(None);
        }
        let len = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
        if len <= FIXED || len > self.max {
            return Err(ProtocolError::FrameLength { len: len as u64, min: FIXED + 1, max: self.max });
        }
        if buffer.len() < 4 + len {
            // At most MAX_FRAME beyond what is there: the bound was checked above.
            buffer.reserve(4 + len - buffer.len());
            return Ok(None);
        }
        buffer.advance(4);
        let mut frame = buffer.split_to(len);
        let id = frame.get_u32();
        let flags = Flags(frame.get_u8());
        Ok(Some(Frame { id, flags, body: frame.freeze() }))
    }
}

/// The agent's greeting: the half-open range of correlation ids this connection may use, `u32 BE min | u32 BE max`.
pub fn encode_id_range(min: u32, max: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&min.to_be_bytes());
    out[4..].copy_from_slice(&max.to_be_bytes());
    out
}

/// Reads the greeting of [`encode_id_range`]; zero is never part of a range.
pub fn decode_id_range(bytes: [u8; 8]) -> Result<(u32, u32), ProtocolError> {
    let min = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let max = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    if min == 0 || min >= max {
        return Err(ProtocolError::IdRange { min, max });
    }
    Ok((min, max))
}
