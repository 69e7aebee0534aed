//! Who may speak, in which order, and what happens to those who do it wrong.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::*;
use microsandbox_protocol::Kind;
use microsandbox_protocol::frame::{self, Flags};
use microsandbox_protocol::message::*;

/// True once the agent has closed the connection.
fn closed(stream: &mut impl Read) -> bool {
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return true,
            Err(_) => return false,
        }
    }
}

#[test]
fn the_hello_gives_an_id_range_and_the_negotiated_extension() {
    within(10, || {
        let agent = Agent::start();
        let client = agent.connect();
        let ready = client.ready.unwrap();
        assert_eq!(ready.extension, Some(1));
        assert!(ready.agent_version.is_some() && ready.ready_time_ns >= ready.boot_time_ns);
        assert!(client.range.0 > 0 && client.range.1 > client.range.0 + 1_000_000);
    });
}

// hazard: P4
#[test]
fn a_wrong_token_is_unauthorized_and_the_connection_ends() {
    within(20, || {
        let agent = Agent::start();
        let wrong: [&[u8]; 4] = [b"", b"0123", &TOKEN[..31], b"1123456789abcdef0123456789abcdef"];
        for token in wrong {
            let mut client = Client::hello(&agent.socket, token, (1, 1));
            assert_eq!(client.refusal.as_ref().unwrap().kind, "unauthorized");
            assert!(closed(&mut client.stream));
        }
        assert!(agent.connect().ready.is_some());
    });
}

// hazard: P4
#[test]
fn a_version_mismatch_names_both_ranges() {
    within(10, || {
        let agent = Agent::start();
        let mut client = Client::hello(&agent.socket, TOKEN, (7, 9));
        let refusal = client.refusal.clone().unwrap();
        assert_eq!(refusal.kind, "version");
        assert!(refusal.message.contains("1..=1") && refusal.message.contains("7..=9"), "{}", refusal.message);
        assert!(closed(&mut client.stream));
        // A client that understands more than we do is welcome.
        assert_eq!(Client::hello(&agent.socket, TOKEN, (1, 9)).ready.unwrap().extension, Some(1));
    });
}

// hazard: P7
#[test]
fn nothing_but_a_hello_opens_a_connection() {
    within(10, || {
        let agent = Agent::start();
        let mut stream = Client::raw(&agent.socket);
        stream.write_all(&frame::encode(1, Flags::NONE, &Kind::ExecRequest, &program("true", &[])).unwrap()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(String::from_utf8_lossy(&answer).contains("unauthorized"));
    });
}

// hazard: P1
#[test]
fn frames_of_impossible_length_close_the_connection() {
    within(30, || {
        let agent = Agent::start();
        for length in [0u32, 1, 5, frame::MAX_HELLO_FRAME as u32 + 1, frame::MAX_FRAME as u32 + 1, u32::MAX] {
            let mut stream = Client::raw(&agent.socket);
            stream.write_all(&length.to_be_bytes()).unwrap();
            assert!(closed(&mut stream), "before the hello: {length}");
        }
        for length in [0u32, 1, 5, frame::MAX_FRAME as u32 + 1, u32::MAX] {
            let mut client = agent.connect();
            client.stream.write_all(&length.to_be_bytes()).unwrap();
            assert!(closed(&mut client.stream), "after the hello: {length}");
        }
        assert!(agent.rss() < 8 << 10);
        assert_eq!(agent.connect().sh("echo alive").text(), "alive\n");
    });
}

// hazard: P3
#[test]
fn garbage_closes_only_the_connection_it_came_on() {
    within(60, || {
        let agent = Agent::start();
        let mut bystander = agent.connect();
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for round in 0..200 {
            let mut client = agent.connect();
            let mut junk = vec![0u8; 64 + round];
            for byte in &mut junk {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 33) as u8;
            }
            if round % 2 == 0 {
                // A right length around a garbage body.
                let len = (junk.len() - 4) as u32;
                junk[..4].copy_from_slice(&len.to_be_bytes());
            }
            client.stream.write_all(&junk).unwrap();
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(closed(&mut client.stream));
        }
        assert_eq!(bystander.sh("echo untouched").text(), "untouched\n");
    });
}

// hazard: P3
#[test]
fn a_wrong_payload_is_an_error_and_the_connection_stays() {
    within(20, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        for kind in [Kind::ExecRequest, Kind::FsRequest, Kind::Shutdown] {
            let answer = client.ask(&kind, &(1u8, "x"));
            assert_eq!(answer.kind, Kind::Error);
            let error: CoreError = answer.parse().unwrap();
            assert_eq!((error.kind.as_str(), error.offending_type.as_deref()), ("malformed", Some(kind.as_wire())));
        }
        assert_eq!(client.ask(&Kind::Ping, &Empty {}).kind, Kind::Pong);
    });
}

// hazard: P4
#[test]
fn unknown_kinds_and_those_of_the_agent_are_unsupported() {
    within(20, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let foreign = [
            Kind::Unknown("core.tcp.connect".into()),
            Kind::Bootstrap,
            Kind::ExecStdout,
            Kind::ExecExited,
            Kind::FsResponse,
            Kind::Log,
            Kind::Activity,
            Kind::Ready,
            Kind::Hello,
        ];
        for kind in foreign {
            let error: CoreError = client.ask(&kind, &Empty {}).parse().unwrap();
            assert_eq!(error.kind, "unsupported", "{kind:?}");
        }
        assert_eq!(client.sh("echo on").text(), "on\n");
    });
}

// hazard: P5
#[test]
fn ids_outside_the_range_or_in_use_are_refused() {
    within(20, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        for id in [0, client.range.0 - 1, client.range.1, u32::MAX] {
            client.send(id, &Kind::ExecRequest, &program("true", &[]));
            let answer = client.recv().unwrap();
            assert_eq!((answer.id, answer.parse::<CoreError>().unwrap().kind.as_str()), (id, "malformed"));
        }
        let id = client.start(&sh("sleep 0.2; echo first"));
        client.recv().unwrap();
        client.send(id, &Kind::ExecRequest, &sh("echo second"));
        assert_eq!(client.recv().unwrap().kind, Kind::Error);
        assert_eq!(client.finish(id).text(), "first\n");
        // Late frames for an ended session are discarded.
        client.stdin(id, b"late");
        client.send(id, &Kind::ExecSignal, &Signal { signal: 9 });
        client.send(id, &Kind::Credit, &Credit { bytes: 1 });
        assert_eq!(client.ask(&Kind::Ping, &Empty {}).kind, Kind::Pong);
    });
}

// hazard: P5
#[test]
fn clients_cannot_touch_each_others_sessions() {
    within(20, || {
        let agent = Agent::start();
        let (mut one, mut two) = (agent.connect(), agent.connect());
        assert!(one.range.1 <= two.range.0 || two.range.1 <= one.range.0);
        let id = one.start(&sh("sleep 0.3; echo mine"));
        two.send(id, &Kind::ExecSignal, &Signal { signal: 9 });
        assert_eq!(two.recv().unwrap().kind, Kind::Error);
        assert_eq!(one.finish(id).text(), "mine\n");
    });
}

#[test]
fn several_clients_work_concurrently() {
    within(60, || {
        let agent = Agent::start();
        let threads: Vec<_> = (0..12)
            .map(|n| {
                let mut client = agent.connect();
                std::thread::spawn(move || {
                    for round in 0..40 {
                        let text = format!("{n}/{round}");
                        assert_eq!(client.exec(&program("echo", &[&text])).text(), format!("{text}\n"));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn clients_beyond_the_limit_wait_until_one_leaves() {
    within(20, || {
        let agent = Agent::start_with(Bootstrap { max_clients: 2, ..bootstrap() });
        let (one, _two) = (agent.connect(), agent.connect());
        let socket = agent.socket.clone();
        let (sender, answer) = std::sync::mpsc::channel();
        let third = std::thread::spawn(move || {
            let mut client = Client::hello(&socket, TOKEN, (1, 1));
            sender.send(()).unwrap();
            client.sh("echo third").text()
        });
        assert!(answer.recv_timeout(Duration::from_millis(300)).is_err(), "the third was served beside two");
        drop(one);
        answer.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(third.join().unwrap(), "third\n");
    });
}

// hazard: P2
#[test]
fn a_silent_client_is_dropped_and_delays_no_other() {
    within(20, || {
        let agent = Agent::start();
        let mut silent = Client::raw(&agent.socket);
        let mut slow = Client::raw(&agent.socket);
        slow.write_all(&[0, 0]).unwrap();
        assert_eq!(agent.connect().sh("echo served").text(), "served\n");
        let begin = Instant::now();
        assert!(closed(&mut silent));
        assert!(closed(&mut slow));
        let waited = begin.elapsed();
        assert!((4..8).contains(&waited.as_secs()), "{waited:?}");
    });
}

#[test]
fn ping_touch_and_stats_answer() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        assert_eq!(client.ask(&Kind::Ping, &Empty {}).kind, Kind::Pong);
        let first: Touched = client.ask(&Kind::Touch, &Empty {}).parse().unwrap();
        let second: Touched = client.ask(&Kind::Touch, &Empty {}).parse().unwrap();
        assert!(second.activity_seq > first.activity_seq);
        let id = client.start(&sh("echo up; exec sleep 100"));
        while client.recv().unwrap().kind != Kind::ExecStdout {}
        let stats: Stats = client.ask(&Kind::StatsRequest, &Empty {}).parse().unwrap();
        assert_eq!(stats.processes, 2);
        assert!(stats.memory_bytes > 100_000 && stats.root_free_bytes.is_some());
        client.send(id, &Kind::ExecSignal, &Signal { signal: 9 });
        client.finish(id);
    });
}

/// Answered in the order of the marks, each once the runtime has got there.
#[test]
fn the_log_is_complete_once_the_runtime_says_so() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let mut gone = agent.connect();
        let ids = [client.id(), client.id()];
        let left = gone.id();
        client.send(ids[0], &Kind::LogSync, &Empty {});
        assert_eq!(client.ask(&Kind::Ping, &Empty {}).kind, Kind::Pong);
        gone.send(left, &Kind::LogSync, &Empty {});
        assert_eq!(gone.ask(&Kind::Ping, &Empty {}).kind, Kind::Pong);
        drop(gone);
        client.send(ids[1], &Kind::LogSync, &Empty {});
        assert_eq!(client.ask(&Kind::Ping, &Empty {}).kind, Kind::Pong);
        for (number, id) in [(1, Some(ids[0])), (2, None), (3, Some(ids[1])), (9, None)] {
            agent.tell(&Kind::LogSynced, &LogSync { number });
            if let Some(id) = id {
                let answer = client.recv().unwrap();
                assert_eq!((answer.kind, answer.id), (Kind::LogSynced, id));
            }
        }
        assert_eq!(client.ask(&Kind::Ping, &Empty {}).kind, Kind::Pong);
    });
}

/// The agent cannot be traced and its descriptors reach no program.
// hazard: E10
#[test]
fn programs_cannot_look_into_the_agent() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        if !is_root() {
            eprintln!("skipped: another user needs more than one mapped id");
            return;
        }
        let script = "cat /proc/1/environ; ls /proc/1/fd; cat /proc/1/mem; readlink /proc/1/exe; wc -c < /proc/1/maps";
        let ran = client.exec(&ExecRequest { user: Some("alice".into()), ..sh(script) });
        assert!(ran.text().is_empty() || ran.text() == "0\n", "{}", ran.text());
        assert!(!ran.text().contains("socket"));
    });
}
