//! Verbs that act on sandboxes by name and by label.

use microsandbox_core::MicrosandboxError;

use crate::support::{created, memory, msb, names, snapshot, status};

#[test]
fn names_are_printed_unless_quiet() {
    let (_, backend) = memory();
    created(&backend, "one", &[]);
    created(&backend, "two", &[]);
    assert_eq!(msb(&backend, &["stop", "one", "two", "one"]).out, "one\ntwo\n");
    assert_eq!(msb(&backend, &["start", "-q", "one"]).out, "");
    assert_eq!((status(&backend, "one"), status(&backend, "two")), ("Running".into(), "Stopped".into()));
    assert_eq!(msb(&backend, &["restart", "one", "two"]).out, "one\ntwo\n");
    assert_eq!(status(&backend, "two"), "Running");
    assert_eq!(msb(&backend, &["kill", "one"]).out, "one\n");
    assert_eq!(msb(&backend, &["wait", "one"]).out, "one\n");
    assert_eq!(msb(&backend, &["remove", "one"]).out, "one\n");
    assert_eq!(names(&backend), ["two"]);
}

#[test]
fn bulk_verbs_try_every_name_and_report_each_failure() {
    let (_, backend) = memory();
    created(&backend, "one", &[]);
    let ran = msb(&backend, &["stop", "absent", "one", "gone"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "one\n"));
    snapshot("error-bulk", &ran.page());
    assert_eq!(status(&backend, "one"), "Stopped");
}

#[test]
fn labels_select_sandboxes() {
    let (_, backend) = memory();
    created(&backend, "one", &["--label", "team=a", "--label", "tier=1"]);
    created(&backend, "two", &["--label", "team=a"]);
    created(&backend, "three", &[]);
    let ran = msb(&backend, &["stop", "--label", "team=a", "--label", "tier=1"]);
    assert_eq!(ran.out, "one\n");
    assert_eq!(msb(&backend, &["list", "-q", "--label", "team=a"]).out, "two\none\n");
    assert_eq!(msb(&backend, &["rm", "-f", "three", "--label", "team=a"]).code, 0);
    assert_eq!(names(&backend), Vec::<String>::new());
}

#[test]
fn a_running_sandbox_is_removed_only_with_force() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    let ran = msb(&backend, &["remove", "box"]);
    assert_eq!(ran.code, 1);
    snapshot("error-still-running", &ran.page());
    assert_eq!(msb(&backend, &["remove", "--force", "box"]).code, 0);
}

#[test]
fn a_taken_name_is_refused_with_a_hint() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    let ran = msb(&backend, &["create", "host", "-n", "box"]);
    assert_eq!(ran.code, 1);
    snapshot("error-name-taken", &ran.page());
}

#[test]
fn a_failed_boot_shows_the_last_console_lines() {
    let (memory, backend) = memory();
    let failure = microsandbox_core::error::BootFailure {
        name: "box".into(),
        stage: microsandbox_core::error::Stage::Mount,
        step: "overlay".into(),
        errno: Some(22),
        message: "mount failed: invalid argument".into(),
        hint: "the home must not be on NFS".into(),
        log_tail: "first\n\u{1b}[31mlast\n".into(),
    };
    memory.fail_next("create", MicrosandboxError::BootStart(Box::new(failure)));
    let ran = msb(&backend, &["create", "host", "-n", "box"]);
    assert_eq!(ran.code, 1);
    snapshot("error-boot", &ran.page());
}

#[test]
fn an_expired_wait_is_status_1() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    let ran = msb(&backend, &["wait", "-t", "100ms", "box"]);
    assert_eq!(ran.code, 1);
    snapshot("error-wait", &ran.page());
}

#[test]
fn ping_and_touch_print_each_sandbox() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    let ran = msb(&backend, &["ping", "--touch", "box"]);
    assert!(ran.code == 0 && ran.out.starts_with("box: ") && ran.out.ends_with(" ms\n"), "{ran:?}");
    assert_eq!(msb(&backend, &["touch", "box"]).out, "box\n");
    assert_eq!(msb(&backend, &["touch", "absent"]).code, 1);
}
