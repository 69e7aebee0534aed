//! File operations against the real agent in a root of its own.

use std::time::{Duration, Instant};

use crate::support::*;
use microsandbox_protocol::Kind;
use microsandbox_protocol::message::*;

fn ok(response: FsResponse) -> FsResponse {
    assert!(response.ok, "{:?}", response.error);
    response
}

fn kind(response: FsResponse) -> String {
    assert!(!response.ok, "succeeded: {:?}", response.data);
    assert!(response.error.is_some());
    response.kind.unwrap()
}

fn path(p: &str) -> String {
    p.to_owned()
}

fn stat(client: &mut Client, p: &str) -> FsEntry {
    match ok(client.fs(FsOp::Stat { path: path(p), follow_symlink: false })).data.unwrap() {
        FsData::Stat(entry) => entry,
        other => panic!("{other:?}"),
    }
}

fn list(client: &mut Client, p: &str) -> Vec<FsEntry> {
    match ok(client.fs(FsOp::List { path: path(p) })).data.unwrap() {
        FsData::List(entries) => entries,
        other => panic!("{other:?}"),
    }
}

fn handle(response: FsResponse) -> u64 {
    match ok(response).data.unwrap() {
        FsData::Handle(handle) => handle,
        other => panic!("{other:?}"),
    }
}

#[test]
fn content_written_is_content_read_in_every_size() {
    within(60, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        for size in [0usize, 1, 4095, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 9 << 20] {
            let data: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
            for atomic in [false, true] {
                let written = ok(client.write_file("/tmp/f", &data, atomic));
                assert_eq!(written.bytes, Some(size as u64));
                assert!(client.read_file("/tmp/f").unwrap() == data, "{size} {atomic}");
            }
            assert_eq!(stat(&mut client, "/tmp/f").size, size as u64);
        }
        assert_eq!(list(&mut client, "/tmp").len(), 1, "no temporary file is left");
    });
}

#[test]
fn defaults_are_0644_0755_and_root_and_existing_modes_stay() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        ok(client.write_file("/tmp/plain", b"x", false));
        ok(client.write_file("/tmp/atomic", b"x", true));
        ok(client.fs(FsOp::Mkdir { path: path("/tmp/a/b/c"), mode: Some(0o2700) }));
        for (name, mode) in [("plain", 0o644), ("atomic", 0o644), ("a", 0o755), ("a/b", 0o755), ("a/b/c", 0o2700)] {
            let entry = stat(&mut client, &format!("/tmp/{name}"));
            assert_eq!((entry.mode & 0o7777, entry.uid, entry.gid), (mode, 0, 0), "{name}");
        }
        client.sh("chmod 750 /tmp/atomic");
        ok(client.write_file("/tmp/atomic", b"new", true));
        assert_eq!(stat(&mut client, "/tmp/atomic").mode & 0o7777, 0o750);
        let op = FsOp::WriteFile { path: path("/tmp/given"), mode: Some(0o600), atomic: true, mtime: None };
        ok(client.upload(op, b"secret"));
        assert_eq!(stat(&mut client, "/tmp/given").mode & 0o7777, 0o600);
        // An existing directory is fine, an existing file is not.
        ok(client.fs(FsOp::Mkdir { path: path("/tmp/a/b"), mode: None }));
        assert_eq!(kind(client.fs(FsOp::Mkdir { path: path("/tmp/plain"), mode: None })), "ENOTDIR");
    });
}

// hazard: F1
#[test]
fn paths_stay_beneath_the_root_and_empty_ones_are_invalid() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let passwd = client.read_file("/etc/passwd").unwrap();
        assert!(passwd.starts_with(b"root:x:0:0:root:/root:/bin/sh\nalice"), "the sandbox's own, not the host's");
        for p in [
            "../../etc/passwd",
            "/../../etc/passwd",
            "etc/../etc/passwd",
            "//etc//passwd",
            "/tmp/../../../etc/./passwd",
        ] {
            assert!(client.read_file(p).unwrap() == passwd, "{p}");
        }
        assert_eq!(kind(*client.read_file("").unwrap_err()), "InvalidPath");
        assert_eq!(kind(*client.read_file("/etc/pass\0wd").unwrap_err()), "InvalidPath");
        assert_eq!(kind(client.fs(FsOp::Remove { path: path("/tmp/..") })), "InvalidPath");
        assert_eq!(kind(client.fs(FsOp::Remove { path: path("/") })), "EBUSY");
        assert_eq!(kind(client.fs(FsOp::RemoveDir { path: path("/"), recursive: true })), "EBUSY");
        assert_eq!(kind(*client.read_file("/etc").unwrap_err()), "EISDIR");
        assert_eq!(kind(*client.read_file("/nope").unwrap_err()), "ENOENT");
        assert_eq!(kind(*client.read_file("/etc/passwd/x").unwrap_err()), "ENOTDIR");
        let long = format!("/{}", "x".repeat(300));
        assert_eq!(kind(*client.read_file(&long).unwrap_err()), "ENAMETOOLONG");
    });
}

// hazard: F2
#[test]
fn an_absolute_link_means_the_sandboxs_own_file() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        client.sh("ln -s /etc/passwd /tmp/x; ln -s ../../../../../../etc/passwd /tmp/y; ln -s loop /tmp/loop");
        let own = client.read_file("/etc/passwd").unwrap();
        assert!(client.read_file("/tmp/x").unwrap() == own && client.read_file("/tmp/y").unwrap() == own);
        assert_eq!(kind(*client.read_file("/tmp/loop").unwrap_err()), "ELOOP");
        // Writing atomically through a link keeps the link.
        client.sh("echo old > /tmp/real; ln -s real /tmp/link; ln -s /tmp/link /tmp/link2");
        ok(client.write_file("/tmp/link2", b"new", true));
        assert_eq!(client.sh("cat /tmp/real; readlink /tmp/link /tmp/link2").text(), "newreal\n/tmp/link\n");
    });
}

/// A directory flips between itself and a link to `/` while the agent writes beneath it.
// hazard: F3
#[test]
fn a_racing_link_never_leads_a_write_outside() {
    within(60, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let outside = agent.dir.path().join("f");
        client.sh("mkdir -p /tmp/d /tmp/flip");
        let flips = "cd /tmp; ln -s / l; while :; do mv -T d dd; mv -T l d; mv -T d l; mv -T dd d; done";
        let flipper = client.start(&sh(flips));
        client.recv().unwrap();
        let mut writer = agent.connect();
        let (mut wrote, end) = (0, Instant::now() + Duration::from_secs(5));
        while Instant::now() < end {
            for _ in 0..100 {
                let response = writer.write_file("/tmp/d/f", b"x", wrote % 2 == 0);
                if response.ok {
                    wrote += 1;
                } else {
                    assert!(matches!(response.kind.as_deref(), Some("ENOENT" | "ENOTDIR")), "{response:?}");
                }
            }
        }
        assert!(wrote > 100, "{wrote} writes only");
        assert!(!outside.exists() && !std::path::Path::new("/f").exists());
        client.send(flipper, &Kind::ExecSignal, &Signal { signal: 9 });
    });
}

// hazard: F4
#[test]
fn magic_links_are_refused_by_name() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        client.sh("ln -s /proc/self/root /tmp/root; ln -s /proc/1/cwd /tmp/cwd");
        let magic = [
            "/proc/self/root/etc/passwd",
            "/proc/1/root",
            "/proc/1/root/etc/passwd",
            "/proc/self/fd/0",
            "/proc/self/fd/3",
            "/dev/fd/3",
            "/proc/self/exe",
            "/tmp/root/etc/passwd",
            "/tmp/cwd/etc/passwd",
        ];
        for p in magic {
            assert_eq!(kind(*client.read_file(p).unwrap_err()), "MagicLink", "read {p}");
            assert_eq!(kind(client.write_file(p, b"x", true)), "MagicLink", "write {p}");
            let stat = client.fs(FsOp::Stat { path: path(p), follow_symlink: true });
            assert_eq!(kind(stat), "MagicLink", "stat {p}");
        }
        // Looking at such a link is harmless, and ordinary files of procfs are files.
        assert_eq!(stat(&mut client, "/proc/self/exe").kind, "symlink");
        assert!(client.read_file("/proc/self/status").unwrap().starts_with(b"Name:"));
        assert!(client.read_file("/proc/mounts").unwrap().len() > 100);
    });
}

#[test]
fn reading_what_is_no_file_is_refused_without_waiting_for_it() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        client.sh("mkfifo /tmp/fifo; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('/tmp/sock')\" || mkfifo /tmp/sock");
        for p in ["/tmp/fifo", "/tmp/sock", "/dev/zero", "/dev/null", "/dev/ptmx"] {
            assert_eq!(kind(*client.read_file(p).unwrap_err()), "NotRegularFile", "read {p}");
            for atomic in [false, true] {
                assert_eq!(kind(client.write_file(p, b"x", atomic)), "NotRegularFile", "write {p}");
            }
            assert_eq!(kind(client.fs(FsOp::Copy { src: path(p), dst: path("/tmp/copy") })), "NotRegularFile");
        }
    });
}

// hazard: F8
#[test]
fn an_interrupted_atomic_write_keeps_the_old_content() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        ok(client.write_file("/tmp/f", b"old", true));
        for _ in 0..10 {
            let mut other = agent.connect();
            let id = other.id();
            let op = FsOp::WriteFile { path: path("/tmp/f"), mode: None, atomic: true, mtime: None };
            other.send(id, &Kind::FsRequest, &FsRequest { op, window: None });
            other.send(id, &Kind::FsData, &Data { data: vec![7; 1 << 20] });
        }
        until("the temporary files are gone", || {
            let mut client = agent.connect();
            list(&mut client, "/tmp").len() == 1
        });
        assert_eq!(client.read_file("/tmp/f").unwrap(), b"old");
    });
}

// hazard: F9
#[test]
fn a_large_file_goes_both_ways_with_flat_memory() {
    within(120, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        const CHUNKS: u64 = 128;
        let chunk: Vec<u8> = (0..1u32 << 20).map(|n| (n * 7 % 253) as u8).collect();
        let id = client.id();
        let op = FsOp::WriteFile { path: path("/tmp/big"), mode: None, atomic: false, mtime: None };
        client.send(id, &Kind::FsRequest, &FsRequest { op, window: None });
        let frame =
            microsandbox_protocol::frame::encode(id, Default::default(), &Kind::FsData, &Data { data: chunk.clone() })
                .unwrap();
        let peak = || {
            let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.pid())).unwrap();
            let pid = children.split_whitespace().next().unwrap().to_owned();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        for _ in 0..CHUNKS {
            std::io::Write::write_all(&mut client.stream, &frame).unwrap();
        }
        client.send(id, &Kind::FsData, &Data { data: Vec::new() });
        let done: FsResponse = client.recv().unwrap().parse().unwrap();
        assert_eq!(ok(done).bytes, Some(CHUNKS << 20));
        let id = client.id();
        let request = FsRequest { op: FsOp::ReadFile { path: path("/tmp/big") }, window: Some(2 << 20) };
        client.send(id, &Kind::FsRequest, &request);
        let (mut at, mut right) = (0usize, true);
        loop {
            let message = client.recv().unwrap();
            if message.kind == Kind::FsResponse {
                break;
            }
            let data = message.data().unwrap();
            right &= data.iter().enumerate().all(|(n, byte)| *byte == chunk[(at + n) % chunk.len()]);
            at += data.len();
            if at % (16 << 20) < data.len() {
                std::thread::sleep(Duration::from_millis(20));
            }
            client.send(id, &Kind::Credit, &Credit { bytes: data.len() as u64 });
        }
        assert!(right && at as u64 == CHUNKS << 20, "{at} bytes");
        assert!(peak() < 48 << 10, "the agent grew to {} KiB", peak());
    });
}

#[test]
fn a_read_without_credit_stops_at_its_window() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        ok(client.write_file("/tmp/f", &[5; 300_000], false));
        let id = client.id();
        let op = FsOp::ReadFile { path: path("/tmp/f") };
        client.send(id, &Kind::FsRequest, &FsRequest { op, window: Some(1000) });
        assert_eq!(client.next_data().len(), 1000);
        assert_eq!(client.ask(&Kind::Ping, &Empty {}).kind, Kind::Pong);
        client.send(id, &Kind::Credit, &Credit { bytes: 299_000 });
        let mut rest = 0;
        loop {
            let message = client.recv().unwrap();
            if message.kind == Kind::FsResponse {
                break;
            }
            rest += message.data().unwrap().len();
        }
        assert_eq!(rest, 299_000);
    });
}

#[test]
fn handles_read_write_stat_and_close() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let options =
            OpenOptions { read: true, write: true, create_new: true, mode: Some(0o600), ..OpenOptions::default() };
        let open = FsOp::OpenFile { path: path("/tmp/h"), options };
        let h = handle(client.fs(open.clone()));
        assert_eq!(kind(client.fs(open)), "EEXIST");
        ok(client.upload(FsOp::Write { handle: h, offset: 0, len: 10 }, b"0123456789"));
        ok(client.upload(FsOp::Write { handle: h, offset: 4, len: 2 }, b"xy"));
        assert_eq!(kind(client.upload(FsOp::Write { handle: h, offset: 0, len: 2 }, b"long")), "EINVAL");
        let part = client.download(FsOp::Read { handle: h, offset: 3, len: 5 }, None).unwrap();
        assert_eq!(part, b"3xy67");
        let past = client.download(FsOp::Read { handle: h, offset: 100, len: 5 }, None).unwrap();
        assert!(past.is_empty());
        let attrs = FsAttrs { size: Some(4), mode: Some(0o640), mtime: Some(1_000_000_000), ..FsAttrs::default() };
        ok(client.fs(FsOp::FSetStat { handle: h, attrs }));
        let Some(FsData::Stat(entry)) = ok(client.fs(FsOp::FStat { handle: h })).data else { panic!() };
        assert_eq!((entry.size, entry.mode & 0o777, entry.mtime), (4, 0o640, Some(1_000_000_000)));
        // Another connection has handles of its own.
        assert_eq!(kind(agent.connect().fs(FsOp::FStat { handle: h })), "EBADF");
        ok(client.fs(FsOp::CloseHandle { handle: h }));
        assert_eq!(kind(client.fs(FsOp::CloseHandle { handle: h })), "EBADF");
        let append = OpenOptions { append: true, ..OpenOptions::default() };
        let h = handle(client.fs(FsOp::OpenFile { path: path("/tmp/h"), options: append }));
        ok(client.upload(FsOp::Write { handle: h, offset: 0, len: 1 }, b"!"));
        assert_eq!(client.read_file("/tmp/h").unwrap(), b"0123!");
    });
}

#[test]
fn handles_are_bounded_and_freed_with_their_connection() {
    within(30, || {
        let agent = Agent::jailed();
        for _ in 0..3 {
            let mut client = agent.connect();
            let open = FsOp::OpenDir { path: path("/tmp") };
            for _ in 0..256 {
                handle(client.fs(open.clone()));
            }
            assert_eq!(kind(client.fs(open)), "LimitExceeded");
        }
        assert_eq!(list(&mut agent.connect(), "/tmp").len(), 0);
    });
}

// hazard: F7
#[test]
fn a_large_directory_is_listed_in_pages() {
    within(60, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        client.sh("mkdir /tmp/many; cd /tmp/many; seq -f 'file-with-a-longer-name-%06g' 1 30000 | xargs touch");
        let h = handle(client.fs(FsOp::OpenDir { path: path("/tmp/many") }));
        let mut names = std::collections::HashSet::new();
        loop {
            let page = client.fs(FsOp::ReadDir { handle: h, limit: 5000 });
            let Some(FsData::List(entries)) = ok(page).data else { panic!() };
            assert!(entries.len() <= 1000);
            if entries.is_empty() {
                break;
            }
            names.extend(entries.into_iter().map(|entry| entry.path));
        }
        assert_eq!(names.len(), 30_000);
        assert_eq!(kind(client.fs(FsOp::List { path: path("/tmp/many") })), "LimitExceeded");
    });
}

#[test]
fn links_renames_and_attributes() {
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        ok(client.fs(FsOp::Symlink { target: path("nowhere"), link_path: path("/tmp/l") }));
        let Some(FsData::Path(target)) = ok(client.fs(FsOp::ReadLink { path: path("/tmp/l") })).data else { panic!() };
        assert_eq!(target, "nowhere");
        assert_eq!(kind(client.fs(FsOp::ReadLink { path: path("/etc/passwd") })), "EINVAL");
        assert_eq!(kind(client.fs(FsOp::Stat { path: path("/tmp/l"), follow_symlink: true })), "ENOENT");
        ok(client.write_file("/tmp/a", b"a", false));
        ok(client.fs(FsOp::Rename { src: path("/tmp/a"), dst: path("/tmp/b") }));
        assert_eq!(client.read_file("/tmp/b").unwrap(), b"a");
        let attrs = FsAttrs { mode: Some(0o4711), mtime: Some(77), size: Some(3), ..FsAttrs::default() };
        ok(client.fs(FsOp::SetStat { path: path("/tmp/b"), follow_symlink: true, attrs }));
        let entry = stat(&mut client, "/tmp/b");
        assert_eq!((entry.size, entry.mode & 0o7777, entry.mtime), (3, 0o4711, Some(77)));
        let attrs = FsAttrs { uid: Some(u32::MAX), ..FsAttrs::default() };
        assert_eq!(kind(client.fs(FsOp::SetStat { path: path("/tmp/b"), follow_symlink: true, attrs })), "EINVAL");
        client.sh("ln -s /tmp/b /tmp/c; mkdir -p /tmp/x/y; ln -s /tmp/x /tmp/z");
        let attrs = FsAttrs { mtime: Some(88), ..FsAttrs::default() };
        ok(client.fs(FsOp::SetStat { path: path("/tmp/c"), follow_symlink: false, attrs }));
        assert_eq!(stat(&mut client, "/tmp/b").mtime, Some(77));
        assert_eq!(stat(&mut client, "/tmp/c").mtime, Some(88));
        let Some(FsData::Path(real)) = ok(client.fs(FsOp::RealPath { path: path("/tmp/z/y/../y/.") })).data else {
            panic!()
        };
        assert_eq!(real, "/tmp/x/y");
        ok(client.fs(FsOp::Remove { path: path("/tmp/c") }));
        assert_eq!(client.read_file("/tmp/b").unwrap().len(), 3);
        assert_eq!(kind(client.fs(FsOp::Remove { path: path("/tmp/x") })), "EISDIR");
        if is_root() {
            let attrs = FsAttrs { uid: Some(1000), gid: Some(50), ..FsAttrs::default() };
            ok(client.fs(FsOp::SetStat { path: path("/tmp/b"), follow_symlink: true, attrs }));
            let entry = stat(&mut client, "/tmp/b");
            assert_eq!((entry.uid, entry.gid), (1000, 50));
        }
    });
}

#[test]
fn removing_a_tree_follows_no_link_and_has_no_depth_limit() {
    within(60, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        client.sh(
            "mkdir -p /tmp/keep /tmp/t/a; echo k > /tmp/keep/file; ln -s /tmp/keep /tmp/t/link; ln -s /tmp/keep /tmp/t/a/link; \
             mkfifo /tmp/t/fifo; cd /tmp/t; i=0; while [ $i -lt 600 ]; do mkdir d; cd -P d; : > f; i=$((i+1)); done",
        );
        assert_eq!(kind(client.fs(FsOp::RemoveDir { path: path("/tmp/t"), recursive: false })), "ENOTEMPTY");
        assert_eq!(kind(client.fs(FsOp::RemoveDir { path: path("/tmp/t/link"), recursive: true })), "ENOTDIR");
        ok(client.fs(FsOp::RemoveDir { path: path("/tmp/t"), recursive: true }));
        assert_eq!(client.sh("ls /tmp; cat /tmp/keep/file").text(), "keep\nk\n");
        let proc = client.fs(FsOp::RemoveDir { path: path("/dev"), recursive: true });
        assert_eq!(kind(proc), "EBUSY", "another file system inside is not entered");
    });
}

// hazard: F5
#[test]
fn copies_keep_links_holes_modes_and_times_and_follow_nothing() {
    within(60, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        client.sh(
            "mkdir -p /tmp/s/sub; cd /tmp/s; echo data > file; chmod 4755 file; ln -s /etc/passwd abs; ln -s ../../../.. up; \
             ln -s self self; mkfifo fifo; truncate -s 1T sparse; echo tail | dd of=sparse bs=1 seek=1000000 conv=notrunc 2>/dev/null; \
             touch -d @1000 file sub; chmod 700 sub; touch -d @1000 sub",
        );
        ok(client.fs(FsOp::Copy { src: path("/tmp/s"), dst: path("/tmp/c") }));
        let entry = stat(&mut client, "/tmp/c/file");
        assert_eq!((entry.mode & 0o7777, entry.mtime), (0o4755, Some(1000)));
        let entry = stat(&mut client, "/tmp/c/sub");
        assert_eq!((entry.mode & 0o7777, entry.mtime), (0o700, Some(1000)));
        let ran = client.sh("cd /tmp/c; readlink abs up self; stat -c %F fifo; stat -c %s sparse; [ $(stat -c %b sparse) -lt 100 ] && echo holes; \
                             dd if=sparse bs=1 skip=1000000 count=5 2>/dev/null");
        assert_eq!(ran.text(), "/etc/passwd\n../../../..\nself\nfifo\n1099511627776\nholes\ntail\n");
        assert_eq!(kind(client.fs(FsOp::Copy { src: path("/tmp/s"), dst: path("/tmp/s/sub/inside") })), "EINVAL");
        ok(client.fs(FsOp::Copy { src: path("/tmp/s/abs"), dst: path("/tmp/passwd") }));
        assert_eq!(client.read_file("/tmp/passwd").unwrap(), client.read_file("/etc/passwd").unwrap());
        // Over an existing file, and a tree with a device in it.
        ok(client.fs(FsOp::Copy { src: path("/tmp/s/file"), dst: path("/tmp/passwd") }));
        assert_eq!(client.read_file("/tmp/passwd").unwrap(), b"data\n");
        assert_eq!(kind(client.fs(FsOp::Copy { src: path("/tmp/s/file"), dst: path("/tmp/c") })), "EISDIR");
        ok(client.fs(FsOp::Copy { src: path("/proc/version"), dst: path("/tmp/version") }));
        assert!(stat(&mut client, "/tmp/version").size > 10);
    });
}

/// Four copies fill every worker; programs start as fast as ever.
#[test]
fn file_work_never_delays_a_program() {
    within(60, || {
        let agent = Agent::jailed();
        let mut setup = agent.connect();
        setup.sh("mkdir /tmp/many; cd /tmp/many; seq 1 4000 | xargs touch");
        let mut busy = agent.connect();
        for n in 0..8 {
            let id = busy.id();
            let op = FsOp::Copy { src: path("/tmp/many"), dst: format!("/tmp/copy{n}") };
            busy.send(id, &Kind::FsRequest, &FsRequest { op, window: None });
        }
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let begin = Instant::now();
            setup.exec(&program("/bin/true", &[]));
            slowest = slowest.max(begin.elapsed());
        }
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
        for _ in 0..8 {
            ok(busy.recv().unwrap().parse().unwrap());
        }
    });
}

#[test]
fn a_full_disk_is_no_space_and_leaves_nothing_half_written() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let ran = client.sh("mkdir /tmp/small; mount -t tmpfs -o size=1m tmpfs /tmp/small");
        assert_eq!(ran.exit().code, 0, "{}", String::from_utf8_lossy(&ran.stderr));
        ok(client.write_file("/tmp/small/f", b"old", true));
        let response = client.write_file("/tmp/small/f", &vec![1; 3 << 20], true);
        assert_eq!(kind(response), "NoSpace");
        assert_eq!(client.read_file("/tmp/small/f").unwrap(), b"old");
        assert_eq!(list(&mut client, "/tmp/small").len(), 1);
        assert_eq!(client.sh("mount -o remount,bind,ro /tmp/small").exit().code, 0);
        assert_eq!(kind(client.write_file("/tmp/small/f", b"x", true)), "ReadOnly");
    });
}

#[test]
fn too_many_concurrent_calls_are_refused() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let ids: Vec<u32> = (0..70).map(|_| client.id()).collect();
        for id in &ids {
            let op = FsOp::WriteFile { path: format!("/tmp/w{id}"), mode: None, atomic: true, mtime: None };
            client.send(*id, &Kind::FsRequest, &FsRequest { op, window: None });
        }
        for _ in 0..6 {
            assert_eq!(client.recv().unwrap().parse::<CoreError>().unwrap().kind, "too_many");
        }
        for id in &ids[..64] {
            client.send(*id, &Kind::FsData, &Data { data: Vec::new() });
        }
        for _ in 0..64 {
            ok(client.recv().unwrap().parse().unwrap());
        }
    });
}

#[test]
fn a_name_that_is_not_utf8_is_a_name() {
    use microsandbox_protocol::names::{to_bytes, to_text};
    within(20, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        let at = |name: &[u8]| to_text(&[b"/tmp/", name].concat()).into_owned();
        client.sh(r"mkdir /tmp/$(printf 'd\351') && printf hello > /tmp/$(printf 'd\351/f\377')");
        let listed = list(&mut client, &at(b"d\xe9"));
        assert_eq!(listed.len(), 1);
        assert_eq!(&*to_bytes(&listed[0].path), b"/tmp/d\xe9/f\xff");
        assert_eq!(client.read_file(&listed[0].path).unwrap(), b"hello");
        // The character that stands for the byte is a name of its own.
        assert_eq!(kind(client.fs(FsOp::Stat { path: at("d\u{10fee9}".as_bytes()), follow_symlink: true })), "ENOENT");
        for atomic in [false, true] {
            ok(client.write_file(&at(b"d\xe9/g\x80"), b"more", atomic));
        }
        ok(client.fs(FsOp::Symlink { target: to_text(b"g\x80").into_owned(), link_path: at(b"d\xe9/l\xfe") }));
        let said = ok(client.fs(FsOp::ReadLink { path: at(b"d\xe9/l\xfe") })).data;
        assert_eq!(said, Some(FsData::Path(to_text(b"g\x80").into_owned())));
        let real = ok(client.fs(FsOp::RealPath { path: at(b"d\xe9/l\xfe") })).data;
        assert_eq!(real, Some(FsData::Path(at(b"d\xe9/g\x80"))));
        ok(client.write_file(&at(b"d\xe9/l\xfe"), b"through the link", true));
        assert_eq!(client.sh(r"cat /tmp/$(printf 'd\351/g\200')").stdout, b"through the link");
        ok(client.fs(FsOp::Mkdir { path: at(b"d\xe9/\xf0/\xf1"), mode: None }));
        ok(client.fs(FsOp::Copy { src: at(b"d\xe9/g\x80"), dst: at(b"d\xe9/\xf0/\xf1/c") }));
        ok(client.fs(FsOp::Rename { src: at(b"d\xe9/\xf0"), dst: at(b"d\xe9/\xf2") }));
        ok(client.fs(FsOp::Copy { src: at(b"d\xe9"), dst: path("/tmp/e") }));
        assert_eq!(
            client.sh(r"cd /tmp/e && ls -b . $(printf '\362/\361') | sort").text().lines().last(),
            Some(r"l\376")
        );
        ok(client.fs(FsOp::RemoveDir { path: at(b"d\xe9/\xf2"), recursive: true }));
        ok(client.fs(FsOp::Remove { path: at(b"d\xe9/l\xfe") }));
        let left: Vec<Vec<u8>> =
            list(&mut client, &at(b"d\xe9")).iter().map(|e| to_bytes(&e.path)[8..].to_vec()).collect();
        assert_eq!(left, [b"f\xff".to_vec(), b"g\x80".to_vec()]);
    });
}
