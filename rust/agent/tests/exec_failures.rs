//! Programs that cannot be started: each failure has a kind, a stage and a message that says what to look at.

use crate::support::*;
use microsandbox_protocol::Kind;
use microsandbox_protocol::message::*;

fn kind(client: &mut Client, request: &ExecRequest) -> (String, String, String) {
    let ran = client.exec(request);
    let failed = ran.failure();
    (failed.kind.clone(), failed.stage.clone().unwrap(), failed.message.clone())
}

// hazard: X8
#[test]
fn every_kind_of_unusable_program_has_its_error_kind() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        client.sh(
            "cd /tmp; echo text > noexec; printf 'no magic' > format; printf '#!/no/such/interpreter\\n' > interp; \
             printf '#!/bin/sh\\r\\necho\\n' > crlf; : > empty; mkdir dir; \
             head -c 20 /bin/true > arch; printf '\\267' | dd of=arch bs=1 seek=18 conv=notrunc 2>/dev/null; \
             sed 's,/lib64/ld-linux,/lib64/no-linux,' /bin/true > loader; \
             chmod +x format interp crlf empty arch loader",
        );
        let mut check = |cmd: &str, kind_: &str, hint: &str| {
            let (kind, stage, message) = kind(&mut client, &program(cmd, &[]));
            assert_eq!((kind.as_str(), stage.as_str()), (kind_, "exec"), "{cmd}: {message}");
            assert!(message.contains(hint), "{cmd}: {message}");
        };
        check("no-such-program", "not_found", "PATH");
        check("/no/such/program", "not_found", "/no/such/program");
        check("/tmp/noexec/x", "not_found", "");
        check("/tmp/noexec", "permission_denied", "may not be executed");
        check("/tmp/dir", "permission_denied", "");
        check("/tmp/format", "not_executable", "neither an ELF program nor a script");
        check("/tmp/empty", "not_executable", "empty");
        check("/tmp/interp", "not_found", "interpreter `/no/such/interpreter`");
        check("/tmp/crlf", "not_found", "CR");
        check("/tmp/arch", "not_executable", "aarch64");
        check("/tmp/loader", "not_found", "ELF interpreter");
        check("", "bad_args", "empty");
        check("a\0b", "bad_args", "NUL");
        assert_eq!(client.sh("echo fine").text(), "fine\n");
    });
}

// hazard: A4
#[test]
fn a_bad_working_directory_is_refused() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        client.sh(
            "cd /tmp; : > file; ln -s loop2 loop; ln -s loop loop2; mkdir -m 700 private; ln -s /proc/self/cwd magic",
        );
        let bad = [
            "/missing",
            "/tmp/file",
            "/tmp/loop",
            "/proc/self/fd/3",
            "/proc/self/root",
            "/proc/1/cwd",
            "/tmp/magic",
            "",
        ];
        for cwd in bad {
            let request = ExecRequest { cwd: Some(cwd.into()), ..program("pwd", &[]) };
            let (kind, stage, message) = kind(&mut client, &request);
            assert_eq!((kind.as_str(), stage.as_str()), ("bad_cwd", "chdir"), "{cwd}: {message}");
        }
        let up = ExecRequest { cwd: Some("../../..".into()), ..program("pwd", &[]) };
        assert_eq!(client.exec(&up).text(), "/\n");
        if !is_root() {
            eprintln!("skipped: another user needs more than one mapped id");
            return;
        }
        let request =
            ExecRequest { cwd: Some("/tmp/private".into()), user: Some("alice".into()), ..program("pwd", &[]) };
        assert_eq!(kind(&mut client, &request).0, "bad_cwd");
    });
}

// hazard: A5
#[test]
fn users_are_resolved_strictly() {
    within(30, || {
        let agent = Agent::jailed();
        let mut client = agent.connect();
        for user in ["0:0:0", "1e3", "-1", "4294967295", "root\n", "nobody-here", "root:nogroup-here", "", ":", "1000:"]
        {
            let request = ExecRequest { user: Some(user.into()), ..program("id", &[]) };
            let (kind, stage, message) = kind(&mut client, &request);
            assert_eq!((kind.as_str(), stage.as_str()), ("user_setup_failed", "user"), "{user:?}: {message}");
        }
        if !is_root() {
            let request = ExecRequest { user: Some("1000".into()), ..program("id", &[]) };
            let (kind, _, message) = kind(&mut client, &request);
            assert_eq!(kind, "user_setup_failed");
            assert!(message.contains("single user id"), "{message}");
            eprintln!("skipped: other users need more than one mapped id");
            return;
        }
        let mut ids = |user: &str| {
            let request = ExecRequest { user: Some(user.into()), ..sh("id -u; id -g; id -G; echo $HOME $USER") };
            client.exec(&request).text()
        };
        assert_eq!(ids("alice"), "1000\n1000\n1000 50 60\n/home/alice alice\n");
        assert_eq!(ids("1000"), "1000\n1000\n1000 50 60\n/home/alice alice\n");
        assert_eq!(ids("1000:50"), "1000\n50\n50\n/home/alice alice\n");
        assert_eq!(ids("alice:staff"), "1000\n50\n50\n/home/alice alice\n");
        assert_eq!(ids("4242"), "4242\n0\n0\n/\n");
        assert_eq!(ids("root"), "0\n0\n0 60\n/root root\n");
    });
}

// hazard: A3
#[test]
fn arguments_the_kernel_cannot_take_are_bad_args() {
    within(30, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        for env in ["", "=x", "novalue", "A=\0"] {
            let request = ExecRequest { env: vec![env.into()], ..program("true", &[]) };
            assert_eq!(kind(&mut client, &request).0, "bad_args", "{env:?}");
        }
        let long = "x".repeat(200 << 10);
        let (kind_, _, message) = kind(&mut client, &program("true", &[&long]));
        assert_eq!(kind_, "bad_args", "{message}");
        // Just below the kernel's limit it arrives byte for byte.
        let value = "v".repeat(120 << 10);
        let request = ExecRequest { env: vec![format!("BIG={value}")], ..sh("printf %s \"$BIG\" | wc -c") };
        assert_eq!(client.exec(&request).text().trim(), value.len().to_string());
    });
}

#[test]
fn limits_that_cannot_be_set_are_resource_limit() {
    within(30, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let bad = [("nosuch", 1, 1), ("nofile", 9, 8), ("nofile", 1, u64::MAX - 1)];
        for (resource, soft, hard) in bad {
            let rlimits = vec![Rlimit { resource: resource.into(), soft, hard }];
            let (kind, stage, message) = kind(&mut client, &ExecRequest { rlimits, ..program("true", &[]) });
            assert_eq!((kind.as_str(), stage.as_str()), ("resource_limit", "rlimit"), "{message}");
        }
        assert_eq!(client.exec(&program("true", &[])).exit().code, 0);
    });
}

#[test]
fn a_failed_start_leaves_a_usable_connection() {
    if !is_root() {
        eprintln!("skipped: the agent lets no other user count its descriptors");
        return;
    }
    within(60, || {
        let agent = Agent::start();
        let mut client = agent.connect();
        let count = || std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
        client.sh("true");
        until("the first session is gone", || agent.connect().ask(&Kind::Ping, &Empty {}).kind == Kind::Pong);
        let before = count();
        for _ in 0..500 {
            client.exec(&program("/no/such", &[]));
        }
        assert!(count() <= before + 1, "{} descriptors, {before} before", count());
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.pid())).unwrap();
        assert_eq!(children, "");
    });
}
