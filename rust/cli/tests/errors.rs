//! Every error text and hint of the command line, as snapshots.

use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::SandboxStatus;

use crate::support::{created, local, memory, msb, msb_alone, snapshot};

/// The command line and its standard error, one case after another.
fn page(cases: &[&[&str]], status: i32, run: impl Fn(&[&str]) -> crate::support::Ran) -> String {
    let one = |words: &&[&str]| {
        let ran = run(words);
        assert_eq!((ran.code, ran.out.as_str()), (status, ""), "{words:?}: {}", ran.err);
        format!("$ msb {}\n{}\n", words.join(" "), ran.err)
    };
    cases.iter().map(one).collect()
}

#[test]
fn arguments_that_contradict_each_other_are_status_2() {
    let (_, backend) = memory();
    let cases: &[&[&str]] = &[
        &["create", "host", "-c", "2", "--max-cpus", "1"],
        &["create", ""],
        &["create", "host", "-v", "/data"],
        &["create", "host", "-v", "/data:/data:rx"],
        &["create", "host", "--tmpfs", "/tmp:12X"],
        &["create", "host", "--mkdir", "relative"],
        &["copy", "/a", "/b"],
        &["copy", "box:a", "/b"],
        &["kill", "one", "two", "--job", "1"],
        &["volume", "create", "data", "--kind", "disk"],
        &["install", "host", "--from", "/tmp/libkrunfw.so"],
        &["install", "libkrunfw", "-n", "name"],
        &["install", "host", "-n", "name", "-m", "12X"],
        &["serve", "--listen", "localhost"],
    ];
    let local_home = tempfile::tempdir().unwrap();
    let local = local(local_home.path());
    let run = |words: &[&str]| msb(if words[0] == "install" { &local } else { &backend }, words);
    snapshot("usage-contradictions", &page(cases, 2, run));
}

#[test]
fn the_protection_of_a_server_must_be_chosen() {
    let home = tempfile::tempdir().unwrap();
    let local = local(home.path());
    let cases: &[&[&str]] =
        &[&["serve", "--listen", "127.0.0.1:0"], &["serve", "--listen", "0.0.0.0:0", "--insecure-http"]];
    snapshot("usage-serve", &page(cases, 2, |words| msb(&local, words)));
    let (_, backend) = memory();
    snapshot("error-serve-remote", &page(&[&["serve"]], 1, |words| msb(&backend, words)));
}

#[test]
fn unimplemented_verbs_are_refused_with_what_they_wait_for() {
    let verbs = ["snapshot", "snap", "restore", "fork", "ssh", "update", "downgrade"];
    let mut cases: Vec<Vec<&str>> = verbs.iter().map(|verb| vec![*verb, "argument"]).collect();
    cases.extend([vec!["self", "update"], vec!["self", "uninstall"]]);
    let cases: Vec<&[&str]> = cases.iter().map(Vec::as_slice).collect();
    snapshot("error-unsupported-verbs", &page(&cases, 1, msb_alone));
}

#[test]
fn errors_of_the_core_have_hints() {
    let name = || "box".to_owned();
    let path = || "/home/joe/.microsandbox/db".into();
    let stopped = SandboxStatus::Stopped;
    let errors = [
        MicrosandboxError::SandboxNotRunning { name: name(), status: stopped },
        MicrosandboxError::SandboxNotRunning { name: name(), status: SandboxStatus::Paused },
        MicrosandboxError::MetricsDisabled(name()),
        MicrosandboxError::AgentLost { name: name(), reason: "the connection was closed".into() },
        MicrosandboxError::GuestStalled { name: name(), secs: 30.0 },
        MicrosandboxError::StateBusy { path: path(), message: "locked".into() },
        MicrosandboxError::ResourceExhausted { resource: "sandboxes".into(), message: "limit reached".into() },
        MicrosandboxError::VolumeInUse { name: "data".into(), holder: name() },
        MicrosandboxError::Runtime("without a hint".into()),
    ];
    let (memory, backend) = memory();
    let reports = errors.map(|error| {
        memory.fail_next("create", error);
        let ran = msb(&backend, &["create", "host"]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""));
        ran.err + "\n"
    });
    snapshot("error-hints", &reports.concat());
}

#[test]
fn installed_commands_are_never_replaced_silently() {
    let home = tempfile::tempdir().unwrap();
    let local = local(home.path());
    let path = home.path().to_str().unwrap();
    let masked = |ran: crate::support::Ran| ran.page().replace(path, "<home>");
    let install: &[&str] = &["install", "host", "-n", "py", "--", "python3"];
    let mut text = masked(msb(&local, install));
    text.push_str(&masked(msb(&local, install)));
    std::fs::write(home.path().join("bin/other"), "#!/bin/sh\n").unwrap();
    text.push_str(&masked(msb(&local, &["install", "host", "-n", "other", "--", "true"])));
    text.push_str(&masked(msb(&local, &["install", "--list"])));
    text.push_str(&masked(msb(&local, &["uninstall", "other", "py"])));
    snapshot("install-commands", &text);
}

#[test]
fn a_missing_image_of_run_is_reported_with_a_hint() {
    let (_, backend) = memory();
    let cases: &[&[&str]] = &[
        &["run", "--name", "absent", "--", "true"],
        &["run", "/nonexistent/rootfs", "--", "true"],
        &["run", "/etc/passwd", "--", "true"],
    ];
    snapshot("error-image-argument", &page(cases, 1, |words| msb(&backend, words)));
}

#[test]
fn an_empty_result_of_uninstall_and_jobs_is_reported() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    let cases: &[&[&str]] = &[&["jobs", "box"], &["uninstall", "absent"], &["volume", "rm", "absent"]];
    snapshot("error-other", &page(cases, 1, |words| msb(&backend, words)));
}
