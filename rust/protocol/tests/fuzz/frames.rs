//! A byte stream from a peer, cut into pieces: the frame decoder and the envelope.
use bytes::BytesMut;
use microsandbox_protocol::FrameDecoder;
use microsandbox_protocol::frame::{MAX_FRAME, MAX_HELLO_FRAME};

// The first byte chooses the bound and the size of the pieces.
pub fn check(input: &[u8]) {
    let Some((first, wire)) = input.split_first() else { return };
    let max = if first & 1 == 0 { MAX_HELLO_FRAME } else { MAX_FRAME };
    let decoder = FrameDecoder::new(max);
    let mut buffer = BytesMut::new();
    for piece in wire.chunks(usize::from(first >> 1) + 1) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    assert!(frame.body.len() < max);
                    if let Ok(message) = frame.open() {
                        assert!(message.payload.len() <= frame.body.len());
                        assert!(message.kind.as_wire().len() <= 256);
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(buffer.capacity() <= 2 * max + 4096, "memory beyond the bound");
    }
}
