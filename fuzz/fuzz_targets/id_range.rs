#![no_main]

#[path = "../../rust/protocol/tests/fuzz/id_range.rs"]
mod id_range;

libfuzzer_sys::fuzz_target!(|input: &[u8]| id_range::check(input));
