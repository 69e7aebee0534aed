#![no_main]

#[path = "../../rust/rooted/tests/fuzz/tar.rs"]
mod tar;

libfuzzer_sys::fuzz_target!(|input: &[u8]| tar::check(input));
