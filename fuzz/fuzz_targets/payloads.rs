#![no_main]

#[path = "../../rust/protocol/tests/fuzz/payloads.rs"]
mod payloads;

libfuzzer_sys::fuzz_target!(|input: &[u8]| payloads::check(input));
