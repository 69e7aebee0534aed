#![no_main]

#[path = "../../rust/agent/tests/fuzz/hello.rs"]
mod hello;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hello::check(input));
