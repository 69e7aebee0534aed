//! Decoders of this crate under changed inputs; `fuzz/` runs the same functions with libFuzzer.

mod frames;
mod id_range;
mod payloads;

use microsandbox_mutation::Target;

#[test]
fn fuzz_frames() {
    Target::new("frames", &[]).run(|input| {
        frames::check(input);
        String::new()
    });
}

#[test]
fn fuzz_payloads() {
    Target::new("payloads", &[]).run(|input| {
        payloads::check(input);
        String::new()
    });
}

#[test]
fn fuzz_id_range() {
    Target::new("id_range", &[]).run(|input| {
        id_range::check(input);
        String::new()
    });
}
