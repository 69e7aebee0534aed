#![no_main]

#[path = "../../rust/protocol/tests/fuzz/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|input: &[u8]| frames::check(input));
