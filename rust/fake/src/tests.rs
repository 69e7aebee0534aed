use std::collections::BTreeMap;
use std::future::Future;

use futures::StreamExt;

use super::*;
use microsandbox_core::api::{Sandbox, SandboxHandle};
use microsandbox_core::backend::{ListQuery, SharedBackend};
use microsandbox_core::model::*;

const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("deadline")
}

fn shared(backend: &MemoryBackend) -> SharedBackend {
    Arc::new(backend.clone())
}

fn config(name: &str) -> SandboxConfig {
    let spec = SandboxSpec {
        name: name.into(),
        image: ImageSource::Host { prefixes: Vec::new() },
        env: vec![EnvVar { key: "A".into(), value: "sandbox".into() }],
        ..SandboxSpec::default()
    };
    SandboxConfig { spec, ..SandboxConfig::default() }
}

async fn boxed(name: &str) -> (MemoryBackend, Sandbox) {
    let backend = MemoryBackend::new();
    let sandbox = Sandbox::create(&shared(&backend), config(name)).await.unwrap();
    (backend, sandbox)
}

async fn sh(sandbox: &Sandbox, script: &str) -> ExecOutput {
    let options = ExecOptions { args: vec!["-c".into(), script.into()], ..ExecOptions::default() };
    soon(sandbox.exec("sh", options)).await.unwrap()
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn the_shell_does_what_a_shell_does() {
    let (_backend, sandbox) = boxed("box").await;
    let cases = [
        ("echo a; echo b >&2; exit 3", "a\n", "b\n", 3),
        ("false || echo rescued && echo on", "rescued\non\n", "", 0),
        ("echo $A \"$A x\" '$A' $UNSET end", "sandbox sandbox x $A end\n", "", 0),
        ("printf '%s-%d\\n' x 1 y 2", "x-1\ny-2\n", "", 0),
        ("cd /tmp; pwd; echo one > f; echo two >> f; cat f", "/tmp\none\ntwo\n", "", 0),
        ("echo quiet > /dev/null; cat /nope", "", "cat: /nope: No such file or directory\n", 1),
        ("nonsense", "", "sh: 1: nonsense: not found\n", 127),
        ("seq 3", "1\n2\n3\n", "", 0),
        ("false; echo $?", "1\n", "", 0),
    ];
    for (script, stdout, stderr, code) in cases {
        let output = sh(&sandbox, script).await;
        let seen = (text(&output.stdout), text(&output.stderr), output.exit.code);
        assert_eq!(seen, (stdout, stderr, code), "{script}");
    }
}

// hazard: A3, A5, X8
#[tokio::test]
async fn bad_requests_are_refused_as_by_any_backend() {
    let (_backend, sandbox) = boxed("box").await;
    let run = |cmd: &str, options: ExecOptions| sandbox.exec(cmd.to_string(), options);
    let kind = |error: MicrosandboxError| match error {
        MicrosandboxError::ExecFailed(failure) => failure.kind,
        MicrosandboxError::InvalidConfig(_) => "invalid_config".into(),
        other => panic!("{other}"),
    };
    let env = |key: &str, value: &str| ExecOptions { env: vec![(key.into(), value.into())], ..ExecOptions::default() };
    let cases = [
        ("no-such-program", ExecOptions::default(), "not_found"),
        ("", ExecOptions::default(), "bad_args"),
        ("tr\0ue", ExecOptions::default(), "bad_args"),
        ("true", env("", "x"), "invalid_config"),
        ("true", env("A=B", "x"), "invalid_config"),
        ("true", env("A", "x\0"), "invalid_config"),
        ("true", env("A", &"v".repeat(1 << 20)), "bad_args"),
        ("true", ExecOptions { cwd: Some("/missing".into()), ..ExecOptions::default() }, "bad_cwd"),
        ("true", ExecOptions { cwd: Some("relative".into()), ..ExecOptions::default() }, "bad_cwd"),
        ("true", ExecOptions { user: Some("0:0:0".into()), ..ExecOptions::default() }, "invalid_config"),
        ("true", ExecOptions { user: Some("root\n".into()), ..ExecOptions::default() }, "invalid_config"),
        ("true", ExecOptions { user: Some("stranger".into()), ..ExecOptions::default() }, "user_setup_failed"),
    ];
    for (cmd, options, expected) in cases {
        assert_eq!(kind(soon(run(cmd, options)).await.unwrap_err()), expected, "{cmd:?}");
    }
}

#[tokio::test]
async fn a_stream_has_events_in_order_and_takes_input() {
    let (_backend, sandbox) = boxed("box").await;
    let options = ExecOptions { stdin: StdinSource::Pipe, ..ExecOptions::default() };
    let handle = sandbox.exec_stream("cat", options).await.unwrap();
    let stdin = handle.take_stdin().unwrap();
    assert!(handle.take_stdin().is_none());
    assert!(matches!(soon(handle.recv()).await.unwrap(), Some(ExecEvent::Started { pid }) if pid > 0));
    stdin.write(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(soon(handle.recv()).await.unwrap(), Some(ExecEvent::Stdout(Bytes::from_static(b"hello"))));
    stdin.close().await.unwrap();
    assert!(matches!(soon(handle.recv()).await.unwrap(), Some(ExecEvent::Exited(exit)) if exit.code == 0));
    assert_eq!(soon(handle.recv()).await.unwrap(), None);
    let error = soon(stdin.write(Bytes::from_static(b"late"))).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe));
}

// hazard: X5
#[tokio::test]
async fn timeouts_signals_and_dropped_handles_end_programs() {
    let (backend, sandbox) = boxed("box").await;
    let sleep = |timeout| ExecOptions { args: vec!["1000".into()], timeout, ..ExecOptions::default() };
    let error = soon(sandbox.exec("sleep", sleep(Some(Duration::from_millis(20))))).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::ExecTimeout { output: Some(output), .. } if output.exit.timed_out));
    let handle = sandbox.exec_stream("sleep", sleep(None)).await.unwrap();
    handle.signal(15).await.unwrap();
    let exit = soon(handle.wait()).await.unwrap();
    assert_eq!((exit.code, exit.signal), (143, Some(15)));
    drop(sandbox.exec_stream("sleep", sleep(None)).await.unwrap());
    soon(async {
        while !lock(&backend.shared.records).get("box").unwrap().is_idle() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

// hazard: X2
#[tokio::test]
async fn output_is_bounded_with_true_counts() {
    let (backend, sandbox) = boxed("box").await;
    backend.script("flood", |_| ScriptResult { stdout: vec![b'x'; 100].into(), ..ScriptResult::default() });
    let options = ExecOptions { max_output_bytes: Some(10), ..ExecOptions::default() };
    let output = soon(sandbox.exec("flood", options)).await.unwrap();
    assert_eq!((output.stdout.len(), output.stdout_total), (10, 100));
    backend.script("deluge", |_| ScriptResult {
        stdout: vec![0; CAPTURE_BYTES as usize + 5].into(),
        ..ScriptResult::default()
    });
    let error = soon(sandbox.exec("deluge", ExecOptions::default())).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::OutputLimit { limit: CAPTURE_BYTES, dropped: 5, .. }), "{error}");
}

#[tokio::test]
async fn scripts_see_their_call_and_faults_come_once() {
    let (backend, sandbox) = boxed("box").await;
    backend.script("greet", |call| ScriptResult {
        stdout: format!("{}|{}|{}", call.args.join(","), call.cwd, text(&call.stdin)).into(),
        exit_code: 7,
        ..ScriptResult::default()
    });
    let options = ExecOptions {
        args: vec!["a".into(), "b".into()],
        cwd: Some("/tmp".into()),
        stdin: StdinSource::Bytes(Bytes::from_static(b"in")),
        ..ExecOptions::default()
    };
    let output = soon(sandbox.exec("greet", options)).await.unwrap();
    assert_eq!((text(&output.stdout), output.exit.code), ("a,b|/tmp|in", 7));
    backend.fail_next("exec", MicrosandboxError::Custom("injected".into()));
    let error = soon(sandbox.exec("true", ExecOptions::default())).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Custom(text) if text == "injected"));
    soon(sandbox.exec("true", ExecOptions::default())).await.unwrap();
}

#[tokio::test]
async fn files_behave_and_fail_as_guest_files_do() {
    let (_backend, sandbox) = boxed("box").await;
    let fs = sandbox.fs();
    fs.mkdir("/a/b").await.unwrap();
    fs.mkdir("/a/b").await.unwrap();
    fs.write("/a/b/f", Bytes::from_static(b"1")).await.unwrap();
    fs.copy("/a", "/c").await.unwrap();
    fs.rename("/a/b/f", "/a/g").await.unwrap();
    assert_eq!(fs.read("/c/b/f", u64::MAX).await.unwrap(), Bytes::from_static(b"1"));
    let names: Vec<String> = fs.list("/a").await.unwrap().into_iter().map(|entry| entry.path).collect();
    assert_eq!(names, ["/a/b", "/a/g"]);
    assert!(fs.exists("/a/../a/./g").await.unwrap() && !fs.exists("/a/x").await.unwrap());
    let writer = fs.write_stream("/a/s").await.unwrap();
    writer.write(Bytes::from_static(b"part ")).await.unwrap();
    assert!(!fs.exists("/a/s").await.unwrap());
    writer.write(Bytes::from_static(b"whole")).await.unwrap();
    writer.close().await.unwrap();
    let chunks: Vec<Bytes> = fs.read_stream("/a/s").await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(chunks.concat(), b"part whole");
    let kind = |error: MicrosandboxError| match error {
        MicrosandboxError::Filesystem { kind, .. } => kind,
        MicrosandboxError::PathNotFound { .. } => "missing".into(),
        other => panic!("{other}"),
    };
    assert_eq!(kind(fs.read("/nope", u64::MAX).await.unwrap_err()), "missing");
    assert_eq!(kind(fs.read("/a", u64::MAX).await.unwrap_err()), "EISDIR");
    assert_eq!(kind(fs.list("/a/g").await.unwrap_err()), "ENOTDIR");
    assert_eq!(kind(fs.write("/a/g/x", Bytes::new()).await.unwrap_err()), "ENOTDIR");
    assert_eq!(kind(fs.write("/no/x", Bytes::new()).await.unwrap_err()), "missing");
    assert_eq!(kind(fs.remove("/a", false).await.unwrap_err()), "EISDIR");
    assert_eq!(kind(fs.mkdir("/a/g").await.unwrap_err()), "ENOTDIR");
    for bad in ["", "relative", "/nul\0"] {
        assert_eq!(kind(fs.read(bad, u64::MAX).await.unwrap_err()), "InvalidPath");
    }
    fs.remove("/a", true).await.unwrap();
    assert!(!fs.exists("/a/g").await.unwrap());
}

#[tokio::test]
async fn copies_with_the_host_keep_content_and_refuse_links() {
    let (_backend, sandbox) = boxed("box").await;
    let fs = sandbox.fs();
    let host = tempfile::tempdir().unwrap();
    let source = host.path().join("source");
    std::fs::write(&source, "content").unwrap();
    fs.copy_from_host(&source, "/tmp/f", None).await.unwrap();
    let target = host.path().join("target");
    fs.copy_to_host("/tmp/f", &target, None).await.unwrap();
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "content");
    let link = host.path().join("link");
    std::os::unix::fs::symlink(&source, &link).unwrap();
    let error = fs.copy_to_host("/tmp/f", &link, None).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Filesystem { kind, .. } if kind == "PathEscapes"));
    let error = fs.copy_from_host(&host.path().join("missing"), "/tmp/g", None).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Io { .. }));
}

// hazard: L3
#[tokio::test]
async fn the_life_of_a_sandbox() {
    let (backend, sandbox) = boxed("box").await;
    let shared = shared(&backend);
    assert!(sandbox.owns_lifecycle());
    let error = Sandbox::create(&shared, config("box")).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::SandboxAlreadyExists(name) if name == "box"));
    let error = Sandbox::remove(&shared, "box").await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::SandboxStillRunning(_)));
    sandbox.fs().write("/tmp/kept", Bytes::from_static(b"x")).await.unwrap();
    let running = sandbox.exec_stream("sleep", ExecOptions { args: vec!["1000".into()], ..ExecOptions::default() });
    let running = running.await.unwrap();
    soon(sandbox.stop(None)).await.unwrap();
    assert_eq!(soon(running.wait()).await.unwrap().signal, Some(15));
    let handle = Sandbox::get(&shared, "box").await.unwrap();
    assert_eq!(handle.status_snapshot(), SandboxStatus::Stopped);
    assert_eq!(handle.last_run().unwrap().reason.as_deref(), Some("ShutdownRequested"));
    let error = sandbox.exec("true", ExecOptions::default()).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::SandboxNotRunning { status: SandboxStatus::Stopped, .. }));
    let again = soon(handle.start(true)).await.unwrap();
    assert!(!again.owns_lifecycle());
    assert!(again.fs().exists("/tmp/kept").await.unwrap());
    soon(again.kill(None)).await.unwrap();
    Sandbox::remove(&shared, "box").await.unwrap();
    let successor = Sandbox::create(&shared, config("box")).await.unwrap();
    let error = handle.remove().await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::SandboxReplaced(_)));
    let replacing = SandboxConfig { replace_existing: true, ..config("box") };
    for secs in [f64::NAN, f64::INFINITY, -1.0] {
        let timed = SandboxConfig { replace_timeout: Some(secs), ..replacing.clone() };
        let text = soon(Sandbox::create(&shared, timed)).await.unwrap_err().to_string();
        assert!(text.contains("replace_timeout must be") && text.contains(&secs.to_string()), "{text}");
    }
    let replaced = soon(Sandbox::create(&shared, replacing)).await.unwrap();
    assert_ne!(replaced.id(), successor.id());
}

// hazard: A1, A2
#[tokio::test]
async fn bad_specifications_leave_nothing_behind() {
    let backend = MemoryBackend::new();
    let shared = shared(&backend);
    for name in ["", ".", "a/b", "-x", "naïve", &"n".repeat(129)] {
        let error = Sandbox::create(&shared, config(name)).await.unwrap_err();
        assert!(matches!(error, MicrosandboxError::InvalidConfig(_)), "{name:?}");
    }
    let mut tiny = config("tiny");
    tiny.spec.resources.memory_mib = 1;
    assert!(matches!(Sandbox::create(&shared, tiny).await.unwrap_err(), MicrosandboxError::InvalidConfig(_)));
    let mut demanding = config("vm");
    demanding.spec.isolation = Isolation::Microvm;
    let error = Sandbox::create(&shared, demanding).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::IsolationUnavailable { .. }));
    assert!(Sandbox::list(&shared, ListQuery::default()).await.unwrap().sandboxes.is_empty());
}

#[tokio::test]
async fn pages_are_newest_first_and_labels_filter_before_paging() {
    let backend = MemoryBackend::new();
    let shared = shared(&backend);
    for number in 0..7 {
        let mut one = config(&format!("n{number}"));
        one.spec.labels.insert("even".into(), (number % 2 == 0).to_string());
        Sandbox::create(&shared, one).await.unwrap();
    }
    let labels = BTreeMap::from([("even".to_string(), "true".to_string())]);
    let mut query = ListQuery { limit: Some(3), labels, ..ListQuery::default() };
    let names = |handles: &[SandboxHandle]| handles.iter().map(|h| h.name().to_string()).collect::<Vec<_>>();
    let page = Sandbox::list(&shared, query.clone()).await.unwrap();
    assert_eq!(names(&page.sandboxes), ["n6", "n4", "n2"]);
    query.cursor = page.next_cursor;
    let page = Sandbox::list(&shared, query.clone()).await.unwrap();
    assert_eq!((names(&page.sandboxes), page.next_cursor), (vec!["n0".to_string()], None));
    query.cursor = Some("junk".into());
    assert!(matches!(Sandbox::list(&shared, query.clone()).await.unwrap_err(), MicrosandboxError::InvalidCursor(_)));
    query.limit = Some(101);
    assert!(matches!(Sandbox::list(&shared, query).await.unwrap_err(), MicrosandboxError::InvalidConfig(_)));
}

#[tokio::test]
async fn logs_are_captured_followed_and_resumed() {
    let (_backend, sandbox) = boxed("box").await;
    let options = LogStreamOptions { follow: true, ..LogStreamOptions::default() };
    let mut follower = sandbox.log_stream(options).await.unwrap();
    sh(&sandbox, "echo one; echo two >&2; echo three").await;
    let first = soon(follower.next()).await.unwrap().unwrap();
    assert_eq!((text(&first.data), first.source, first.session_id), ("one\n", LogSource::Stdout, Some(1)));
    soon(sandbox.stop(None)).await.unwrap();
    let rest: Vec<LogEntry> = soon(follower.map(Result::unwrap).collect()).await;
    assert_eq!(rest.len(), 2);
    let resume = LogStreamOptions { from_cursor: Some(rest[0].cursor.clone()), ..LogStreamOptions::default() };
    let resumed: Vec<LogEntry> = sandbox.log_stream(resume).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(resumed, rest[1..]);
    let system = LogOptions { sources: vec![LogSource::System], tail: Some(1), ..LogOptions::default() };
    assert_eq!(text(&sandbox.logs(system).await.unwrap()[0].data), "--- sandbox stopped ---");
    let bad = LogStreamOptions { from_cursor: Some("x".into()), ..LogStreamOptions::default() };
    assert!(matches!(sandbox.log_stream(bad).await.err().unwrap(), MicrosandboxError::InvalidCursor(_)));
}

#[tokio::test]
async fn metrics_ping_and_touch_answer_only_while_running() {
    let (_backend, sandbox) = boxed("box").await;
    let mut stream = sandbox.metrics_stream(Duration::from_millis(10));
    assert_eq!(soon(stream.next()).await.unwrap().unwrap().memory_limit_bytes, 512 << 20);
    sandbox.ping().await.unwrap();
    let first = sandbox.touch().await.unwrap();
    assert!(sandbox.touch().await.unwrap() > first);
    soon(sandbox.stop(None)).await.unwrap();
    assert!(soon(stream.collect::<Vec<_>>()).await.iter().all(Result::is_ok));
    let error = sandbox.metrics().await.unwrap_err();
    assert!(error.to_string().contains("no live metrics slot"), "{error}");
    assert!(matches!(sandbox.ping().await.unwrap_err(), MicrosandboxError::SandboxNotRunning { .. }));
}

#[tokio::test]
async fn policies_end_a_sandbox_and_an_ephemeral_one_is_gone_then() {
    let backend = MemoryBackend::new();
    let shared = shared(&backend);
    let mut old = config("old");
    old.spec.lifecycle.max_duration_secs = Some(0.05);
    let old = Sandbox::create(&shared, old).await.unwrap();
    soon(old.wait_until_stopped()).await.unwrap();
    let reason = old.handle().await.unwrap().last_run().unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("MaxDurationExceeded"));
    let mut idle = config("idle");
    idle.spec.lifecycle.idle_timeout_secs = Some(0.05);
    idle.spec.lifecycle.ephemeral = true;
    let idle = Sandbox::create(&shared, idle).await.unwrap();
    soon(idle.wait_until_stopped()).await.unwrap();
    assert!(matches!(idle.handle().await.unwrap_err(), MicrosandboxError::SandboxNotFound(_)));
}
