//! `msb run`: output, status, and what is left afterwards.

use std::time::{Duration, Instant};

use microsandbox_core::MicrosandboxError;

use crate::support::{Ran, created, memory, msb, msb_with_input, names, snapshot, status};

#[test]
fn output_and_status_are_returned_and_nothing_is_left() {
    let (_, backend) = memory();
    let ran = msb(&backend, &["run", "-q", "host", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(ran, Ran { code: 7, out: "out\n".into(), err: "err\n".into() });
    assert_eq!(names(&backend), Vec::<String>::new());
}

#[test]
fn a_missing_program_is_127_and_nothing_is_left() {
    let (_, backend) = memory();
    let ran = msb(&backend, &["run", "-q", "host", "--", "no-such-program"]);
    assert_eq!(ran.code, 127, "{ran:?}");
    assert!(ran.err.starts_with("error: ") && ran.err.contains("no-such-program"), "{}", ran.err);
    assert_eq!(names(&backend), Vec::<String>::new());
}

#[test]
fn input_is_streamed_to_the_program() {
    let (_, backend) = memory();
    let input = b"line\n".repeat(20_000);
    let ran = msb_with_input(|| backend.clone(), &["run", "-q", "host", "--", "cat"], &input);
    assert_eq!((ran.code, ran.out.len()), (0, input.len()), "{}", ran.err);
    assert!(ran.out.as_bytes() == input);
    let ran = msb_with_input(|| backend.clone(), &["run", "-q", "--no-stdin", "host", "--", "cat"], &input);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
}

#[test]
fn an_expired_time_limit_is_status_1() {
    let (_, backend) = memory();
    let begun = Instant::now();
    let ran = msb(&backend, &["run", "-q", "--timeout", "200ms", "host", "--", "sleep", "60"]);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(ran.code, 1);
    snapshot("error-exec-timeout", &ran.page());
    assert_eq!(names(&backend), Vec::<String>::new());
}

#[test]
fn timings_go_to_standard_error() {
    let (_, backend) = memory();
    let ran = msb(&backend, &["run", "-q", "--timings", "host", "--", "echo", "out"]);
    let err = "timings: no sandbox was booted for this run\n";
    assert_eq!(ran, Ran { code: 0, out: "out\n".into(), err: err.into() }, "memory boots nothing");
}

#[test]
fn a_named_sandbox_is_kept_stopped_and_reused() {
    let (_, backend) = memory();
    let write = "echo kept > /tmp/file";
    assert_eq!(msb(&backend, &["run", "-q", "host", "--name", "box", "--", "sh", "-c", write]).code, 0);
    assert_eq!(status(&backend, "box"), "Stopped");
    let ran = msb(&backend, &["run", "--name", "box", "-m", "1G", "-e", "A=B", "--", "cat", "/tmp/file"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "kept\n"));
    snapshot("run-reuse-warning", &ran.page());
    assert_eq!(status(&backend, "box"), "Stopped");
}

#[test]
fn a_running_sandbox_keeps_running() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    assert_eq!(msb(&backend, &["run", "-q", "--name", "box", "--", "true"]).code, 0);
    assert_eq!(status(&backend, "box"), "Running");
}

#[test]
fn replace_creates_the_sandbox_again() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    assert_eq!(msb(&backend, &["exec", "box", "--", "sh", "-c", "echo old > /tmp/file"]).code, 0);
    let ran = msb(&backend, &["run", "-q", "host", "--name", "box", "--replace", "--", "cat", "/tmp/file"]);
    assert_eq!(ran.code, 1, "{ran:?}");
}

#[test]
fn a_detached_run_prints_the_name_and_keeps_the_sandbox() {
    let (_, backend) = memory();
    let ran = msb(&backend, &["run", "-q", "-d", "host", "--", "sleep", "60"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let name = ran.out.trim().to_owned();
    assert!(name.starts_with("msb-") && name.len() == 12, "{name}");
    assert_eq!(status(&backend, &name), "Running");
    assert_eq!(msb(&backend, &["rm", "-f", "-q", &name]).code, 0);
    let missing = msb(&backend, &["run", "-q", "-d", "host", "--", "no-such-program"]);
    assert_eq!((missing.code, missing.out.as_str()), (127, ""));
    assert_eq!(names(&backend), Vec::<String>::new());
}

#[test]
fn a_run_without_program_and_terminal_fails_with_a_hint() {
    let (_, backend) = memory();
    let ran = msb(&backend, &["run", "-q", "host"]);
    assert_eq!(ran.code, 1);
    snapshot("error-no-default-command", &ran.page());
    assert_eq!(names(&backend), Vec::<String>::new());
}

#[test]
fn unimplemented_flags_are_refused_by_name() {
    let (_, backend) = memory();
    let flags: [&[&str]; 7] = [
        &["-p", "8080:80"],
        &["-v", "/tmp:/data"],
        &["--net", "none"],
        &["--secret", "KEY@host"],
        &["--init", "auto"],
        &["--from-snapshot", "s"],
        &["--copy", "/etc/hostname:/b"],
    ];
    let mut page = String::new();
    for flag in flags {
        let ran = msb(&backend, &[&["run"], flag, &["host", "--", "true"]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{flag:?}");
        page.push_str(&ran.err);
    }
    snapshot("error-unsupported-flags", &page);
    assert_eq!(names(&backend), Vec::<String>::new());
}

#[test]
fn unavailable_isolation_creates_nothing() {
    let (memory, backend) = memory();
    let refusal = MicrosandboxError::IsolationUnavailable {
        demanded: "microvm".into(),
        reason: "there is no /dev/kvm".into(),
        hint: "load the kvm module".into(),
    };
    memory.fail_next("create", refusal);
    let ran = msb(&backend, &["run", "--require-microvm", "host", "--", "true"]);
    assert_eq!(ran.code, 1);
    snapshot("error-isolation-unavailable", &ran.page());
}

#[test]
fn environment_and_directory_are_set() {
    let (_, backend) = memory();
    let flags = ["run", "-q", "-e", "A=1=2", "-w", "/tmp", "host", "--", "sh", "-c", "echo $A; pwd"];
    assert_eq!(msb(&backend, &flags).out, "1=2\n/tmp\n");
}
