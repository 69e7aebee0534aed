//! What needs a process and a terminal of its own: signals, raw mode, the standard streams, the environment.
//!
//! The process is this test binary with the one test [`this_test_binary_runs_as_msb_over_memory`], which becomes `msb`
//! over sandboxes in memory. The test harness prints to standard output: it gets /dev/null, until `msb` takes the
//! stream over.

#![allow(clippy::disallowed_methods, reason = "these tests are about processes")]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use microsandbox_sdk::default_backend::set_default_backend;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};

use crate::support::{memory, snapshot};

const DEADLINE: Duration = Duration::from_secs(30);
/// Words of the command line for the child, as JSON.
const WORDS: &str = "MSB_TEST_WORDS";
/// Starts the test harness with its own output discarded and that of `msb` kept at descriptor 9.
const LAUNCH: &str = r#"exec 9>&1 >/dev/null; exec "$0" --exact --nocapture "$1""#;
const CHILD: &str = "process::this_test_binary_runs_as_msb_over_memory";

#[test]
fn this_test_binary_runs_as_msb_over_memory() {
    let Some(words) = std::env::var_os(WORDS) else {
        let ran = msb(&["--version"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), concat!("msb ", env!("CARGO_PKG_VERSION"), "\n"));
        assert_eq!((ran.status.code(), ran.stderr.as_slice()), (Some(0), &b""[..]));
        return;
    };
    let words: Vec<String> = serde_json::from_str(words.to_str().unwrap()).unwrap();
    take_standard_output();
    set_default_backend(memory().1);
    let words = std::iter::once("msb".to_owned()).chain(words).map(OsString::from).collect();
    std::process::exit(microsandbox_cli::main(words, None));
}

/// Restores the standard output that [`LAUNCH`] kept at descriptor 9. Opened by its path: a safe owner of a descriptor
/// that a shell opened by number does not exist.
fn take_standard_output() {
    let kept = std::fs::File::options().write(true).open("/proc/self/fd/9").unwrap();
    rustix::stdio::dup2_stdout(&kept).unwrap();
}

fn msb(words: &[&str]) -> Command {
    under(&[], words)
}

/// `msb` started by the program and arguments `launcher`.
fn under(launcher: &[&str], words: &[&str]) -> Command {
    let shell = ["sh", "-c", LAUNCH];
    let mut whole = launcher.iter().chain(&shell);
    let mut command = Command::new(whole.next().unwrap());
    command.args(whole).arg(std::env::current_exe().unwrap()).arg(CHILD);
    command.env(WORDS, serde_json::to_string(words).unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Reads until `text` is received.
#[track_caller]
fn read_until(stream: &mut impl Read, text: &str) -> String {
    let begun = Instant::now();
    let mut seen = Vec::new();
    let mut byte = [0u8; 1];
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert!(begun.elapsed() < DEADLINE, "waiting for {text:?}: {:?}", String::from_utf8_lossy(&seen));
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            other => panic!("waiting for {text:?}: {other:?} after {:?}", String::from_utf8_lossy(&seen)),
        }
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// The exit status and standard error, within the deadline.
#[track_caller]
fn finish(mut child: Child) -> (Option<i32>, String) {
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("the process does not exit");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (status.code(), err)
}

/// `msb` whose program has started; its output stays open.
fn running(words: &[&str]) -> Child {
    let mut child = msb(words).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    read_until(&mut out, "begun");
    child.stdout = Some(out);
    child
}

const LONG: [&str; 7] = ["run", "-q", "host", "--", "sh", "-c", "echo begun; sleep 600"];

#[test]
fn an_interrupt_goes_to_the_program() {
    let child = running(&LONG);
    signal(&child, Signal::INT);
    assert_eq!(finish(child), (Some(130), String::new()));
}

#[test]
fn a_termination_signal_goes_to_the_program() {
    let child = running(&LONG);
    signal(&child, Signal::TERM);
    assert_eq!(finish(child), (Some(143), String::new()));
}

#[test]
fn an_interrupt_cancels_a_waiting_verb() {
    // `load` waits for its standard input, a pipe without a writer's data.
    let mut child = msb(&["load"]).stdin(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take();
    wait_until_caught(&child, libc::SIGINT);
    signal(&child, Signal::INT);
    assert_eq!(finish(child), (Some(130), String::new()));
    drop(input);
}

/// From `/proc/<pid>/status`: whether the command has a handler. The shell that starts it can catch `number` too, but not the
/// change of the window size, which is caught last.
fn wait_until_caught(child: &Child, number: i32) {
    let begun = Instant::now();
    let all = (1 << (number - 1)) | (1 << (libc::SIGWINCH - 1));
    while mask(child, "SigCgt") & all != all {
        assert!(begun.elapsed() < DEADLINE, "signal {number} is never caught");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn mask(child: &Child, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let mut child = under(&["nohup"], &LONG).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    read_until(&mut out, "begun");
    assert_ne!(mask(&child, "SigIgn") & (1 << (libc::SIGHUP - 1)), 0);
    assert_ne!(mask(&child, "SigCgt") & (1 << (libc::SIGINT - 1)), 0);
    signal(&child, Signal::TERM);
    assert_eq!(finish(child).0, Some(143));
}

#[test]
fn standard_input_of_a_pipe_is_streamed() {
    let mut child = msb(&["run", "-q", "host", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut input, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    // Each line returns before the next line is written: output does not wait for end of input.
    for line in ["one\n", "two\n"] {
        input.write_all(line.as_bytes()).unwrap();
        read_until(&mut out, line);
    }
    drop(input);
    assert_eq!(finish(child), (Some(0), String::new()));
}

/// A new pseudo-terminal: our end, the other end, its name.
fn terminal() -> (std::fs::File, OwnedFd, std::path::PathBuf) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = std::path::PathBuf::from(ptsname(&ours, Vec::new()).unwrap().into_string().unwrap());
    let theirs = std::fs::File::options().read(true).write(true).open(&name).unwrap();
    (ours.into(), theirs.into(), name)
}

fn is_raw(terminal: &OwnedFd) -> bool {
    !tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON)
}

/// `msb` in a session of its own on this terminal.
fn on_terminal(theirs: &OwnedFd, words: &[&str]) -> Child {
    let mut command = under(&["setsid", "--ctty", "--wait"], words);
    command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
    command.spawn().unwrap()
}

#[test]
fn the_terminal_is_raw_while_attached_and_restored_after() {
    let (mut ours, theirs, _name) = terminal();
    assert!(!is_raw(&theirs));
    let child = on_terminal(&theirs, &["run", "-q", "host", "--", "sh", "-c", "echo begun; cat"]);
    read_until(&mut ours, "begun");
    assert!(is_raw(&theirs));
    // Ctrl-D is the end of input of a program on a terminal.
    ours.write_all(b"typed\n").unwrap();
    read_until(&mut ours, "typed");
    ours.write_all(&[0x1d]).unwrap();
    assert_eq!(finish(child).0, Some(0));
    assert!(!is_raw(&theirs));
}

#[test]
fn the_detach_keys_restore_the_terminal() {
    let (mut ours, theirs, _name) = terminal();
    let words = ["run", "-q", "host", "--detach-keys", "ctrl-p,ctrl-q", "--", "sh", "-c", "echo begun; sleep 600"];
    let child = on_terminal(&theirs, &words);
    read_until(&mut ours, "begun");
    ours.write_all(&[0x10, 0x11]).unwrap();
    let (code, err) = finish(child);
    assert_eq!(code, Some(0));
    assert!(err.contains("keeps running"), "{err}");
    assert!(!is_raw(&theirs));
}

/// `msb` with a configuration and a home of its own; what it prints, with the paths masked.
fn with_config(home: &std::path::Path, words: &[&str]) -> String {
    let mut command = msb(words);
    command.env("MSB_HOME", home).env("MSB_CONFIG_PATH", home.join("config.json"));
    let ran = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(home.to_str().unwrap(), "<home>");
    let status = ran.status.code().unwrap();
    format!("$ msb {}\nstatus: {status}\n{}{}\n", words.join(" "), text(&ran.stdout), text(&ran.stderr))
}

#[test]
fn profiles_match_their_snapshot() {
    let home = tempfile::tempdir().unwrap();
    let config = r#"{"profiles": {
        "here": {"backend": "local"},
        "work": {"backend": "cloud", "url": "https://sandboxes.example", "api_key_ref": "env:WORK_KEY"}}}"#;
    let calls: [&[&str]; 8] = [
        &["profile", "list"],
        &["profile", "show"],
        &["profile", "use", "work"],
        &["profile", "show"],
        &["profile", "show", "absent"],
        &["context", "list"],
        &["context", "reset"],
        &["profile", "list", "--format", "json"],
    ];
    let empty = with_config(home.path(), &["profile", "list"]);
    std::fs::write(home.path().join("config.json"), config).unwrap();
    let rest = calls.map(|words| with_config(home.path(), words)).concat();
    snapshot("profiles", &format!("{empty}{rest}"));
}

#[test]
fn keys_of_a_server_match_their_snapshot() {
    let home = tempfile::tempdir().unwrap();
    let calls: [&[&str]; 6] = [
        &["serve", "key", "create", "ci", "--scope", "exec", "--scope", "metrics", "--expires", "30d"],
        &["serve", "key", "create", "ci"],
        &["serve", "key", "list"],
        &["serve", "key", "list", "--format", "json"],
        &["serve", "key", "revoke", "ci"],
        &["serve", "key", "revoke", "ci"],
    ];
    let page = calls.map(|words| with_config(home.path(), words)).concat();
    let mask = |pattern: &str, text: &str, value: &str| {
        regex::Regex::new(pattern).unwrap().replace_all(text, value).into_owned()
    };
    let page = mask(r"(?m)^msk?_?\S+$", &page, "<key>");
    let page = mask(r"\b[0-9a-f]{16}\b", &page, "<owner>");
    snapshot("serve-keys", &mask(r"\d{4}-\d\d-\d\dT[\d:.]+Z", &page, "<moment>"));
}
