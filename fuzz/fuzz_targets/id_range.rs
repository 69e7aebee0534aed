//! The agent's greeting as a client reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use microsandbox_protocol::frame::{decode_id_range, encode_id_range};

fuzz_target!(|bytes: [u8; 8]| {
    if let Ok((min, max)) = decode_id_range(bytes) {
        assert!(min > 0 && min < max);
        assert_eq!(encode_id_range(min, max), bytes);
    }
});
