//! `msb logs`.

use microsandbox_core::SharedBackend;

use crate::support::{created, memory, msb};

fn with_output() -> SharedBackend {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    let script = "echo one; echo two >&2; echo three";
    assert_eq!(msb(&backend, &["exec", "box", "--", "sh", "-c", script]).code, 0);
    backend
}

#[test]
fn history_is_what_programs_wrote() {
    let backend = with_output();
    assert_eq!(msb(&backend, &["logs", "box", "--source", "stdout"]).out, "one\nthree\n");
    assert_eq!(msb(&backend, &["logs", "box", "--source", "stderr"]).out, "two\n");
    assert_eq!(msb(&backend, &["logs", "box", "--grep", "^t.o$"]).out, "two\n");
    assert_eq!(msb(&backend, &["logs", "box", "--until", "1h"]).out, "");
    assert_eq!(msb(&backend, &["logs", "box", "--tail", "0"]).out, "");
    assert_eq!(msb(&backend, &["stop", "-q", "box"]).code, 0);
    assert_eq!(msb(&backend, &["logs", "box", "--source", "stderr"]).out, "two\n");
}

#[test]
fn colours_appear_only_on_request() {
    let backend = with_output();
    assert_eq!(msb(&backend, &["logs", "box", "--source", "stderr"]).out, "two\n");
    let colored = msb(&backend, &["logs", "box", "--source", "stderr", "--color", "always"]).out;
    assert_eq!(colored, "\x1b[31mtwo\x1b[0m\n");
}

#[test]
fn json_lines_have_time_source_text_and_run() {
    let backend = with_output();
    let out = msb(&backend, &["logs", "box", "--json", "--source", "stderr"]).out;
    let entry: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((entry["s"].as_str(), entry["d"].as_str()), (Some("stderr"), Some("two\n")));
    assert!(entry["id"].is_u64() && entry["t"].as_str().unwrap().ends_with('Z') && entry["e"].is_null(), "{entry}");
}

#[test]
fn following_ends_with_the_sandbox() {
    let backend = with_output();
    assert_eq!(msb(&backend, &["stop", "-q", "box"]).code, 0);
    assert_eq!(msb(&backend, &["logs", "-f", "box", "--source", "stdout"]).out, "one\nthree\n");
    assert_eq!(msb(&backend, &["logs", "-f", "--tail", "1", "box", "--source", "stdout"]).out, "three\n");
}
