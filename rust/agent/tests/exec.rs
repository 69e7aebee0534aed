//! Programs: output, input, ends, environment.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::*;
use microsandbox_protocol::Kind;
use microsandbox_protocol::message::*;

// hazard: X1
#[test]
fn a_short_program_delivers_its_output_and_status() {
    within(20, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let ran = client.sh("echo out; echo err >&2; exit 3");
        assert_eq!(ran.text(), "out\n");
        assert_eq!(ran.stderr, b"err\n");
        let exit = ran.exit();
        assert_eq!((exit.code, exit.signal, exit.drained, exit.descendants), (3, None, true, 0));
        assert!(exit.duration_ns > 0 && !exit.timed_out && !exit.oom_killed);
    });
}

// hazard: X1
#[test]
fn a_thousand_echos_deliver_every_byte() {
    within(120, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        for round in 0..1000 {
            let text = format!("{round}-{}", "x".repeat(round));
            let ran = client.exec(&program("/bin/echo", &[&text]));
            assert_eq!(ran.text(), format!("{text}\n"));
            assert_eq!(ran.exit().code, 0);
        }
    });
}

// hazard: X1
#[test]
fn a_long_sequence_is_complete() {
    within(60, || {
        let agent = Agent::start();
        let ran = agent.connect().exec(&program("seq", &["1", "1000000"]));
        let expected: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
        assert!(ran.text() == expected, "{} of {} bytes", ran.stdout.len(), expected.len());
    });
}

/// 64 MiB through a window of 256 KiB while the client sleeps between reads.
// hazard: X2
#[test]
fn a_slow_reader_slows_the_program_at_constant_memory() {
    within(120, || {
        let agent = Agent::start();
        agent.upward.keep.store(false, Ordering::Relaxed);
        let mut client = agent.connect();
        const TOTAL: u64 = 64 << 20;
        let request = ExecRequest { window: Some(256 << 10), ..sh("head -c 67108864 /dev/zero") };
        let id = client.start(&request);
        let (mut got, mut peak, mut reads) = (0u64, 0, 0u64);
        loop {
            let message = client.recv().unwrap();
            match message.kind {
                Kind::ExecStdout => {
                    let bytes = message.data().unwrap().len() as u64;
                    got += bytes;
                    reads += 1;
                    if reads.is_multiple_of(16) {
                        std::thread::sleep(Duration::from_millis(2));
                        peak = peak.max(agent.rss());
                    }
                    client.send(id, &Kind::Credit, &Credit { bytes });
                }
                Kind::ExecExited => break,
                _ => {}
            }
        }
        assert_eq!(got, TOTAL);
        assert!(peak < 16 << 10, "the agent grew to {peak} KiB");
        until("the log has it all", || agent.upward.log_bytes.load(Ordering::Relaxed) == TOTAL);
    });
}

// hazard: X2
#[test]
fn output_without_credit_stops_that_session_only() {
    within(30, || {
        let agent = Agent::start();
        let (mut starved, mut other) = (agent.connect(), agent.connect());
        let id = starved.start(&ExecRequest { window: Some(1000), ..program("yes", &[]) });
        let mut got = 0;
        while got < 1000 {
            let message = starved.recv().unwrap();
            if message.kind == Kind::ExecStdout {
                got += message.data().unwrap().len();
            }
        }
        assert_eq!(got, 1000);
        for _ in 0..20 {
            assert_eq!(other.sh("echo hi").text(), "hi\n");
        }
        // The control lane is open although the stream is not.
        starved.send(id, &Kind::ExecSignal, &Signal { signal: 9 });
        starved.send(id, &Kind::Credit, &Credit { bytes: 500 });
        let mut more = 0;
        loop {
            let message = starved.recv().unwrap();
            match message.kind {
                Kind::ExecStdout => {
                    let bytes = message.data().unwrap().len();
                    more += bytes;
                    starved.send(id, &Kind::Credit, &Credit { bytes: bytes as u64 });
                }
                Kind::ExecExited => {
                    let exited: ExecExited = message.parse().unwrap();
                    assert_eq!((exited.code, exited.signal), (137, Some(9)));
                    assert!(more > 500, "what was in the pipe is delivered: {more}");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

/// Output that fits the window exactly needs no credit for its end to be reported.
// hazard: X2
#[test]
fn the_exit_needs_no_credit() {
    within(20, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        for output in [0, 1, 1000] {
            let request = ExecRequest { window: Some(output), ..sh(&format!("head -c {output} /dev/zero")) };
            client.start(&request);
            let mut got = 0;
            let exited: ExecExited = loop {
                let message = client.recv().unwrap();
                match message.kind {
                    Kind::ExecStdout => got += message.data().unwrap().len() as u64,
                    Kind::ExecExited => break message.parse().unwrap(),
                    _ => {}
                }
            };
            assert_eq!((got, exited.code, exited.drained), (output, 0, true));
        }
    });
}

// hazard: X4
#[test]
fn a_background_process_with_the_pipes_delays_no_exit() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let begin = Instant::now();
        let ran = client.sh("echo before; sleep 1000 & (setsid sleep 1000 &) ; exit 5");
        assert_eq!(ran.text(), "before\n");
        let exit = ran.exit();
        assert_eq!((exit.code, exit.drained, exit.descendants), (5, false, 2));
        assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
        // They live on and may still write: only to the log now.
        assert_eq!(client.sh("pgrep -c sleep").text(), "2\n");
    });
}

/// The client has no room for all of what the leader wrote, and a descendant takes the rest out of the pipe.
// hazard: X4
#[test]
fn what_a_descendant_takes_back_is_not_waited_for() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let thief = "sleep 1; head -c 4000 < /proc/self/fd/1 > /dev/null";
        let script = format!("head -c 5000 /dev/zero; (sleep 1000 & {thief}) 2> /dev/null & exit 0");
        client.start(&ExecRequest { window: Some(1000), ..sh(&script) });
        let exited: ExecExited = loop {
            let message = client.recv().unwrap();
            if message.kind == Kind::ExecExited {
                break message.parse().unwrap();
            }
        };
        assert_eq!((exited.code, exited.drained), (0, false));
    });
}

/// Each piece comes within a tenth of a second of the one before.
// hazard: X4
#[test]
fn output_that_keeps_coming_is_waited_for_and_whole() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let ran = client.sh("(for n in 1 2 3 4 5; do sleep 0.03; echo $n; done; sleep 1000) & echo 0");
        assert_eq!(ran.text(), "0\n1\n2\n3\n4\n5\n");
        assert_eq!((ran.exit().code, ran.exit().drained), (0, false));
    });
}

// hazard: X4
#[test]
fn a_background_process_without_the_pipes_is_counted() {
    within(30, || {
        let agent = Agent::jailed();
        let ran = agent.connect().sh("setsid sleep 1000 >/dev/null 2>&1 </dev/null & exit 0");
        let exit = ran.exit();
        assert_eq!((exit.code, exit.drained, exit.descendants), (0, true, 1));
    });
}

/// TERM ignored, double fork, new sessions, a stopped process: all of it is dead when the timeout is reported.
// hazard: X5
#[test]
fn a_timeout_kills_the_tree_and_keeps_partial_output() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let script = "trap '' TERM; echo partial; (setsid sh -c 'setsid sleep 1001 & setsid sleep 1002 & sleep 1003' &) ; \
                      sleep 1004 & kill -STOP $!; sleep 1005";
        let ran = client.exec(&ExecRequest { timeout_ms: Some(400), ..sh(script) });
        assert_eq!(ran.text(), "partial\n");
        let exit = ran.exit();
        assert!(exit.timed_out && exit.drained, "{exit:?}");
        assert_eq!((exit.signal, exit.code), (Some(9), 137));
        assert_eq!(client.sh("pgrep -c sleep").text(), "0\n");
    });
}

// hazard: X5
#[test]
fn signal_9_kills_descendants_that_left_the_session() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let id = client.start(&sh("setsid setsid sleep 1000 & setsid sh -c 'sleep 1000; :' & echo up; wait"));
        while client.recv().unwrap().kind != Kind::ExecStdout {}
        client.send(id, &Kind::ExecSignal, &Signal { signal: 9 });
        assert_eq!(client.finish(id).exit().signal, Some(9));
        assert_eq!(client.sh("pgrep -c sleep").text(), "0\n");
    });
}

/// A fork bomb of limited size that ignores what it can, killed while it grows.
// hazard: X5
#[test]
fn a_tree_that_keeps_forking_is_killed() {
    within(60, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let bomb = "b() { setsid sleep 300 & [ $1 -gt 0 ] && { b $(($1 - 1)) & b $(($1 - 1)) & }; sleep 300; }; b 5";
        let ran = client.exec(&ExecRequest { timeout_ms: Some(150), ..sh(bomb) });
        assert!(ran.exit().timed_out);
        until("nothing is left", || agent.connect().sh("pgrep -c sleep").text() == "0\n");
    });
}

#[test]
fn signals_reach_the_process_group_and_the_exit_names_them() {
    within(20, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let id = client.start(&sh("trap 'echo caught; exit 9' USR1; echo up; while :; do sleep 0.05; done"));
        while client.recv().unwrap().kind != Kind::ExecStdout {}
        client.send(id, &Kind::ExecSignal, &Signal { signal: libc::SIGUSR1 });
        let ran = client.finish(id);
        assert_eq!((ran.text().as_str(), ran.exit().code), ("caught\n", 9));
        let id = client.start(&sh("echo up; exec sleep 100"));
        while client.recv().unwrap().kind != Kind::ExecStdout {}
        client.send(id, &Kind::ExecSignal, &Signal { signal: libc::SIGTERM });
        let exit = client.finish(id).exited.unwrap();
        assert_eq!((exit.signal, exit.code, exit.timed_out), (Some(15), 143, false));
    });
}

// hazard: X9
#[test]
fn sixteen_mebibytes_of_input_arrive_whole() {
    within(60, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let id = client.start(&ExecRequest { no_stdin: false, ..program("md5sum", &[]) });
        let data: Vec<u8> = (0..16u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut window = 0;
        let mut at = 0;
        while at < data.len() {
            if window == 0 {
                let message = client.recv().unwrap();
                window += match message.kind {
                    Kind::ExecStarted => message.parse::<ExecStarted>().unwrap().stdin_window.unwrap(),
                    Kind::Credit => message.parse::<Credit>().unwrap().bytes,
                    other => panic!("{other:?}"),
                };
            }
            let len = window.min(100_000).min((data.len() - at) as u64) as usize;
            client.stdin(id, &data[at..at + len]);
            at += len;
            window -= len as u64;
        }
        client.stdin(id, &[]);
        let sum = client.finish(id).text();
        let mut check = agent.connect();
        let path = agent.dir.path().join("same");
        std::fs::write(&path, &data).unwrap();
        let expected = check.sh(&format!("md5sum < {}", path.display())).text();
        assert_eq!(sum, expected);
    });
}

// hazard: X9
#[test]
fn a_closed_input_is_reported_once_without_deadlock() {
    within(30, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let id = client.start(&ExecRequest { no_stdin: false, ..sh("exec <&-; sleep 0.3; echo done") });
        let mut ran = Ran::default();
        client.step(id, &mut ran);
        std::thread::sleep(Duration::from_millis(100));
        for _ in 0..100 {
            client.stdin(id, &[7; 4000]);
        }
        while !client.step(id, &mut ran) {}
        assert_eq!(ran.stdin_error.as_ref().unwrap().errno_name.as_deref(), Some("EPIPE"));
        assert_eq!((ran.text().as_str(), ran.exit().code), ("done\n", 0));
    });
}

/// A client that knows no windows is held back by the connection, and its signals are merely late.
// hazard: X9
#[test]
fn input_beyond_the_window_waits_in_the_socket() {
    within(30, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let id = client.start(&ExecRequest { no_stdin: false, ..sh("sleep 0.5; wc -c") });
        let mut writer = client.stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            let chunk = microsandbox_protocol::frame::encode(
                id,
                Default::default(),
                &Kind::ExecStdin,
                &Data { data: vec![1; 100_000] },
            )
            .unwrap();
            for _ in 0..100 {
                writer.write_all(&chunk).unwrap();
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        assert!(agent.rss() < 8 << 10, "{} KiB", agent.rss());
        sender.join().unwrap();
        client.stdin(id, &[]);
        assert_eq!(client.finish(id).text(), "10000000\n");
    });
}

#[test]
fn input_is_empty_when_none_was_asked_for() {
    within(20, || {
        let agent = Agent::start();
        let ran = agent.connect().sh("readlink /proc/self/fd/0; cat; echo end");
        assert_eq!(ran.text(), "/dev/null\nend\n");
        assert_eq!(ran.started.unwrap().stdin_window, None);
    });
}

// hazard: E11
#[test]
fn a_program_inherits_three_descriptors_and_a_clean_state() {
    within(20, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        assert_eq!(client.sh("ls /proc/$$/fd").text(), "0\n1\n2\n");
        let status = client.exec(&program("cat", &["/proc/self/status"])).text();
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().trim_start_matches('0').to_owned()
        };
        assert_eq!(
            (field("SigBlk:"), field("SigIgn:"), field("SigCgt:")),
            (String::new(), String::new(), String::new())
        );
        assert_eq!(client.sh("umask").text(), "0022\n");
        let ran = client.sh("cut -d' ' -f5,6 /proc/$$/stat; echo $$ $$");
        let lines: Vec<&str> = ran.stdout.split(|b| *b == b'\n').map(|l| std::str::from_utf8(l).unwrap()).collect();
        assert_eq!(lines[0], lines[1]);
        assert_eq!(client.sh("ulimit -n").text().trim(), nofile().to_string());
    });
}

fn nofile() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap()
}

#[test]
fn environment_merges_sandbox_account_and_call() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let ran =
            client.exec(&ExecRequest { env: vec!["CALL=1".into(), "SANDBOX=other".into()], ..program("env", &[]) });
        let mut lines: Vec<String> = ran.text().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "CALL=1",
                "HOME=/root",
                "LOGNAME=root",
                "PATH=/.msb/scripts:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "SANDBOX=other",
                "USER=root"
            ]
        );
    });
}

#[test]
fn programs_are_looked_up_as_a_shell_does() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        client.sh("mkdir -p /.msb/scripts /w && printf '#!/bin/sh\\necho mine\\n' > /.msb/scripts/ls && \
             cp /.msb/scripts/ls /w/tool && chmod +x /.msb/scripts/ls /w/tool");
        assert_eq!(client.exec(&program("ls", &[])).text(), "mine\n");
        let there = ExecRequest { cwd: Some("/w".into()), ..program("./tool", &[]) };
        assert_eq!(client.exec(&there).text(), "mine\n");
        assert_eq!(client.exec(&ExecRequest { cwd: Some("/w".into()), ..program("pwd", &[]) }).text(), "/w\n");
    });
}

#[test]
fn rlimits_are_set_for_the_program() {
    within(20, || {
        let agent = Agent::start();
        let limit = |resource: &str, soft, hard| Rlimit { resource: resource.into(), soft, hard };
        let request = ExecRequest {
            rlimits: vec![limit("nofile", 64, 128), limit("core", 0, 0), limit("locks", 5, 5)],
            ..sh("ulimit -Sn; ulimit -Hn; ulimit -c")
        };
        assert_eq!(agent.connect().exec(&request).text(), "64\n128\n0\n");
    });
}

#[test]
fn a_tty_is_a_controlling_terminal_with_size_echo_and_hangup() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let request =
            ExecRequest { tty: true, no_stdin: false, rows: 33, cols: 101, ..sh("tty; stty size; echo $TERM; cat") };
        let id = client.start(&request);
        let mut ran = Ran::default();
        let seen = |client: &mut Client, ran: &mut Ran, text: &str| {
            while !ran.text().contains(text) {
                assert!(!client.step(id, ran), "ended before {text:?}: {:?}", ran.text());
            }
        };
        seen(&mut client, &mut ran, "xterm-256color");
        assert!(ran.text().starts_with("/dev/pts/0\r\n33 101\r\n"), "{:?}", ran.text());
        client.stdin(id, b"typed\n");
        seen(&mut client, &mut ran, "typed\r\ntyped");
        // End of input is the terminal's end-of-file character.
        client.stdin(id, &[]);
        while !client.step(id, &mut ran) {}
        assert_eq!(ran.exit().code, 0);
        assert!(ran.stderr.is_empty());
    });
}

#[test]
fn a_tty_resizes_and_takes_control_characters() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let script = "trap 'stty size' WINCH; echo up; while :; do sleep 0.02; done";
        let id = client.start(&ExecRequest { tty: true, no_stdin: false, ..sh(script) });
        let mut ran = Ran::default();
        while !ran.text().contains("up") {
            client.step(id, &mut ran);
        }
        client.send(id, &Kind::ExecResize, &Resize { rows: 50, cols: 132 });
        while !ran.text().contains("50 132") {
            client.step(id, &mut ran);
        }
        client.stdin(id, &[3]);
        while !client.step(id, &mut ran) {}
        assert_eq!(ran.exit().signal, Some(libc::SIGINT));
    });
}

// hazard: X7
#[test]
fn a_program_outlives_its_client_unless_it_asked_otherwise() {
    within(20, || {
        let agent = Agent::jailed();
        let mut watcher = agent.connect();
        let mut detached = agent.connect();
        detached.start(&sh("sleep 0.4; echo survived > /tmp/proof"));
        detached.recv().unwrap();
        let mut tied = agent.connect();
        tied.start(&ExecRequest { kill_on_disconnect: true, ..sh("setsid sleep 777 & wait") });
        tied.recv().unwrap();
        until("it runs", || agent.connect().sh("pgrep -c -f 'sleep 777'").text().trim() != "0");
        drop((detached, tied));
        until("the tied one is killed", || agent.connect().sh("pgrep -x sleep -a").text().matches("777").count() == 0);
        until("the detached one finished", || agent.connect().sh("cat /tmp/proof").text() == "survived\n");
        assert_eq!(watcher.sh("echo still here").text(), "still here\n");
    });
}

// hazard: R5
#[test]
fn orphans_are_reaped_and_no_status_is_stolen() {
    within(60, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let ran = client.sh("i=0; while [ $i -lt 1000 ]; do (true &) ; i=$((i+1)); done; exit 42");
        assert_eq!(ran.exit().code, 42);
        until("no zombie is left", || {
            agent.connect().sh("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l").text() == "0\n"
        });
    });
}

#[test]
fn many_sessions_on_one_connection_keep_their_streams_apart() {
    within(60, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let mut open = std::collections::HashMap::new();
        for n in 0..50 {
            let id = client.start(&sh(&format!("for i in 1 2 3 4 5; do echo s{n}; sleep 0.01; done; exit {n}")));
            open.insert(id, (n, String::new()));
        }
        let mut ended = 0;
        while ended < 50 {
            let message = client.recv().unwrap();
            let (n, text) = open.get_mut(&message.id).unwrap();
            match message.kind {
                Kind::ExecStdout => text.push_str(std::str::from_utf8(&message.data().unwrap()).unwrap()),
                Kind::ExecExited => {
                    assert_eq!(message.parse::<ExecExited>().unwrap().code, *n);
                    assert_eq!(*text, format!("s{n}\n").repeat(5));
                    ended += 1;
                }
                _ => {}
            }
        }
    });
}

/// Each session leaves a process behind that holds its streams; the limit is on programs, not on leftovers.
#[test]
fn leftovers_of_ended_sessions_do_not_use_up_the_session_limit() {
    within(240, || {
        let agent = Agent::jailed_with(Bootstrap { drain_ms: 0, ..bootstrap() });
        let mut client = agent.connect();
        for _ in 0..1040 {
            let ran = client.sh("sleep 1000 & exit 0");
            assert_eq!((ran.exit().code, ran.exit().drained), (0, false));
        }
        assert_eq!(client.sh("echo fine").text(), "fine\n");
    });
}

#[test]
fn a_jobs_input_may_end_while_it_is_full() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let request = ExecRequest { job: true, kill_on_disconnect: false, no_stdin: false, ..sh("read go; wc -c") };
        let id = client.start(&request);
        let started = client.recv().unwrap();
        assert_eq!((started.id, &started.kind), (id, &Kind::ExecStarted));
        let job = started.parse::<ExecStarted>().unwrap().job.unwrap();
        let mut ask = |op: JobOp| client.ask(&Kind::JobRequest, &JobRequest { op }).parse::<JobResponse>().unwrap();
        // Nothing of it is read before the first line ends.
        let mut sent = 0;
        loop {
            let data = vec![b'x'; 64 << 10];
            sent += data.len();
            let answer = ask(JobOp::Input { job: job.clone(), data });
            match answer.refused.as_deref() {
                None => assert!(sent < 64 << 20, "it never fills up"),
                Some(refused) => {
                    assert_eq!(refused, "input_full");
                    break;
                }
            }
        }
        let answer = ask(JobOp::CloseInput { job: job.clone() });
        assert_eq!(answer.refused, None);
        let ended = ask(JobOp::Wait { job }).jobs.remove(0);
        assert_eq!(ended.exit.unwrap().code, 0);
    });
}
