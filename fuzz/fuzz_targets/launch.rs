#![no_main]

#[path = "../../rust/contract/tests/fuzz/launch.rs"]
mod launch;

libfuzzer_sys::fuzz_target!(|input: &[u8]| launch::check(input));
