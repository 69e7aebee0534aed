//! The agent's greeting as a client reads it.
use microsandbox_protocol::frame::{decode_id_range, encode_id_range};

pub fn check(input: &[u8]) {
    let Some(bytes) = input.first_chunk::<8>().copied() else { return };
    if let Ok((min, max)) = decode_id_range(bytes) {
        assert!(min > 0 && min < max);
        assert_eq!(encode_id_range(min, max), bytes);
    }
}
