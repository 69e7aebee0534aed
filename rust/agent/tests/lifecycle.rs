//! The private channel: captured output, activity, shutdown, the runtime's end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::*;
use microsandbox_protocol::Kind;
use microsandbox_protocol::frame::{self, Flags};
use microsandbox_protocol::message::*;

#[test]
fn the_log_gets_a_copy_of_every_stream_with_marks_around_it() {
    within(20, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let ran = client.sh("echo out; echo err >&2");
        let session = ran.started.unwrap().session.unwrap();
        let tty = client.exec(&ExecRequest { tty: true, ..sh("echo term") });
        let tty_session = tty.started.unwrap().session.unwrap();
        until("the log arrived", || agent.logged(tty_session, 4).windows(4).any(|w| w == b"code"));
        assert_eq!(agent.logged(session, 1), b"out\n");
        assert_eq!(agent.logged(session, 2), b"err\n");
        assert_eq!(agent.logged(tty_session, 3), b"term\r\n");
        let marks = String::from_utf8(agent.logged(session, 4)).unwrap();
        assert!(
            marks.starts_with("exec started: `sh`")
                && marks.ends_with(&format!("exec ended: code 0 (session {session})")),
            "{marks}"
        );
        let log = agent.upward.log.lock().unwrap();
        assert!(log.iter().all(|(_, record)| record.time_ns > 1_700_000_000_000_000_000));
    });
}

// hazard: G3
#[test]
fn arguments_and_environment_are_in_no_log_line() {
    within(20, || {
        let agent = Agent::start();
        let request = ExecRequest { env: vec!["KEY=canary-env".into()], ..program("true", &["canary-arg"]) };
        let session = agent.connect().exec(&request).started.unwrap().session.unwrap();
        until("the end is logged", || agent.logged(session, 4).windows(5).any(|w| w == b"ended"));
        let log = agent.upward.log.lock().unwrap();
        assert!(!log.iter().any(|(_, record)| record.data.windows(6).any(|w| w == b"canary")));
    });
}

/// The runtime stops reading: output waits, nothing is lost, the agent stays small and answers.
// hazard: G1
#[test]
fn a_stalled_runtime_slows_programs_and_loses_no_byte() {
    within(60, || {
        let agent = Agent::start();
        agent.upward.keep.store(false, Ordering::Relaxed);
        agent.upward.stalled.store(true, Ordering::Relaxed);
        let mut client = agent.connect();
        let id = client.start(&sh("head -c 20000000 /dev/zero"));
        client.recv().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(agent.rss() < 8 << 10, "{} KiB", agent.rss());
        assert_eq!(agent.connect().ask(&Kind::Ping, &Empty {}).kind, Kind::Pong);
        agent.upward.stalled.store(false, Ordering::Relaxed);
        assert_eq!(client.finish(id).stdout.len(), 20_000_000);
        until("the log has it all", || agent.upward.log_bytes.load(Ordering::Relaxed) == 20_000_000);
    });
}

#[test]
fn activity_reports_how_many_programs_run() {
    within(20, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let id = client.start(&sh("sleep 0.2"));
        until("one runs", || agent.upward.activity.lock().unwrap().iter().any(|a| a.running == 1));
        client.finish(id);
        until("none runs", || agent.upward.activity.lock().unwrap().last().unwrap().running == 0);
        client.ask(&Kind::Touch, &Empty {});
        client.fs(FsOp::Stat { path: "/".into(), follow_symlink: true });
        let seqs: Vec<u64> = agent.upward.activity.lock().unwrap().iter().map(|a| a.seq).collect();
        assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    });
}

#[test]
fn shutdown_lets_programs_end_and_delivers_what_they_say_last() {
    within(30, || {
        let mut agent = Agent::jailed();
        let mut client = agent.connect();
        let id = client.start(&sh("trap 'echo goodbye; exit 7' TERM; echo up; while :; do sleep 0.02; done"));
        while client.recv().unwrap().kind != Kind::ExecStdout {}
        agent.tell(&Kind::Shutdown, &Shutdown { grace_ms: Some(5000) });
        let ran = client.finish(id);
        assert_eq!((ran.text().as_str(), ran.exit().code), ("goodbye\n", 7));
        assert!(agent.wait(Duration::from_secs(5)).success());
        until("the log is complete", || agent.upward.ended.load(Ordering::Relaxed));
        let session = ran.started.map_or_else(|| 0, |started| started.session.unwrap());
        let log = agent.upward.log.lock().unwrap();
        assert!(log.iter().any(|(_, record)| record.data == b"goodbye\n"), "session {session}");
    });
}

#[test]
fn shutdown_kills_what_ignores_term_after_the_grace() {
    within(30, || {
        let mut agent = Agent::jailed();
        let mut client = agent.connect();
        let id = client.start(&sh("trap '' TERM; setsid sleep 1000 & echo up; while :; do sleep 1; done"));
        while client.recv().unwrap().kind != Kind::ExecStdout {}
        let begin = Instant::now();
        let ask = client.id();
        client.send(ask, &Kind::Shutdown, &Shutdown { grace_ms: Some(300) });
        let mut late = agent.connect();
        assert_eq!(
            late.ask(&Kind::ExecRequest, &program("true", &[])).parse::<CoreError>().unwrap().kind,
            "shutting_down"
        );
        let list = FsRequest { op: FsOp::List { path: "/".into() }, window: None };
        assert_eq!(late.ask(&Kind::FsRequest, &list).parse::<CoreError>().unwrap().kind, "shutting_down");
        assert_eq!(client.finish(id).exit().signal, Some(9));
        assert!(agent.wait(Duration::from_secs(5)).success());
        assert!((300..3000).contains(&begin.elapsed().as_millis()));
    });
}

#[test]
fn an_idle_agent_shuts_down_immediately() {
    within(30, || {
        for grace_ms in [Some(0), Some(5000), None] {
            let mut agent = Agent::start();
            agent.connect().sh("true");
            let begin = Instant::now();
            agent.tell(&Kind::Shutdown, &Shutdown { grace_ms });
            assert!(agent.wait(Duration::from_secs(5)).success());
            assert!(begin.elapsed() < Duration::from_secs(2), "{grace_ms:?}: {:?}", begin.elapsed());
        }
    });
}

#[test]
fn a_stalled_client_does_not_hold_the_shutdown_for_ever() {
    within(30, || {
        let mut agent = Agent::start();
        let mut client = agent.connect();
        client.start(&program("yes", &[]));
        client.recv().unwrap();
        agent.tell(&Kind::Shutdown, &Shutdown { grace_ms: Some(100) });
        assert!(agent.wait(Duration::from_secs(15)).success());
    });
}

#[test]
fn term_to_the_agent_is_an_orderly_shutdown() {
    within(30, || {
        let mut agent = Agent::start();
        agent.connect().sh("true");
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(agent.pid() as i32).unwrap(),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        assert!(agent.wait(Duration::from_secs(5)).success());
    });
}

// hazard: L4
#[test]
fn the_end_of_the_runtime_ends_the_agent_and_every_program() {
    within(30, || {
        let mut agent = Agent::start();
        let mut client = agent.connect();
        let marker = format!("{}", 5_000_000 + agent.pid());
        client.start(&sh(&format!("setsid sleep {marker} & setsid setsid sleep {marker} & echo up; wait")));
        while client.recv().unwrap().kind != Kind::ExecStdout {}
        agent.control.take().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
        assert!(!agent.wait(Duration::from_secs(5)).success());
        until("nothing survives", || {
            !std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                line.starts_with(b"sleep\0") && line.windows(marker.len()).any(|w| w == marker.as_bytes())
            })
        });
    });
}

#[test]
fn a_hostile_runtime_cannot_crash_the_agent() {
    within(30, || {
        // Garbage ends it: there is no client left to serve.
        let mut agent = Agent::mute();
        agent.tell(&Kind::Ping, &Empty {});
        agent.tell(&Kind::Bootstrap, &"not a bootstrap");
        assert_eq!(agent.wait(Duration::from_secs(5)).code(), Some(1));
        // Absurd numbers are clamped, repetition is ignored.
        let agent = Agent::start_with(Bootstrap {
            max_clients: u32::MAX,
            drain_ms: u64::MAX,
            shutdown_grace_ms: u64::MAX,
            ..bootstrap()
        });
        agent.tell(&Kind::Bootstrap, &Bootstrap { token: b"other".to_vec(), ..bootstrap() });
        agent.tell(&Kind::Unknown("host.future".into()), &Empty {});
        assert_eq!(agent.connect().sh("echo fine").text(), "fine\n");
    });
}

#[test]
fn no_client_is_served_before_the_bootstrap() {
    within(20, || {
        let agent = Agent::mute();
        let mut early = Client::raw(&agent.socket);
        early.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let hello = Hello { token: Vec::new(), extension_min: 1, extension_max: 1 };
        use std::io::{Read, Write};
        early.write_all(&frame::encode(0, Flags::NONE, &Kind::Hello, &hello).unwrap()).unwrap();
        assert!(early.read(&mut [0; 8]).is_err(), "an answer without a token to compare with");
    });
}
