//! `msb exec`: statuses and streams.

use std::time::{Duration, Instant};

use microsandbox_core::MicrosandboxError;
use microsandbox_fake::ScriptResult;

use crate::support::{created, memory, msb, status};

#[test]
fn the_exit_status_is_returned() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    for code in [0, 1, 2, 42, 126, 127, 255] {
        let ran = msb(&backend, &["exec", "box", "--", "sh", "-c", &format!("exit {code}")]);
        assert_eq!((ran.code, ran.err.as_str()), (code, ""));
    }
}

#[test]
fn each_kind_of_failed_start_has_its_status() {
    let (memory, backend) = memory();
    created(&backend, "box", &[]);
    for (kind, code) in [("not_found", 127), ("permission_denied", 126), ("not_executable", 126), ("bad_cwd", 1)] {
        let failure = microsandbox_core::error::ExecFailure {
            kind: kind.into(),
            message: format!("cannot start: {kind}"),
            errno: None,
            errno_name: None,
            stage: None,
        };
        memory.fail_next("exec_stream", MicrosandboxError::ExecFailed(Box::new(failure)));
        let ran = msb(&backend, &["exec", "box", "--", "true"]);
        assert_eq!((ran.code, ran.err.as_str()), (code, format!("error: cannot start: {kind}\n").as_str()));
    }
}

#[test]
fn a_stopped_sandbox_is_started_for_the_call_only() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    assert_eq!(msb(&backend, &["stop", "-q", "box"]).code, 0);
    let ran = msb(&backend, &["exec", "box", "--", "echo", "hi"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "hi\n"));
    assert_eq!(status(&backend, "box"), "Stopped");
}

#[test]
fn binary_output_is_unchanged() {
    let (memory, backend) = memory();
    created(&backend, "box", &[]);
    let bytes: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    let output = bytes.clone();
    memory.script("bytes", move |_| ScriptResult { stdout: output.clone().into(), ..ScriptResult::default() });
    let collected = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let console = microsandbox_cli::Console {
        input: microsandbox_cli::Input::Bytes(bytes::Bytes::new()),
        out: collected.clone(),
        err: collected.clone(),
        in_is_terminal: false,
        out_is_terminal: false,
        err_is_terminal: false,
        may_color: false,
    };
    let words = ["msb", "exec", "box", "--", "bytes"].map(Into::into).to_vec();
    assert_eq!(microsandbox_cli::run_with(words, console, || backend.clone()), 0);
    assert!(*collected.lock().unwrap() == bytes);
}

#[test]
fn a_closed_output_pipe_kills_the_program_silently() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    let err = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let console = microsandbox_cli::Console {
        input: microsandbox_cli::Input::Bytes(bytes::Bytes::new()),
        out: std::sync::Arc::new(std::sync::Mutex::new(Closed)),
        err: err.clone(),
        in_is_terminal: false,
        out_is_terminal: false,
        err_is_terminal: false,
        may_color: false,
    };
    let words = ["msb", "exec", "box", "--", "sh", "-c", "seq 1 100000; sleep 60"].map(Into::into).to_vec();
    let begun = Instant::now();
    assert_eq!(microsandbox_cli::run_with(words, console, || backend.clone()), 141);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(String::from_utf8_lossy(&err.lock().unwrap()), "");
}
