//! The agent client against the real agent, an ordinary process on this machine: both ends of every call.

#![allow(clippy::disallowed_methods, reason = "starts the agent under test, as the runtime does")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::peer::{TOKEN, agent as client, exec, exec_stream, options, soon, spec};
use bytes::Bytes;
use futures::StreamExt;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::agent::connections::Connections;
use microsandbox_core::agent::{AgentAddress, AgentClient};
use microsandbox_core::backend::Files as _;
use microsandbox_core::model::{ExecEvent, ExecOptions, ExecOutput, FsEntryKind, StdinSource};
use microsandbox_protocol::frame::{Flags, encode};
use microsandbox_protocol::message::{Bootstrap, Kind};

const CONNECT: Duration = Duration::from_secs(5);

struct Agent {
    child: Child,
    address: AgentAddress,
    directory: tempfile::TempDir,
    /// As a backend keeps them between calls.
    connections: Connections<tokio::net::UnixStream>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    std::env::var_os("MSB_AGENT").map_or_else(|| concat!(env!("OUT_DIR"), "/msb-agent").into(), PathBuf::from)
}

impl Agent {
    fn start() -> Agent {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        // The shell only moves the two descriptors to where the agent expects them.
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" 3<&0 4<&1 </dev/null >/dev/null"])
            .arg(program())
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let bootstrap = Bootstrap {
            token: TOKEN.to_vec(),
            env: vec!["SANDBOX=yes".into(), "PATH=/usr/bin:/bin".into()],
            cwd: "/".into(),
            makes_cwd: false,
            user: None,
            rlimits: Vec::new(),
            shutdown_grace_ms: 500,
            drain_ms: 300,
            max_clients: 64,
            machine: None,
            init: None,
            restricted: false,
        };
        ours.write_all(&encode(0, Flags::NONE, &Kind::Bootstrap, &bootstrap).unwrap()).unwrap();
        // Takes what the runtime would log, for as long as the agent lives.
        std::thread::spawn(move || {
            let mut room = vec![0; 1 << 20];
            while ours.read(&mut room).is_ok_and(|count| count > 0) {}
        });
        let address = AgentAddress { name: "box".into(), socket, token: TOKEN.to_vec() };
        Agent { child, address, directory, connections: Connections::default() }
    }

    async fn run(&self, cmd: &str, options: ExecOptions) -> Result<ExecOutput, MicrosandboxError> {
        soon(exec(&self.connections, &self.address, &spec(), cmd.into(), options)).await
    }

    async fn sh(&self, script: &str) -> ExecOutput {
        self.run("sh", ExecOptions { args: vec!["-c".into(), script.into()], ..options() }).await.unwrap()
    }

    /// A guest path in a directory of this test's own.
    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_string()
    }
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

// hazard: X1
#[tokio::test]
async fn programs_are_run_and_every_byte_arrives() {
    let agent = Agent::start();
    let output = agent.sh("echo out; echo err >&2; exit 3").await;
    assert_eq!((text(&output.stdout), text(&output.stderr), output.exit.code), ("out\n", "err\n", 3));
    let output = agent.run("env", ExecOptions { env: vec![("B".into(), "2".into())], ..options() }).await.unwrap();
    assert!(text(&output.stdout).contains("SANDBOX=yes\n") && text(&output.stdout).contains("B=2\n"));
    let output = agent.sh("kill -TERM $$").await;
    assert_eq!((output.exit.code, output.exit.signal), (143, Some(15)));
    for number in 0..500 {
        let args = vec![format!("x{number}")];
        let output = agent.run("echo", ExecOptions { args, ..options() }).await.unwrap();
        assert_eq!(text(&output.stdout), format!("x{number}\n"));
    }
    let output = agent.run("seq", ExecOptions { args: vec!["1".into(), "1000000".into()], ..options() }).await.unwrap();
    let expected: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    assert!(text(&output.stdout) == expected && output.exit.drained);
}

// hazard: X8, A4, A5
#[tokio::test]
async fn failures_to_start_have_their_kind() {
    let agent = Agent::start();
    let missing = |cwd: &str| ExecOptions { cwd: Some(cwd.into()), ..options() };
    let cases = [
        ("no-such-program", options(), "not_found"),
        ("/etc/passwd", options(), "permission_denied"),
        ("true", missing("/no/such/directory"), "bad_cwd"),
        ("true", missing("/etc/passwd"), "bad_cwd"),
        ("true", ExecOptions { user: Some("no-such-user".into()), ..options() }, "user_setup_failed"),
        ("true", ExecOptions { args: vec!["x".repeat(3 << 20)], ..options() }, "bad_args"),
    ];
    for (cmd, options, kind) in cases {
        let error = agent.run(cmd, options).await.unwrap_err();
        let MicrosandboxError::ExecFailed(failure) = error else { panic!("{cmd}: {error}") };
        assert_eq!(failure.kind, kind, "{cmd}: {}", failure.message);
    }
}

// hazard: X9
#[tokio::test]
async fn much_input_comes_back_through_cat() {
    let agent = Agent::start();
    let input: Bytes = (0..30_000_000u32).map(|n| (n / 5) as u8).collect::<Vec<u8>>().into();
    let stdin = StdinSource::Bytes(input.clone());
    let output = agent.run("cat", ExecOptions { stdin, ..options() }).await.unwrap();
    assert!(output.stdout == input);
    // A program that does not read its input still ends.
    let stdin = StdinSource::Bytes(input);
    assert_eq!(agent.run("true", ExecOptions { stdin, ..options() }).await.unwrap().exit.code, 0);
}

// hazard: X5
#[tokio::test]
async fn a_timeout_ends_the_tree_and_keeps_the_partial_output() {
    let agent = Agent::start();
    let marker = agent.path("alive");
    let script = format!("echo before; (setsid sh -c 'while :; do date > {marker}; sleep 0.05; done') & wait");
    let args = vec!["-c".into(), script];
    let error = agent.run("sh", ExecOptions { args, timeout: Some(Duration::from_millis(700)), ..options() }).await;
    let Err(MicrosandboxError::ExecTimeout { output: Some(output), .. }) = error else { panic!("{error:?}") };
    assert_eq!(text(&output.stdout), "before\n");
    assert!(output.exit.timed_out);
    let modified = || std::fs::metadata(&marker).unwrap().modified().unwrap();
    let last = modified();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(modified(), last, "a descendant lives on");
}

#[tokio::test]
async fn cancelling_a_run_kills_what_it_started() {
    let agent = Agent::start();
    let marker = agent.path("alive");
    let script = format!("while :; do date > {marker}; sleep 0.05; done");
    let options = ExecOptions { args: vec!["-c".into(), script], ..options() };
    assert!(tokio::time::timeout(Duration::from_millis(700), agent.run("sh", options)).await.is_err());
    soon(async {
        let modified = || std::fs::metadata(&marker).unwrap().modified().unwrap();
        loop {
            let before = modified();
            tokio::time::sleep(Duration::from_millis(300)).await;
            if modified() == before {
                break;
            }
        }
    })
    .await;
}

// hazard: X2
#[tokio::test]
async fn a_long_stream_is_complete_and_a_slow_reader_holds_it_back() {
    const BYTES: u64 = 200_000_000;
    let agent = Agent::start();
    let args = vec!["-c".into(), BYTES.to_string(), "/dev/zero".into()];
    let spec = spec();
    let start = exec_stream(&agent.address, &spec, "head".into(), ExecOptions { args, ..options() });
    let handle = soon(start).await.unwrap();
    let mut total = 0;
    let mut pauses = 0;
    while let Some(event) = soon(handle.recv()).await.unwrap() {
        match event {
            ExecEvent::Stdout(data) => total += data.len() as u64,
            ExecEvent::Exited(exit) => assert_eq!(exit.code, 0),
            _ => {}
        }
        if pauses < 5 {
            pauses += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(total, BYTES);
}

#[tokio::test]
async fn a_conversation_with_a_running_program() {
    let agent = Agent::start();
    let args = vec!["-c".into(), "while read line; do echo got $line; done; echo end".into()];
    let options = ExecOptions { args, stdin: StdinSource::Pipe, ..options() };
    let handle = soon(exec_stream(&agent.address, &spec(), "sh".into(), options)).await.unwrap();
    let stdin = handle.take_stdin().unwrap();
    assert!(matches!(soon(handle.recv()).await.unwrap(), Some(ExecEvent::Started { pid }) if pid > 0));
    for word in ["one", "two"] {
        stdin.write(Bytes::from(format!("{word}\n"))).await.unwrap();
        let event = soon(handle.recv()).await.unwrap();
        assert_eq!(event, Some(ExecEvent::Stdout(Bytes::from(format!("got {word}\n")))));
    }
    stdin.close().await.unwrap();
    assert_eq!(soon(handle.recv()).await.unwrap(), Some(ExecEvent::Stdout(Bytes::from_static(b"end\n"))));
    assert_eq!(soon(handle.wait()).await.unwrap().code, 0);
}

// hazard: F9
#[tokio::test]
async fn files_go_and_come_back() {
    let agent = Agent::start();
    let content: Bytes = (0..50_000_000u32).map(|n| (n / 11) as u8).collect::<Vec<u8>>().into();
    let path = agent.path("big");
    soon(client(&agent.address).write(&path, content.clone())).await.unwrap();
    assert!(soon(client(&agent.address).read(&path, u64::MAX)).await.unwrap() == content);
    let stream = soon(client(&agent.address).read_stream(&path)).await.unwrap();
    let total = soon(stream.fold(0, |total, chunk| async move { total + chunk.unwrap().len() })).await;
    assert_eq!(total, content.len());
    let stat = soon(client(&agent.address).stat(&path, true)).await.unwrap();
    assert_eq!((stat.kind, stat.size), (FsEntryKind::File, content.len() as u64));
    let copied = agent.path("copied");
    soon(client(&agent.address).copy_to_host(&path, copied.as_ref(), None)).await.unwrap();
    assert!(std::fs::read(&copied).unwrap() == content);
    let back = agent.path("back");
    soon(client(&agent.address).copy_from_host(copied.as_ref(), &back, None)).await.unwrap();
    assert!(std::fs::read(&back).unwrap() == content);
}

// hazard: F7
#[tokio::test]
async fn directories_are_listed_in_pages() {
    let agent = Agent::start();
    let directory = agent.path("d");
    soon(client(&agent.address).mkdir(&format!("{directory}/sub"))).await.unwrap();
    for number in 0..2345 {
        std::fs::write(format!("{directory}/{number:05}"), "").unwrap();
    }
    let entries = soon(client(&agent.address).list(&directory)).await.unwrap();
    assert_eq!(entries.len(), 2346);
    assert_eq!(entries[0].path, format!("{directory}/00000"));
    assert_eq!(entries.last().unwrap().kind, FsEntryKind::Directory);
    soon(client(&agent.address).remove(&directory, true)).await.unwrap();
    assert!(!soon(client(&agent.address).exists(&directory)).await.unwrap());
}

#[tokio::test]
async fn file_errors_are_those_of_the_kernel() {
    let agent = Agent::start();
    let address = &agent.address;
    let file = agent.path("file");
    std::fs::write(&file, "x").unwrap();
    let missing = agent.path("missing");
    let directory = agent.directory.path().to_str().unwrap().to_string();
    let kind = |error: MicrosandboxError| match error {
        MicrosandboxError::PathNotFound { .. } => "missing".to_string(),
        MicrosandboxError::Filesystem { kind, .. } => kind,
        other => panic!("{other}"),
    };
    assert_eq!(kind(soon(client(address).read(&missing, u64::MAX)).await.unwrap_err()), "missing");
    assert_eq!(kind(soon(client(address).read(&directory, u64::MAX)).await.unwrap_err()), "EISDIR");
    assert_eq!(kind(soon(client(address).read("/dev/zero", u64::MAX)).await.unwrap_err()), "NotRegularFile");
    assert_eq!(kind(soon(client(address).list(&file)).await.unwrap_err()), "ENOTDIR");
    assert_eq!(kind(soon(client(address).mkdir(&file)).await.unwrap_err()), "ENOTDIR");
    assert_eq!(kind(soon(client(address).remove(&directory, false)).await.unwrap_err()), "EISDIR");
    assert_eq!(kind(soon(client(address).remove(&file, true)).await.unwrap_err()), "ENOTDIR");
    let below = format!("{file}/below");
    assert_eq!(kind(soon(client(address).write(&below, Bytes::new())).await.unwrap_err()), "ENOTDIR");
    let orphan = format!("{missing}/below");
    assert_eq!(kind(soon(client(address).write(&orphan, Bytes::new())).await.unwrap_err()), "missing");
}

#[tokio::test]
async fn the_agents_calls_answer_and_need_the_right_token() {
    let agent = Agent::start();
    let mut client = AgentClient::connect(&agent.address, CONNECT).await.unwrap();
    soon(client.ping()).await.unwrap();
    let first = soon(client.touch()).await.unwrap();
    assert!(soon(client.touch()).await.unwrap() > first);
    assert!(soon(client.stats()).await.unwrap().uptime_ms < 60_000);
    let mut stranger = agent.address.clone();
    stranger.token = b"guess".to_vec();
    let error = AgentClient::connect(&stranger, CONNECT).await.err().unwrap();
    assert!(matches!(error, MicrosandboxError::AgentLost { .. }) && error.to_string().contains("token"), "{error}");
}

#[tokio::test]
async fn a_shutdown_ends_running_programs_and_the_agent() {
    let mut agent = Agent::start();
    let options = ExecOptions { args: vec!["1000".into()], ..options() };
    let handle = soon(exec_stream(&agent.address, &spec(), "sleep".into(), options)).await.unwrap();
    assert!(matches!(soon(handle.recv()).await.unwrap(), Some(ExecEvent::Started { .. })));
    let client = AgentClient::connect(&agent.address, CONNECT).await.unwrap();
    soon(client.shutdown(Some(300))).await.unwrap();
    assert_eq!(soon(handle.wait()).await.unwrap().signal, Some(15));
    let end = Instant::now() + Duration::from_secs(10);
    while agent.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "the agent is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(AgentClient::connect(&agent.address, CONNECT).await.is_err());
}
