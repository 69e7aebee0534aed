//! The agent client against an agent that breaks the rules: hazards P1 to P12.

use std::time::{Duration, Instant};

use crate::peer::{Line, Peer, agent, exec, options, soon, spec};
use microsandbox_core::MicrosandboxError;
use microsandbox_core::agent::AgentClient;
use microsandbox_core::agent::connections::Connections;
use microsandbox_core::backend::Files as _;
use microsandbox_protocol::frame::{Flags, MAX_FRAME, encode, encode_id_range};
use microsandbox_protocol::message::{
    CoreError, Empty, ExecExited, ExecFailed, FsOp, FsRequest, FsResponse, Kind, Ready, StdinError,
};

const CONNECT: Duration = Duration::from_secs(5);

/// A frame around any body.
fn frame(id: u32, body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32 + 5).to_be_bytes().to_vec();
    out.extend_from_slice(&id.to_be_bytes());
    out.push(0);
    out.extend_from_slice(body);
    out
}

/// An envelope of `kind` around any payload bytes.
fn envelope(version: u8, kind: &str, payload: &[u8]) -> Vec<u8> {
    assert!(version < 24 && kind.len() < 24);
    let mut out = vec![0xa3, 0x61, b'v', version, 0x61, b't', 0x60 | kind.len() as u8];
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(&[0x61, b'p', 0x5a]);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

async fn ping(peer: &Peer) -> Result<Duration, MicrosandboxError> {
    soon(async { AgentClient::connect(&peer.address, CONNECT).await?.ping().await }).await
}

/// A peer that answers the first call with these bytes.
fn answering(bytes: Vec<u8>) -> Peer {
    Peer::greeted(move |mut line: Line| {
        let bytes = bytes.clone();
        async move {
            line.read().await;
            line.raw(&bytes).await;
            line.linger().await;
        }
    })
}

fn is_protocol(error: &MicrosandboxError) -> bool {
    matches!(error, MicrosandboxError::Protocol { name, .. } if name == "box")
}

fn is_lost(error: &MicrosandboxError) -> bool {
    matches!(error, MicrosandboxError::AgentLost { name, .. } if name == "box")
}

// hazard: P1
#[tokio::test]
async fn lengths_outside_the_limits_end_the_connection() {
    for length in [0, 1, 5, MAX_FRAME as u32 + 1, u32::MAX] {
        let peer = answering(length.to_be_bytes().to_vec());
        let error = ping(&peer).await.unwrap_err();
        assert!(is_protocol(&error), "{length}: {error}");
    }
}

// hazard: P1
#[tokio::test]
async fn a_stranger_may_not_send_large_frames_before_it_is_ready() {
    let peer = Peer::new(|mut line| async move {
        line.read().await;
        line.raw(&encode_id_range(1, 100)).await;
        line.raw(&5000u32.to_be_bytes()).await;
        line.linger().await;
    });
    assert!(is_protocol(&ping(&peer).await.unwrap_err()));
}

// hazard: P2
#[tokio::test]
async fn a_connection_that_ends_early_is_a_lost_agent() {
    let pong = encode(1000, Flags::NONE, &Kind::Pong, &Empty {}).unwrap();
    for cut in [0, 3, 4, 9, pong.len() - 1] {
        let bytes = pong[..cut].to_vec();
        let peer = Peer::greeted(move |mut line: Line| {
            let bytes = bytes.clone();
            async move {
                line.read().await;
                line.raw(&bytes).await;
            }
        });
        let error = ping(&peer).await.unwrap_err();
        assert!(is_lost(&error), "cut at {cut}: {error}");
    }
    let peer = Peer::new(|mut line| async move { line.raw(&[0, 0, 0]).await });
    assert!(is_lost(&ping(&peer).await.unwrap_err()));
}

// hazard: P3
#[tokio::test]
async fn bodies_that_are_no_message_are_refused_and_cost_nothing() {
    let deep: Vec<u8> = vec![0x81; 100_000];
    // Nesting behind a key that is skipped, in the payload and in the envelope.
    let skipped = [&[0xa1, 0x61, b'z'][..], &deep].concat();
    let bodies: Vec<Vec<u8>> = vec![
        vec![0xff; 64],
        deep.clone(),
        skipped.clone(),
        envelope(7, "core.stats.response", &skipped),
        envelope(7, "core.stats.response", &deep),
        // An array, a byte string and a map that claim 2^32 elements.
        envelope(7, "core.stats.response", &[0x9b, 0, 0, 0, 1, 0, 0, 0, 0]),
        envelope(7, "core.stats.response", &[0x5b, 0, 0, 0, 1, 0, 0, 0, 0]),
        envelope(7, "core.stats.response", &[0xbb, 0, 0, 0, 1, 0, 0, 0, 0]),
        // Indefinite strings, NaN for a number, nothing at all.
        envelope(7, "core.stats.response", &[0xa1, 0x7f, 0x61, b'c', 0xff, 0x00]),
        envelope(7, "core.stats.response", &[0xa1, 0x66, b'c', b'p', b'u', b'_', b'n', b's', 0xf9, 0x7e, 0x00]),
        envelope(7, "core.stats.response", &[]),
    ];
    for body in bodies {
        let shown = format!("{:x?}", &body[..body.len().min(40)]);
        let peer = answering(frame(1000, &body));
        let call = async { AgentClient::connect(&peer.address, CONNECT).await?.stats().await };
        let error = soon(call).await.unwrap_err();
        assert!(is_protocol(&error), "{shown}: {error}");
    }
}

// hazard: P4
#[tokio::test]
async fn unknown_kinds_and_flags_are_ignored() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.read().await.unwrap().id;
        line.raw(&encode(id, Flags(0xff), &Kind::Unknown("core.from.the.future".into()), &Empty {}).unwrap()).await;
        line.raw(&frame(id, &envelope(23, "core.unheard", b""))).await;
        line.raw(&encode(id, Flags(0xff), &Kind::Pong, &Empty {}).unwrap()).await;
    });
    ping(&peer).await.unwrap();
}

// hazard: P4
#[tokio::test]
async fn another_version_is_refused_with_both_versions_named() {
    let old = answering(frame(1000, &envelope(0, "core.pong", b"\xa0")));
    let text = ping(&old).await.unwrap_err().to_string();
    assert!(text.contains("generation 0") && text.contains("1..=7"), "{text}");
    for extension in [None, Some(0), Some(99)] {
        let peer = Peer::new(move |mut line| async move {
            line.read().await;
            line.raw(&encode_id_range(1, 100)).await;
            line.send(0, Kind::Ready, &Ready { extension, ..Ready::default() }).await;
        });
        let error = ping(&peer).await.unwrap_err();
        let theirs = extension.map_or("none".to_string(), |extension| extension.to_string());
        assert!(is_protocol(&error), "{error}");
        assert!(error.to_string().contains(&format!("extension {theirs};")), "{error}");
        assert!(error.to_string().contains("extension 1 to 1"), "{error}");
    }
}

// hazard: P4
#[tokio::test]
async fn refusals_of_the_greeting_have_distinct_errors() {
    let refuse = |kind: &'static str| {
        Peer::new(move |mut line| async move {
            line.read().await;
            line.raw(&encode_id_range(1, 100)).await;
            let error = CoreError { kind: kind.into(), message: "because\u{1b}[31m".into(), offending_type: None };
            line.send(0, Kind::Error, &error).await;
        })
    };
    assert!(is_lost(&ping(&refuse("unauthorized")).await.unwrap_err()));
    assert!(is_protocol(&ping(&refuse("version")).await.unwrap_err()));
    let full = ping(&refuse("too_many")).await.unwrap_err();
    assert!(matches!(&full, MicrosandboxError::ResourceExhausted { resource, .. } if resource == "agent.clients"));
    assert!(!full.to_string().contains('\u{1b}'), "guest text is quoted");
    let ending = ping(&refuse("shutting_down")).await.unwrap_err();
    assert!(matches!(ending, MicrosandboxError::SandboxNotRunning { .. }));
}

// hazard: P5
#[tokio::test]
async fn frames_of_other_calls_are_dropped_and_counted() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.read().await.unwrap().id;
        for stranger in [0, 1, id - 1, id + 1, u32::MAX] {
            line.send(stranger, Kind::Pong, &Empty {}).await;
        }
        line.send(id, Kind::Pong, &Empty {}).await;
        line.linger().await;
    });
    let mut client = AgentClient::connect(&peer.address, CONNECT).await.unwrap();
    soon(client.ping()).await.unwrap();
    assert_eq!(client.stray_frames(), 5);
}

// hazard: P5, P6
#[tokio::test]
async fn late_answers_never_reach_a_later_call() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let first = line.read().await.unwrap().id;
        line.send(first, Kind::Pong, &Empty {}).await;
        line.send(first, Kind::Pong, &Empty {}).await;
        let second = line.read().await.unwrap().id;
        assert_ne!(first, second);
        line.send(first, Kind::Pong, &Empty {}).await;
        line.send(second, Kind::Pong, &Empty {}).await;
        line.linger().await;
    });
    let mut client = AgentClient::connect(&peer.address, CONNECT).await.unwrap();
    soon(client.ping()).await.unwrap();
    soon(client.ping()).await.unwrap();
    assert_eq!(client.stray_frames(), 2);
}

// hazard: P6
#[tokio::test]
async fn silly_id_ranges_are_refused_or_run_out_cleanly() {
    for (min, max) in [(0, 5), (5, 5), (9, 3)] {
        let peer = Peer::new(move |mut line| async move {
            line.read().await;
            let mut range = min.to_string().parse::<u32>().unwrap().to_be_bytes().to_vec();
            range.extend_from_slice(&u32::to_be_bytes(max));
            line.raw(&range).await;
            line.linger().await;
        });
        assert!(is_protocol(&ping(&peer).await.unwrap_err()), "{min}..{max}");
    }
    let peer = Peer::new(|mut line| async move {
        line.read().await;
        line.raw(&encode_id_range(8, 9)).await;
        line.send(0, Kind::Ready, &Ready { extension: Some(1), ..Ready::default() }).await;
        let id = line.read().await.unwrap().id;
        assert_eq!(id, 8);
        line.send(id, Kind::Pong, &Empty {}).await;
        line.linger().await;
    });
    let mut client = AgentClient::connect(&peer.address, CONNECT).await.unwrap();
    soon(client.ping()).await.unwrap();
    assert!(is_protocol(&soon(client.ping()).await.unwrap_err()));
}

// hazard: P7
#[tokio::test]
async fn requests_from_the_guest_are_never_obeyed() {
    for kind in [Kind::FsRequest, Kind::ExecRequest, Kind::Bootstrap, Kind::Log, Kind::Shutdown, Kind::Hello] {
        let peer = Peer::greeted(move |mut line: Line| {
            let kind = kind.clone();
            async move {
                let id = line.started(None).await;
                let request = FsRequest { op: FsOp::ReadFile { path: "/etc/passwd".into() }, window: None };
                line.send(id, kind, &request).await;
                line.linger().await;
            }
        });
        let error =
            soon(exec(&Connections::default(), &peer.address, &spec(), "true".into(), options())).await.unwrap_err();
        assert!(is_protocol(&error), "{error}");
    }
}

// hazard: P8
#[tokio::test]
async fn a_greeting_that_trickles_is_cut_off_at_the_deadline() {
    let peer = Peer::new(|mut line| async move {
        for byte in encode_id_range(1, 100) {
            line.raw(&[byte]).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let began = Instant::now();
    let error = AgentClient::connect(&peer.address, Duration::from_millis(500)).await.err().unwrap();
    assert!(is_lost(&error), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

// hazard: P12
#[tokio::test]
async fn numbers_and_texts_that_cannot_be_are_made_harmless() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.started(None).await;
        let error = StdinError { errno: Some(-1), errno_name: None, message: "\u{7}".repeat(5000) };
        line.send(id, Kind::ExecStdinError, &error).await;
        let exited = ExecExited {
            code: -70_000,
            signal: Some(9999),
            descendants: u32::MAX,
            duration_ns: u64::MAX,
            drained: true,
            ..ExecExited::default()
        };
        line.send(id, Kind::ExecExited, &exited).await;
    });
    let began = Instant::now();
    let output = soon(exec(&Connections::default(), &peer.address, &spec(), "true".into(), options())).await.unwrap();
    assert_eq!((output.exit.code, output.exit.signal), (255, None));
    assert!(output.exit.duration <= began.elapsed());

    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.expect(Kind::ExecRequest).await.id;
        let failed = ExecFailed {
            kind: "made up".into(),
            errno: Some(-7),
            errno_name: Some("\n".into()),
            message: "a\u{1b}b".into(),
            stage: None,
        };
        line.send(id, Kind::ExecFailed, &failed).await;
    });
    let error =
        soon(exec(&Connections::default(), &peer.address, &spec(), "true".into(), options())).await.unwrap_err();
    let MicrosandboxError::ExecFailed(failure) = error else { panic!("{error}") };
    assert_eq!((failure.kind.as_str(), failure.errno, failure.errno_name), ("other", None, None));
    assert!(!failure.message.contains('\u{1b}'));
}

// hazard: P2, X6
#[tokio::test]
async fn silence_where_an_answer_is_due_is_a_lost_agent() {
    let silent = Peer::greeted(|mut line: Line| async move { line.linger().await });
    let running = Peer::greeted(|mut line: Line| async move {
        line.started(None).await;
        line.linger().await;
    });
    let reading = Peer::greeted(|mut line: Line| async move {
        let id = line.read().await.unwrap().id;
        line.data(id, Kind::FsData, b"begin").await;
        line.linger().await;
    });
    // Answers pings while the program is silent: not lost.
    let patient = Peer::greeted(|mut line: Line| async move {
        let id = line.started(None).await;
        let ping = line.expect(Kind::Ping).await.id;
        line.send(ping, Kind::Pong, &Empty {}).await;
        tokio::time::sleep(Duration::from_secs(18)).await;
        line.exited(id, 0).await;
        line.linger().await;
    });
    let began = Instant::now();
    let spec = spec();
    let run = |peer: &'static str| (peer.to_string(), options());
    let (cmd, opts) = run("true");
    let connections = Connections::default();
    let (of_silent, of_reading) = (agent(&silent.address), agent(&reading.address));
    let work = async {
        tokio::join!(
            of_silent.stat("/x", true),
            exec(&connections, &silent.address, &spec, cmd.clone(), opts.clone()),
            exec(&connections, &running.address, &spec, cmd.clone(), opts.clone()),
            of_reading.read("/x", u64::MAX),
            exec(&connections, &patient.address, &spec, cmd.clone(), opts.clone()),
        )
    };
    let (stat, unstarted, started, read, quiet) =
        tokio::time::timeout(Duration::from_secs(50), work).await.expect("the silence deadline is 30 s");
    assert!(is_lost(&stat.unwrap_err()));
    assert!(is_lost(&unstarted.unwrap_err()));
    assert!(is_lost(&started.unwrap_err()));
    assert!(is_lost(&read.unwrap_err()));
    assert_eq!(quiet.unwrap().exit.code, 0);
    assert!(began.elapsed() > Duration::from_secs(29));
}

#[tokio::test]
async fn an_answer_to_the_wrong_question_is_refused() {
    let peer = Peer::greeted(|mut line: Line| async move {
        let id = line.read().await.unwrap().id;
        line.send(id, Kind::FsResponse, &FsResponse { ok: true, ..FsResponse::default() }).await;
        line.linger().await;
    });
    assert!(is_protocol(&ping(&peer).await.unwrap_err()));
}

#[tokio::test]
async fn a_socket_without_a_listener_is_a_lost_agent() {
    let peer = Peer::greeted(|_line: Line| async {});
    let mut gone = peer.address.clone();
    gone.socket = gone.socket.with_file_name("other.sock");
    assert!(is_lost(&AgentClient::connect(&gone, CONNECT).await.err().unwrap()));
}
