//! Credential programs of Docker and Podman: `docker-credential-<name> get`, the registry on standard input, a JSON object on standard
//! output. What it writes is a secret and is never shown; what it writes to standard error is dropped.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use super::Credential;

/// From its start to its end.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of standard output.
const OUTPUT_MAX: usize = 64 << 10;
/// How often it is looked whether a program that has closed its output has ended.
const END_CHECK: Duration = Duration::from_millis(5);
/// What the programs say, by agreement, when they have no credential for a registry.
const NOT_FOUND: &str = "credentials not found";

/// Why a program gave no answer; the texts end a sentence that begins with the name of the program.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    Absent,
    Other(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// A running program and its group, which is killed unless it has ended.
struct Running {
    child: Child,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Not waited for yet, so the number is still that of the group. It may have gone already.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Asks the program `docker-credential-<name>` for the credential of a registry; `None`: it has none. Blocks for 10 s at most.
pub fn get(name: &str, server: &str, path: Option<&std::ffi::OsStr>) -> Result<Option<Credential>, Failure> {
    get_within(name, server, path, DEADLINE)
}

fn get_within(
    name: &str,
    server: &str,
    path: Option<&std::ffi::OsStr>,
    allowed: Duration,
) -> Result<Option<Credential>, Failure> {
    let other = |text: String| Failure::Other(text);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 100 || !name.bytes().all(plain) {
        return Err(other("has a name that is none of a program".into()));
    }
    let deadline = Instant::now() + allowed;
    #[allow(clippy::disallowed_methods, reason = "a program of the user's that the user's configuration names")]
    let mut command = std::process::Command::new(format!("docker-credential-{name}"));
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::Absent,
        _ => Failure::Other(format!("cannot be started: {error}")),
    })?;
    let mut running = Running { child, ended: false };
    if let Some(mut input) = running.child.stdin.take() {
        // A program that does not read its input has answered or will not: its output says so.
        let _ = input.write_all(server.as_bytes());
    }
    let output = match running.child.stdout.take() {
        Some(output) => read_within(output, deadline).map_err(|why| other(why.to_owned()))?,
        None => Vec::new(),
    };
    let status = loop {
        match running.child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(END_CHECK),
            Ok(None) => return Err(other("did not end in time".into())),
            Err(error) => return Err(other(format!("cannot be waited for: {error}"))),
        }
    };
    running.ended = true;
    if !status.success() {
        if String::from_utf8_lossy(&output).contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(other(format!("failed ({status})")));
    }
    // The error of the parser may hold a piece of the secret.
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_secret| other("did not answer with a JSON object".into()))?;
    Ok(Credential::new(answer.username, answer.secret))
}

/// Everything up to the end of the stream.
fn read_within(mut output: ChildStdout, deadline: Instant) -> Result<Vec<u8>, &'static str> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("did not answer in time");
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return Err("cannot be read from"),
        }
        match output.read(&mut piece) {
            Ok(0) => return Ok(all),
            Ok(read) => all.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err("cannot be read from"),
        }
        if all.len() > OUTPUT_MAX {
            return Err("answered with more than 64 KiB");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const CANARY: &str = "canary-of-the-tests-77ab";

    fn program(body: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    fn ask(body: &str, allowed: Duration) -> Result<Option<Credential>, Failure> {
        let directory = program(body);
        loop {
            let answer = get_within("test", "r.example", Some(directory.path().as_os_str()), allowed);
            // Another thread's child may hold the script open for writing for a moment after a fork.
            match answer {
                Err(Failure::Other(why)) if why.contains("Text file busy") => {}
                answer => return answer,
            }
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn an_answer_becomes_a_credential() {
        let body =
            format!("read server; printf '{{\"ServerURL\":\"x\",\"Username\":\"'$server'\",\"Secret\":\"{CANARY}\"}}'");
        let wanted = Credential::Basic { username: "r.example".into(), password: CANARY.into() };
        assert_eq!(ask(&body, LONG), Ok(Some(wanted)));
        let token = format!("echo '{{\"Username\":\"<token>\",\"Secret\":\"{CANARY}\"}}'");
        assert_eq!(ask(&token, LONG), Ok(Some(Credential::IdentityToken(CANARY.into()))));
        assert_eq!(ask("echo credentials not found in native keychain; exit 1", LONG), Ok(None));
    }

    // hazard: I14
    #[test]
    fn what_a_program_writes_is_in_no_error() {
        let bodies = [
            format!("echo {CANARY}; exit 3"),
            format!("echo {CANARY} >&2; exit 3"),
            format!("echo '{{\"Username\": 5, \"Secret\": \"{CANARY}\"}}'"),
            format!("echo {CANARY}"),
            format!("while :; do echo {CANARY}; done"),
        ];
        for body in bodies {
            let failure = ask(&body, LONG).unwrap_err();
            assert!(!format!("{failure:?}").contains(CANARY), "{failure:?}");
        }
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        for body in [
            "sleep 1000 & echo $! > \"$0.pid\"; wait",
            "sleep 1000 <&- >&- 2>&- & echo $! > \"$0.pid\"; exec >&-; wait",
        ] {
            let directory = program(body);
            let begun = Instant::now();
            let path = Some(directory.path().as_os_str());
            let failure = loop {
                match get_within("test", "r", path, Duration::from_millis(300)).unwrap_err() {
                    Failure::Other(why) if why.contains("Text file busy") => {}
                    failure => break failure,
                }
            };
            assert!(matches!(&failure, Failure::Other(why) if why.contains("in time")), "{failure:?}");
            assert!(begun.elapsed() < Duration::from_secs(8));
            let pid = std::fs::read_to_string(directory.path().join("docker-credential-test.pid")).unwrap();
            let stat = format!("/proc/{}/stat", pid.trim());
            let gone = || std::fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "));
            while !gone() {
                assert!(begun.elapsed() < Duration::from_secs(8), "the child of the program lives on");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn a_program_that_is_absent_or_misnamed_is_told_apart() {
        let nowhere = Some(std::ffi::OsStr::new("/nonexistent"));
        assert_eq!(get("absent", "r", nowhere), Err(Failure::Absent));
        for name in ["", "../x", "a b", "x/y", "ä"] {
            assert!(matches!(get(name, "r", nowhere), Err(Failure::Other(_))), "{name}");
        }
    }
}
