#![no_main]

#[path = "../../rust/agent/tests/fuzz/paths.rs"]
mod paths;

libfuzzer_sys::fuzz_target!(|input: &[u8]| paths::check(input));
