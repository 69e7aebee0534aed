//! Decoders of this crate under changed inputs; `fuzz/` runs the same functions with libFuzzer.

mod hello;
mod paths;

use microsandbox_mutation::Target;

#[test]
fn fuzz_hello() {
    Target::new("hello", &[]).run(|input| {
        hello::check(input);
        String::new()
    });
}

#[test]
fn fuzz_paths() {
    Target::new("paths", &[]).run(|input| {
        paths::check(input);
        String::new()
    });
    paths::clean();
}
