//! Programs through the agent client, against a scripted agent: hazards X2 to X9, A3, P9, P10.

use std::time::{Duration, Instant};

use crate::peer::{Line, Peer, exec, exec_stream, options, soon, spec};
use bytes::Bytes;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::agent::connections::Connections;
use microsandbox_core::model::{CAPTURE_BYTES, ExecEvent, ExecHandle, ExecOptions, ExecOutput, StdinSource};
use microsandbox_protocol::frame::MAX_DATA;
use microsandbox_protocol::message::{Credit, ExecExited, ExecRequest, Kind, Signal, StdinError};
use tokio::sync::mpsc;

async fn run(peer: &Peer, options: ExecOptions) -> Result<ExecOutput, MicrosandboxError> {
    soon(exec(&Connections::default(), &peer.address, &spec(), "prog".into(), options)).await
}

async fn stream(peer: &Peer, options: ExecOptions) -> ExecHandle {
    soon(exec_stream(&peer.address, &spec(), "prog".into(), options)).await.unwrap()
}

#[tokio::test]
async fn a_run_is_collected_with_its_verdict() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let request = line.expect(Kind::ExecRequest).await;
        let id = request.id;
        let request: ExecRequest = request.parse().unwrap();
        assert_eq!((request.cmd.as_str(), request.args.as_slice()), ("prog", &["a b".to_string()][..]));
        assert_eq!(request.env, ["K=v=w"]);
        assert!(request.kill_on_disconnect && request.no_stdin && request.window.is_none());
        assert_eq!((request.cwd.as_deref(), request.user.as_deref()), (Some("/tmp"), Some("nobody")));
        line.send(
            id,
            Kind::ExecStarted,
            &microsandbox_protocol::message::ExecStarted { pid: 9, session: None, stdin_window: None, job: None },
        )
        .await;
        line.data(id, Kind::ExecStdout, b"out").await;
        line.data(id, Kind::ExecStderr, b"err").await;
        line.data(id, Kind::ExecStdout, b"").await;
        line.data(id, Kind::ExecStdout, b"put").await;
        let exited =
            ExecExited { code: 137, signal: Some(9), oom_killed: true, descendants: 2, ..ExecExited::default() };
        line.send(id, Kind::ExecExited, &exited).await;
        // After the end: never delivered (P5).
        line.data(id, Kind::ExecStdout, b"ghost").await;
        line.exited(id, 0).await;
    });
    let options = ExecOptions {
        args: vec!["a b".into()],
        env: vec![("K".into(), "v=w".into())],
        cwd: Some("/tmp".into()),
        user: Some("nobody".into()),
        ..ExecOptions::default()
    };
    let output = run(&peer, options).await.unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"output"[..], &b"err"[..]));
    assert_eq!((output.exit.code, output.exit.signal, output.exit.oom_killed), (137, Some(9), true));
    assert_eq!((output.exit.descendants, output.exit.drained), (2, false));
}

// hazard: P5
#[tokio::test]
async fn order_is_enforced() {
    type Step = fn(u32, Line) -> futures::future::BoxFuture<'static, ()>;
    let steps: [Step; 4] = [
        |id, mut line| Box::pin(async move { line.data(id, Kind::ExecStdout, b"early").await }),
        |id, mut line| Box::pin(async move { line.exited(id, 0).await }),
        |id, mut line| {
            Box::pin(async move {
                for _ in 0..2 {
                    let started = microsandbox_protocol::message::ExecStarted {
                        pid: 1,
                        session: None,
                        stdin_window: None,
                        job: None,
                    };
                    line.send(id, Kind::ExecStarted, &started).await;
                }
            })
        },
        |id, mut line| {
            Box::pin(async move { line.send(id, Kind::Pong, &microsandbox_protocol::message::Empty {}).await })
        },
    ];
    for (index, step) in steps.into_iter().enumerate() {
        let peer = Peer::greeted(move |mut line: Line| async move {
            let id = line.expect(Kind::ExecRequest).await.id;
            step(id, line).await;
        });
        let error = run(&peer, options()).await.unwrap_err();
        assert!(matches!(error, MicrosandboxError::Protocol { .. }), "step {index}: {error}");
    }
}

// hazard: A3
#[tokio::test]
async fn what_execve_cannot_carry_is_refused_before_sending() {
    let peer = Peer::new(|_line| async { panic!("nothing may be sent") });
    let env = |key: &str, value: &str| ExecOptions { env: vec![(key.into(), value.into())], ..options() };
    for bad in [env("", "v"), env("A=B", "v"), env("A\0", "v"), env("A", "v\0")] {
        assert!(matches!(run(&peer, bad).await.unwrap_err(), MicrosandboxError::InvalidConfig(_)));
    }
    let args = ExecOptions { args: vec!["\0".into()], ..options() };
    let error = run(&peer, args).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::ExecFailed(failure) if failure.kind == "bad_args"));
    let rlimit = microsandbox_core::model::Rlimit { resource: "nofile".into(), soft: 2, hard: 1 };
    let error = run(&peer, ExecOptions { rlimits: vec![rlimit], ..options() }).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::InvalidConfig(_)));
}

// hazard: A3
#[tokio::test]
async fn arguments_that_fit_into_no_frame_are_too_long() {
    let peer = Peer::greeted(|mut line: Line| async move { line.linger().await });
    let args = ExecOptions { args: vec!["x".repeat(5 << 20)], ..options() };
    let error = run(&peer, args).await.unwrap_err();
    let MicrosandboxError::ExecFailed(failure) = error else { panic!("{error}") };
    assert_eq!((failure.kind.as_str(), failure.errno_name.as_deref()), ("bad_args", Some("E2BIG")));
}

// hazard: X6
#[tokio::test]
async fn an_agent_that_dies_in_mid_exec_is_lost() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.started(None).await;
        line.data(id, Kind::ExecStdout, b"partial").await;
    });
    assert!(matches!(run(&peer, options()).await.unwrap_err(), MicrosandboxError::AgentLost { .. }));
    let handle = stream(&peer, options()).await;
    assert!(matches!(soon(handle.recv()).await.unwrap(), Some(ExecEvent::Started { pid: 7 })));
    assert!(matches!(soon(handle.recv()).await.unwrap(), Some(ExecEvent::Stdout(_))));
    assert!(matches!(soon(handle.recv()).await, Err(MicrosandboxError::AgentLost { .. })));
    assert!(matches!(handle.kill().await, Err(MicrosandboxError::AgentLost { .. })));
}

// hazard: X2
#[tokio::test]
async fn output_over_the_limit_kills_the_tree_and_is_counted() {
    let (seen, mut killed) = mpsc::unbounded_channel();
    let peer = Peer::greeted(move |mut line: Line| {
        let seen = seen.clone();
        async move {
            let id = line.started(None).await;
            let block = vec![b'x'; MAX_DATA];
            let mut sent = 0;
            while sent <= CAPTURE_BYTES + (16 << 20) {
                line.data(id, Kind::ExecStdout, &block).await;
                sent += block.len() as u64;
            }
            let signal: Signal = line.expect(Kind::ExecSignal).await.parse().unwrap();
            seen.send((signal.signal, sent)).unwrap();
            line.exited(id, 137).await;
        }
    });
    let error = run(&peer, options()).await.unwrap_err();
    let (signal, sent) = soon(killed.recv()).await.unwrap();
    assert_eq!(signal, 9);
    let MicrosandboxError::OutputLimit { limit, kept, dropped } = error else { panic!("{error}") };
    assert_eq!((limit, kept, dropped), (CAPTURE_BYTES, CAPTURE_BYTES, sent - CAPTURE_BYTES));
}

// hazard: X2
#[tokio::test]
async fn a_bounded_run_keeps_the_newest_bytes() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.started(None).await;
        for number in 0..20_000u32 {
            line.data(id, Kind::ExecStdout, &number.to_be_bytes()).await;
        }
        line.exited(id, 0).await;
    });
    let output = run(&peer, ExecOptions { max_output_bytes: Some(8), ..options() }).await.unwrap();
    assert_eq!(output.stdout_total, 80_000);
    assert_eq!(&output.stdout[4..], 19_999u32.to_be_bytes());
    assert!(output.stdout_truncated() && !output.stderr_truncated());
}

// hazard: X5
#[tokio::test]
async fn a_timeout_that_the_agent_misses_is_enforced_by_the_client() {
    let (left, mut gone) = mpsc::unbounded_channel();
    let peer = Peer::greeted(move |mut line: Line| {
        let left = left.clone();
        async move {
            let id = line.started(None).await;
            line.data(id, Kind::ExecStdout, b"before").await;
            line.linger().await;
            left.send(()).unwrap();
        }
    });
    let options = ExecOptions { timeout: Some(Duration::from_millis(100)), ..options() };
    let began = Instant::now();
    let error = run(&peer, options).await.unwrap_err();
    assert!((4..9).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let MicrosandboxError::ExecTimeout { secs, output: Some(output) } = error else { panic!("{error}") };
    assert_eq!((secs, &output.stdout[..]), (0.1, &b"before"[..]));
    soon(gone.recv()).await.expect("the connection is closed, which kills the tree");
}

// hazard: X5
#[tokio::test]
async fn the_agents_timeout_is_an_error_with_partial_output() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let request = line.expect(Kind::ExecRequest).await;
        assert_eq!(request.parse::<ExecRequest>().unwrap().timeout_ms, Some(1500));
        let id = request.id;
        let started =
            microsandbox_protocol::message::ExecStarted { pid: 1, session: None, stdin_window: None, job: None };
        line.send(id, Kind::ExecStarted, &started).await;
        line.data(id, Kind::ExecStderr, b"late").await;
        let exited = ExecExited { code: 137, signal: Some(9), timed_out: true, ..ExecExited::default() };
        line.send(id, Kind::ExecExited, &exited).await;
    });
    let options = ExecOptions { timeout: Some(Duration::from_millis(1500)), ..options() };
    let error = run(&peer, options).await.unwrap_err();
    assert!(
        matches!(error, MicrosandboxError::ExecTimeout { output: Some(output), .. } if &output.stderr[..] == b"late")
    );
}

#[tokio::test]
async fn cancelling_or_dropping_a_run_closes_the_connection() {
    let (left, mut gone) = mpsc::unbounded_channel();
    let peer = Peer::greeted(move |mut line: Line| {
        let left = left.clone();
        async move {
            line.started(Some(1)).await;
            line.linger().await;
            left.send(()).unwrap();
        }
    });
    let cancelled = tokio::time::timeout(Duration::from_millis(200), run(&peer, options())).await;
    assert!(cancelled.is_err());
    soon(gone.recv()).await.unwrap();
    let handle = stream(&peer, ExecOptions { stdin: StdinSource::Pipe, ..options() }).await;
    assert!(matches!(soon(handle.recv()).await.unwrap(), Some(ExecEvent::Started { .. })));
    // An input side that is still held does not keep the program alive.
    let stdin = handle.take_stdin().unwrap();
    drop(handle);
    soon(gone.recv()).await.unwrap();
    assert!(matches!(soon(stdin.write(Bytes::from_static(b"xx"))).await, Err(MicrosandboxError::Io { .. })));
}

// hazard: P9
#[tokio::test]
async fn output_stops_at_the_window_until_it_is_consumed() {
    const WINDOW: usize = 8 << 20;
    let peer = Peer::greeted(|mut line: Line| async move {
        let request = line.expect(Kind::ExecRequest).await;
        assert_eq!(request.parse::<ExecRequest>().unwrap().window, Some(WINDOW as u64));
        let id = request.id;
        let started =
            microsandbox_protocol::message::ExecStarted { pid: 1, session: None, stdin_window: None, job: None };
        line.send(id, Kind::ExecStarted, &started).await;
        let mut credit = WINDOW;
        let mut left = 64 << 20;
        while left > 0 {
            while credit < (1 << 20) {
                let more: Credit = line.expect(Kind::Credit).await.parse().unwrap();
                credit += more.bytes as usize;
            }
            line.data(id, Kind::ExecStdout, &vec![b'x'; 1 << 20]).await;
            credit -= 1 << 20;
            left -= 1 << 20;
        }
        line.exited(id, 0).await;
    });
    let handle = stream(&peer, options()).await;
    let mut total = 0;
    while let Some(event) = soon(handle.recv()).await.unwrap() {
        if let ExecEvent::Stdout(data) = event {
            total += data.len();
        }
    }
    assert_eq!(total, 64 << 20);
}

// hazard: P9
#[tokio::test]
async fn output_beyond_the_credit_is_a_broken_protocol() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.started(None).await;
        for _ in 0..10 {
            line.data(id, Kind::ExecStdout, &vec![0; 1 << 20]).await;
        }
        line.linger().await;
    });
    let handle = stream(&peer, options()).await;
    // Nothing is consumed, so nothing is credited.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut chunks = 0;
    let error = loop {
        match soon(handle.recv()).await {
            Ok(Some(ExecEvent::Stdout(_))) => chunks += 1,
            Ok(Some(_)) => {}
            Ok(None) => panic!("an end without a reason"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, MicrosandboxError::Protocol { .. }), "{error}");
    assert_eq!(chunks, 8);
}

// hazard: P9
#[tokio::test]
async fn a_window_sent_byte_by_byte_loses_nothing() {
    const BYTES: u32 = 200_000;
    let (progress, mut sent) = tokio::sync::watch::channel(0);
    let peer = Peer::greeted(move |mut line: Line| {
        let progress = progress.clone();
        async move {
            let id = line.started(None).await;
            for number in 0..BYTES {
                line.data(id, Kind::ExecStdout, &[number as u8]).await;
                progress.send_replace(number);
            }
            line.exited(id, 0).await;
        }
    });
    let handle = stream(&peer, options()).await;
    // Until it stands still.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = *sent.borrow_and_update();
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    assert!(before < 100_000, "{before} frames were taken without a reader");
    let mut expected = 0u32;
    while let Some(event) = soon(handle.recv()).await.unwrap() {
        if let ExecEvent::Stdout(data) = event {
            assert_eq!(data[..], [expected as u8]);
            expected += 1;
        }
    }
    assert_eq!(expected, BYTES);
}

// hazard: X9
#[tokio::test]
async fn much_input_and_output_together_do_not_deadlock() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let window = 64 << 10;
        let id = line.started(Some(window)).await;
        let mut outstanding = 0;
        loop {
            let data = line.expect(Kind::ExecStdin).await.data().unwrap();
            if data.is_empty() {
                break;
            }
            outstanding += data.len() as u64;
            assert!(outstanding <= window, "input beyond its window");
            line.data(id, Kind::ExecStdout, &data).await;
            line.send(id, Kind::Credit, &Credit { bytes: outstanding }).await;
            outstanding = 0;
        }
        line.exited(id, 0).await;
    });
    let input: Bytes = (0..20_000_000u32).map(|n| (n / 7) as u8).collect::<Vec<u8>>().into();
    let output = run(&peer, ExecOptions { stdin: StdinSource::Bytes(input.clone()), ..options() }).await.unwrap();
    assert!(output.stdout == input);
    // The same without any window: the socket is the bound.
    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.started(None).await;
        while let Some(data) = Some(line.expect(Kind::ExecStdin).await.data().unwrap()).filter(|data| !data.is_empty())
        {
            line.data(id, Kind::ExecStdout, &data).await;
        }
        line.exited(id, 0).await;
    });
    let output = run(&peer, ExecOptions { stdin: StdinSource::Bytes(input.clone()), ..options() }).await.unwrap();
    assert!(output.stdout == input);
}

// hazard: X9
#[tokio::test]
async fn a_program_that_closes_its_input_breaks_the_pipe() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.started(Some(4)).await;
        assert_eq!(&line.expect(Kind::ExecStdin).await.data().unwrap()[..], b"1234");
        let error = StdinError { errno: Some(32), errno_name: Some("EPIPE".into()), message: "broken pipe".into() };
        line.send(id, Kind::ExecStdinError, &error).await;
        line.expect(Kind::ExecSignal).await;
        line.exited(id, 0).await;
    });
    let handle = stream(&peer, ExecOptions { stdin: StdinSource::Pipe, ..options() }).await;
    let stdin = handle.take_stdin().unwrap();
    let error = soon(stdin.write(Bytes::from_static(b"123456"))).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe));
    assert!(matches!(soon(handle.recv()).await.unwrap(), Some(ExecEvent::Started { .. })));
    let event = soon(handle.recv()).await.unwrap().unwrap();
    assert!(matches!(event, ExecEvent::StdinError { errno: Some(32), .. }), "{event:?}");
    assert!(soon(stdin.write(Bytes::from_static(b"more"))).await.is_err());
    // Control works while another task waits for events.
    let (waited, killed) = soon(async { tokio::join!(handle.wait(), handle.kill()) }).await;
    killed.unwrap();
    assert_eq!(waited.unwrap().code, 0);
}

// hazard: P10
#[tokio::test]
async fn unread_input_stalls_the_writer_only_and_kill_still_works() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.started(Some(0)).await;
        loop {
            let message = line.read().await.unwrap();
            match message.kind {
                Kind::Ping => line.send(message.id, Kind::Pong, &microsandbox_protocol::message::Empty {}).await,
                Kind::ExecSignal => break,
                other => panic!("{other:?}"),
            }
        }
        line.exited(id, 137).await;
    });
    let handle = stream(&peer, ExecOptions { stdin: StdinSource::Pipe, ..options() }).await;
    let stdin = handle.take_stdin().unwrap();
    let write = tokio::time::timeout(Duration::from_secs(90), stdin.write(Bytes::from_static(b"x")));
    let error = write.await.expect("the stall deadline is 60 s").unwrap_err();
    assert!(matches!(error, MicrosandboxError::GuestStalled { .. }), "{error}");
    handle.kill().await.unwrap();
    assert_eq!(soon(handle.wait()).await.unwrap().code, 137);
}
