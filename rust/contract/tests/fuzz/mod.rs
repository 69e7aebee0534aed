//! Decoders of this crate under changed inputs; `fuzz/` runs the same functions with libFuzzer.

mod launch;

use microsandbox_mutation::Target;

#[test]
fn fuzz_launch() {
    Target::new("launch", &[]).run(|input| {
        launch::check(input);
        String::new()
    });
}
