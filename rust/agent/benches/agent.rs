//! What a trip through the agent costs, each figure beside its plain counterpart in the same run.
//!
//! `cargo bench -p microsandbox-agent`; set `MSB_AGENT` to measure another build, e.g. the embedded static one, and
//! `ONLY` to `idle`, `exec`, `stdout` or `files` for one part.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]
#![allow(clippy::disallowed_methods, reason = "the yardstick is a plain fork and exec")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use microsandbox_protocol::Kind;
use microsandbox_protocol::message::*;
use support::*;

const ROUNDS: usize = 1000;
const GIB: usize = 1 << 30;

fn percentiles(name: &str, mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    let at = |part: usize| samples[samples.len() * part / 100];
    println!("{name:<34} p50 {:>8.1?}  p90 {:>8.1?}  p99 {:>8.1?}", at(50), at(90), at(99));
    at(50)
}

fn timed(rounds: usize, mut work: impl FnMut()) -> Vec<Duration> {
    (0..rounds)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed()
        })
        .collect()
}

fn smaps(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("Rss:"), field("Pss:"))
}

/// User and system time of a process, in seconds.
fn cpu(pid: u32) -> (f64, f64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text[text.rfind(')').unwrap()..].split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap() / rustix::param::clock_ticks_per_second() as f64;
    (ticks(12), ticks(13))
}

fn exec_latency() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let request = program("/bin/true", &[]);
    let mut bare = Vec::new();
    let mut ours = Vec::new();
    // Interleaved, so that both see the same machine.
    for _ in 0..10 {
        bare.extend(timed(ROUNDS / 10, || {
            let status = Command::new("/bin/true").stdin(Stdio::null()).stdout(Stdio::piped()).output().unwrap();
            assert!(status.status.success());
        }));
        ours.extend(timed(ROUNDS / 10, || assert_eq!(client.exec(&request).exit().code, 0)));
    }
    let bare = percentiles("fork+exec of true, pipes", bare);
    let ours = percentiles("exec of true through the agent", ours);
    println!("{:<34} {:.2}x (target 1.5x)", "ratio", ours.as_secs_f64() / bare.as_secs_f64());
    percentiles("ping", timed(ROUNDS, || drop(client.ask(&Kind::Ping, &Empty {}))));
    percentiles("stat", timed(ROUNDS, || drop(client.fs(FsOp::Stat { path: "/".into(), follow_symlink: true }))));
}

fn throughput() {
    let agent = Agent::start();
    agent.upward.keep.store(false, Ordering::Relaxed);
    let mut client = agent.connect();
    let args = ["-c", &GIB.to_string(), "/dev/zero"];
    let begin = Instant::now();
    let mut child = Command::new("head").args(args).stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut got = 0;
    while let Ok(len @ 1..) = pipe.read(&mut buffer) {
        got += len;
    }
    child.wait().unwrap();
    assert_eq!(got, GIB);
    let plain = begin.elapsed();
    let begin = Instant::now();
    let id = client.start(&ExecRequest { window: Some(4 << 20), ..program("head", &args) });
    let (mut got, mut owed) = (0, 0);
    loop {
        let message = client.recv().unwrap();
        match message.kind {
            Kind::ExecStdout => {
                let len = message.data().unwrap().len();
                got += len;
                owed += len as u64;
                if owed >= 1 << 20 {
                    client.send(id, &Kind::Credit, &Credit { bytes: owed });
                    owed = 0;
                }
            }
            Kind::ExecExited => break,
            _ => {}
        }
    }
    assert_eq!(got, GIB);
    let ours = begin.elapsed();
    let rate = |time: Duration| 1024.0 / time.as_secs_f64();
    println!("{:<34} {:.0} MiB/s", "1 GiB through a plain pipe", rate(plain));
    println!(
        "{:<34} {:.0} MiB/s, log copy included: {:.2}x (target 0.5x)",
        "1 GiB through the agent",
        rate(ours),
        rate(ours) / rate(plain)
    );
    println!("{:<34} {:?} s (user, system) in the agent", "", cpu(agent.pid()));
    println!("{:<34} {:?} KiB (rss, pss) right after", "", smaps(agent.pid()));
}

fn files() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let path = agent.dir.path().join("f").display().to_string();
    let data = vec![7u8; 256 << 20];
    for atomic in [false, true] {
        let begin = Instant::now();
        assert!(client.write_file(&path, &data, atomic).ok);
        let wrote = begin.elapsed();
        let begin = Instant::now();
        assert_eq!(client.read_file(&path).unwrap().len(), data.len());
        let read = begin.elapsed();
        let rate = |time: Duration| 256.0 / time.as_secs_f64();
        println!(
            "{:<34} write {:.0} MiB/s, read {:.0} MiB/s (atomic: {atomic})",
            "256 MiB file",
            rate(wrote),
            rate(read)
        );
    }
    println!("{:<34} {:?} KiB (rss, pss) right after", "", smaps(agent.pid()));
    std::thread::sleep(Duration::from_millis(1200));
    println!("{:<34} {:?} KiB (rss, pss) when idle again", "", smaps(agent.pid()));
}

fn idle() {
    let agent = Agent::start();
    println!("{:<34} {:?} KiB (rss, pss)", "idle, never used", smaps(agent.pid()));
    let mut client = agent.connect();
    for _ in 0..100 {
        client.sh("echo x");
    }
    drop(client);
    std::thread::sleep(Duration::from_millis(1200));
    println!("{:<34} {:?} KiB (rss, pss)", "idle, after 100 execs", smaps(agent.pid()));
    let size = std::fs::metadata(agent_binary()).unwrap().len();
    println!("{:<34} {} KiB", "binary", size >> 10);
}

fn main() {
    // `cargo test --benches` runs this too; measuring takes its time only when asked.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let only = std::env::var("ONLY").ok();
    let parts: [(&str, fn()); 4] = [("idle", idle), ("exec", exec_latency), ("stdout", throughput), ("files", files)];
    for (name, part) in parts {
        if only.as_deref().is_none_or(|only| only == name) {
            part();
        }
    }
}
