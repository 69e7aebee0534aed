//! What needs a process and a terminal of its own: signals, raw mode, the standard streams.
//!
//! This program is its own subject: started again with `MSB_TEST_CHILD` set it is `msb` over sandboxes in memory, without
//! a test harness around it that would print into its output.

#![allow(clippy::disallowed_methods, reason = "the point is to look at another process")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use microsandbox_core::SharedBackend;
use microsandbox_core::backend::{MemoryBackend, set_default_backend};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};

const DEADLINE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if std::env::var_os("MSB_TEST_CHILD").is_some() {
        let backend: SharedBackend = Arc::new(MemoryBackend::new());
        set_default_backend(backend);
        return ExitCode::from(microsandbox_cli::main(std::env::args_os().collect(), None) as u8);
    }
    let tests: [(&str, fn()); 7] = [
        ("an_interrupt_goes_to_the_program_and_its_status_comes_back", an_interrupt_goes_to_the_program),
        ("termination_goes_to_the_program_too", termination_goes_to_the_program_too),
        ("an_interrupt_ends_a_verb_that_waits", an_interrupt_ends_a_verb_that_waits),
        ("an_ignored_signal_stays_ignored", an_ignored_signal_stays_ignored),
        ("standard_input_of_a_pipe_is_streamed", standard_input_of_a_pipe_is_streamed),
        ("the_terminal_is_raw_while_attached_and_restored_afterwards", the_terminal_is_restored),
        ("the_detach_keys_give_the_terminal_back", the_detach_keys_give_the_terminal_back),
    ];
    run_as_harness(&tests)
}

/// The part of the test harness's command line that cargo and nextest use: `--list`, `--ignored` (none are) and names.
fn run_as_harness(tests: &[(&str, fn())]) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let says = |flag: &str| words.iter().any(|word| word == flag);
    let exact = says("--exact");
    let names: Vec<&String> = words.iter().filter(|word| !word.starts_with('-') && *word != "terse").collect();
    let chosen = |name: &str| {
        let matches = |wanted: &&String| if exact { wanted.as_str() == name } else { name.contains(wanted.as_str()) };
        !says("--ignored") && (names.is_empty() || names.iter().any(matches))
    };
    for (name, test) in tests.iter().filter(|(name, _)| chosen(name)) {
        if says("--list") {
            println!("{name}: test");
        } else {
            test();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

fn msb(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(words).env("MSB_TEST_CHILD", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Reads until `text` has come.
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

/// The status, in time.
#[track_caller]
fn finish(mut child: Child) -> (Option<i32>, String) {
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (status.code(), err)
}

/// A program that has begun to run, its output open.
fn running(words: &[&str]) -> Child {
    let mut child = msb(words).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    read_until(&mut out, "begun");
    child.stdout = Some(out);
    child
}

const LONG: [&str; 7] = ["run", "-q", "host", "--", "sh", "-c", "echo begun; sleep 600"];

fn an_interrupt_goes_to_the_program() {
    let child = running(&LONG);
    signal(&child, Signal::INT);
    assert_eq!(finish(child), (Some(130), String::new()));
}

fn termination_goes_to_the_program_too() {
    let child = running(&LONG);
    signal(&child, Signal::TERM);
    assert_eq!(finish(child), (Some(143), String::new()));
}

fn an_interrupt_ends_a_verb_that_waits() {
    // `load` waits for its standard input; a pipe that nobody writes to.
    let mut child = msb(&["load"]).stdin(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take();
    wait_until_caught(&child, libc::SIGINT);
    signal(&child, Signal::INT);
    assert_eq!(finish(child), (Some(130), String::new()));
    drop(input);
}

/// From `/proc/<pid>/status`: whether the process has a handler of its own.
fn wait_until_caught(child: &Child, number: i32) {
    let begun = Instant::now();
    while mask(child, "SigCgt") & (1 << (number - 1)) == 0 {
        assert!(begun.elapsed() < DEADLINE, "signal {number} is never caught");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn mask(child: &Child, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

fn an_ignored_signal_stays_ignored() {
    let mut command = Command::new("nohup");
    command.arg(std::env::current_exe().unwrap()).args(LONG).env("MSB_TEST_CHILD", "1");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    read_until(&mut out, "begun");
    assert_ne!(mask(&child, "SigIgn") & (1 << (libc::SIGHUP - 1)), 0);
    assert_ne!(mask(&child, "SigCgt") & (1 << (libc::SIGINT - 1)), 0);
    signal(&child, Signal::TERM);
    assert_eq!(finish(child).0, Some(143));
}

fn standard_input_of_a_pipe_is_streamed() {
    let mut child = msb(&["run", "-q", "host", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut input, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    // Each line comes back before the next one is written: nothing waits for the end of input.
    for line in ["one\n", "two\n"] {
        input.write_all(line.as_bytes()).unwrap();
        read_until(&mut out, line);
    }
    drop(input);
    assert_eq!(finish(child), (Some(0), String::new()));
}

/// A new terminal: our end, and its name.
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

/// `msb` in a session of its own on that terminal.
fn on_terminal(theirs: &OwnedFd, words: &[&str]) -> Child {
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(std::env::current_exe().unwrap()).args(words).env("MSB_TEST_CHILD", "1");
    command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn the_terminal_is_restored() {
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

fn the_detach_keys_give_the_terminal_back() {
    let (mut ours, theirs, _name) = terminal();
    let words = ["run", "-q", "host", "--detach-keys", "ctrl-p,ctrl-q", "--", "sh", "-c", "echo begun; sleep 600"];
    let child = on_terminal(&theirs, &words);
    read_until(&mut ours, "begun");
    ours.write_all(&[0x10, 0x11]).unwrap();
    let (code, err) = finish(child);
    assert_eq!(code, Some(0));
    assert!(err.contains("goes on running"), "{err}");
    assert!(!is_raw(&theirs));
}
