//! Every verb against sandboxes in memory: what is printed, what is returned, what is left behind.

mod support;

use std::time::{Duration, Instant};

use microsandbox_core::backend::MemoryBackend;
use microsandbox_core::{MicrosandboxError, SharedBackend};
use microsandbox_fake::ScriptResult;
use support::{Ran, msb, msb_with_input, snapshot};

fn memory() -> (MemoryBackend, SharedBackend) {
    let memory = MemoryBackend::new();
    let shared: SharedBackend = std::sync::Arc::new(memory.clone());
    (memory, shared)
}

/// A running sandbox `name`.
fn created(backend: &SharedBackend, name: &str, more: &[&str]) {
    let words = [&["create", "host", "-q", "-n", name][..], more].concat();
    assert_eq!(msb(backend, &words), Ran { code: 0, out: format!("{name}\n"), err: String::new() });
}

fn names(backend: &SharedBackend) -> Vec<String> {
    msb(backend, &["list", "-q"]).out.lines().map(str::to_owned).collect()
}

fn status(backend: &SharedBackend, name: &str) -> String {
    let ran = msb(backend, &["inspect", name, "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    report["status"].as_str().unwrap().to_owned()
}

mod run {
    use super::*;

    #[test]
    fn output_and_status_are_the_programs_own_and_nothing_is_left() {
        let (_, backend) = memory();
        let ran = msb(&backend, &["run", "-q", "host", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!(ran, Ran { code: 7, out: "out\n".into(), err: "err\n".into() });
        assert_eq!(names(&backend), Vec::<String>::new());
    }

    #[test]
    fn a_program_that_is_not_there_is_127_and_nothing_is_left() {
        let (_, backend) = memory();
        let ran = msb(&backend, &["run", "-q", "host", "--", "no-such-program"]);
        assert_eq!(ran.code, 127, "{ran:?}");
        assert!(ran.err.starts_with("error: ") && ran.err.contains("no-such-program"), "{}", ran.err);
        assert_eq!(names(&backend), Vec::<String>::new());
    }

    #[test]
    fn input_is_streamed_to_the_program() {
        let (_, backend) = memory();
        let input = b"line\n".repeat(20_000);
        let ran = msb_with_input(|| backend.clone(), &["run", "-q", "host", "--", "cat"], &input);
        assert_eq!((ran.code, ran.out.len()), (0, input.len()), "{}", ran.err);
        assert!(ran.out.as_bytes() == input);
        let ran = msb_with_input(|| backend.clone(), &["run", "-q", "--no-stdin", "host", "--", "cat"], &input);
        assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    }

    #[test]
    fn a_time_limit_is_status_1_and_says_so() {
        let (_, backend) = memory();
        let begun = Instant::now();
        let ran = msb(&backend, &["run", "-q", "--timeout", "200ms", "host", "--", "sleep", "60"]);
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(ran.code, 1);
        snapshot("error-exec-timeout", &ran.page());
        assert_eq!(names(&backend), Vec::<String>::new());
    }

    #[test]
    fn timings_go_to_standard_error() {
        let (_, backend) = memory();
        let ran = msb(&backend, &["run", "-q", "--timings", "host", "--", "echo", "out"]);
        let err = "timings: nothing was booted for this run\n";
        assert_eq!(ran, Ran { code: 0, out: "out\n".into(), err: err.into() }, "memory boots nothing");
    }

    #[test]
    fn a_named_one_stays_stopped_and_is_used_again() {
        let (_, backend) = memory();
        let write = "echo kept > /tmp/file";
        assert_eq!(msb(&backend, &["run", "-q", "host", "--name", "box", "--", "sh", "-c", write]).code, 0);
        assert_eq!(status(&backend, "box"), "Stopped");
        let ran = msb(&backend, &["run", "--name", "box", "-m", "1G", "-e", "A=B", "--", "cat", "/tmp/file"]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "kept\n"));
        snapshot("run-reuse-warning", &ran.page());
        assert_eq!(status(&backend, "box"), "Stopped");
    }

    #[test]
    fn one_that_ran_before_runs_on() {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        assert_eq!(msb(&backend, &["run", "-q", "--name", "box", "--", "true"]).code, 0);
        assert_eq!(status(&backend, "box"), "Running");
    }

    #[test]
    fn replace_makes_it_anew() {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        assert_eq!(msb(&backend, &["exec", "box", "--", "sh", "-c", "echo old > /tmp/file"]).code, 0);
        let ran = msb(&backend, &["run", "-q", "host", "--name", "box", "--replace", "--", "cat", "/tmp/file"]);
        assert_eq!(ran.code, 1, "{ran:?}");
    }

    #[test]
    fn in_the_background_the_name_is_printed_and_the_sandbox_stays() {
        let (_, backend) = memory();
        let ran = msb(&backend, &["run", "-q", "-d", "host", "--", "sleep", "60"]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        let name = ran.out.trim().to_owned();
        assert!(name.starts_with("msb-") && name.len() == 12, "{name}");
        assert_eq!(status(&backend, &name), "Running");
        assert_eq!(msb(&backend, &["rm", "-f", "-q", &name]).code, 0);
        let missing = msb(&backend, &["run", "-q", "-d", "host", "--", "no-such-program"]);
        assert_eq!((missing.code, missing.out.as_str()), (127, ""));
        assert_eq!(names(&backend), Vec::<String>::new());
    }

    #[test]
    fn without_a_program_and_a_terminal_the_way_out_is_shown() {
        let (_, backend) = memory();
        let ran = msb(&backend, &["run", "-q", "host"]);
        assert_eq!(ran.code, 1);
        snapshot("error-no-default-command", &ran.page());
        assert_eq!(names(&backend), Vec::<String>::new());
    }

    #[test]
    fn flags_of_things_to_come_are_refused_by_name() {
        let (_, backend) = memory();
        let flags: [&[&str]; 7] = [
            &["-p", "8080:80"],
            &["-v", "/tmp:/data"],
            &["--net", "none"],
            &["--secret", "KEY@host"],
            &["--init", "auto"],
            &["--from-snapshot", "s"],
            &["--copy", "/etc/hostname:/b"],
        ];
        let mut page = String::new();
        for flag in flags {
            let ran = msb(&backend, &[&["run"], flag, &["host", "--", "true"]].concat());
            assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{flag:?}");
            page.push_str(&ran.err);
        }
        snapshot("error-unsupported-flags", &page);
        assert_eq!(names(&backend), Vec::<String>::new());
    }

    #[test]
    fn a_demand_that_cannot_be_met_creates_nothing() {
        let (memory, backend) = memory();
        let refusal = MicrosandboxError::IsolationUnavailable {
            demanded: "microvm".into(),
            reason: "there is no /dev/kvm".into(),
            hint: "load the kvm module".into(),
        };
        memory.fail_next("create", refusal);
        let ran = msb(&backend, &["run", "--require-microvm", "host", "--", "true"]);
        assert_eq!(ran.code, 1);
        snapshot("error-isolation-unavailable", &ran.page());
    }

    #[test]
    fn the_programs_surroundings_are_as_asked_for() {
        let (_, backend) = memory();
        let flags = ["run", "-q", "-e", "A=1=2", "-w", "/tmp", "host", "--", "sh", "-c", "echo $A; pwd"];
        assert_eq!(msb(&backend, &flags).out, "1=2\n/tmp\n");
    }
}

mod exec {
    use super::*;

    #[test]
    fn the_status_is_passed_on() {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        for code in [0, 1, 2, 42, 126, 127, 255] {
            let ran = msb(&backend, &["exec", "box", "--", "sh", "-c", &format!("exit {code}")]);
            assert_eq!((ran.code, ran.err.as_str()), (code, ""));
        }
    }

    #[test]
    fn kinds_of_failed_starts_have_their_status() {
        let (memory, backend) = memory();
        created(&backend, "box", &[]);
        for (kind, code) in [("not_found", 127), ("permission_denied", 126), ("not_executable", 126), ("bad_cwd", 1)] {
            let failure = microsandbox_core::error::ExecFailure {
                kind: kind.into(),
                message: format!("cannot start: {kind}"),
                errno: None,
                errno_name: None,
                stage: None,
            };
            memory.fail_next("exec_stream", MicrosandboxError::ExecFailed(Box::new(failure)));
            let ran = msb(&backend, &["exec", "box", "--", "true"]);
            assert_eq!((ran.code, ran.err.as_str()), (code, format!("error: cannot start: {kind}\n").as_str()));
        }
    }

    #[test]
    fn a_stopped_sandbox_is_started_for_the_call_only() {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        assert_eq!(msb(&backend, &["stop", "-q", "box"]).code, 0);
        let ran = msb(&backend, &["exec", "box", "--", "echo", "hi"]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "hi\n"));
        assert_eq!(status(&backend, "box"), "Stopped");
    }

    #[test]
    fn output_that_is_not_text_arrives_as_it_is() {
        let (memory, backend) = memory();
        created(&backend, "box", &[]);
        let bytes: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
        let output = bytes.clone();
        memory.script("bytes", move |_| ScriptResult { stdout: output.clone().into(), ..ScriptResult::default() });
        let collected = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let console = microsandbox_cli::Console {
            input: microsandbox_cli::Input::Bytes(bytes::Bytes::new()),
            out: collected.clone(),
            err: collected.clone(),
            in_is_terminal: false,
            out_is_terminal: false,
            err_is_terminal: false,
            may_color: false,
        };
        let words = ["msb", "exec", "box", "--", "bytes"].map(Into::into).to_vec();
        assert_eq!(microsandbox_cli::run_with(words, console, || backend.clone()), 0);
        assert!(*collected.lock().unwrap() == bytes);
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_program_quietly() {
        struct Gone;
        impl std::io::Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        let err = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let console = microsandbox_cli::Console {
            input: microsandbox_cli::Input::Bytes(bytes::Bytes::new()),
            out: std::sync::Arc::new(std::sync::Mutex::new(Gone)),
            err: err.clone(),
            in_is_terminal: false,
            out_is_terminal: false,
            err_is_terminal: false,
            may_color: false,
        };
        let words = ["msb", "exec", "box", "--", "sh", "-c", "seq 1 100000; sleep 60"].map(Into::into).to_vec();
        let begun = Instant::now();
        assert_eq!(microsandbox_cli::run_with(words, console, || backend.clone()), 141);
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(String::from_utf8_lossy(&err.lock().unwrap()), "");
    }
}

mod lifecycle {
    use super::*;

    #[test]
    fn names_are_printed_unless_quiet() {
        let (_, backend) = memory();
        created(&backend, "one", &[]);
        created(&backend, "two", &[]);
        assert_eq!(msb(&backend, &["stop", "one", "two", "one"]).out, "one\ntwo\n");
        assert_eq!(msb(&backend, &["start", "-q", "one"]).out, "");
        assert_eq!((status(&backend, "one"), status(&backend, "two")), ("Running".into(), "Stopped".into()));
        assert_eq!(msb(&backend, &["restart", "one", "two"]).out, "one\ntwo\n");
        assert_eq!(status(&backend, "two"), "Running");
        assert_eq!(msb(&backend, &["kill", "one"]).out, "one\n");
        assert_eq!(msb(&backend, &["wait", "one"]).out, "one\n");
        assert_eq!(msb(&backend, &["remove", "one"]).out, "one\n");
        assert_eq!(names(&backend), ["two"]);
    }

    #[test]
    fn bulk_verbs_try_every_name_and_report_each_failure() {
        let (_, backend) = memory();
        created(&backend, "one", &[]);
        let ran = msb(&backend, &["stop", "absent", "one", "gone"]);
        assert_eq!((ran.code, ran.out.as_str()), (1, "one\n"));
        snapshot("error-bulk", &ran.page());
        assert_eq!(status(&backend, "one"), "Stopped");
    }

    #[test]
    fn labels_select_too() {
        let (_, backend) = memory();
        created(&backend, "one", &["--label", "team=a", "--label", "tier=1"]);
        created(&backend, "two", &["--label", "team=a"]);
        created(&backend, "three", &[]);
        let ran = msb(&backend, &["stop", "--label", "team=a", "--label", "tier=1"]);
        assert_eq!(ran.out, "one\n");
        assert_eq!(msb(&backend, &["list", "-q", "--label", "team=a"]).out, "two\none\n");
        assert_eq!(msb(&backend, &["rm", "-f", "three", "--label", "team=a"]).code, 0);
        assert_eq!(names(&backend), Vec::<String>::new());
    }

    #[test]
    fn removing_what_runs_needs_force() {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        let ran = msb(&backend, &["remove", "box"]);
        assert_eq!(ran.code, 1);
        snapshot("error-still-running", &ran.page());
        assert_eq!(msb(&backend, &["remove", "--force", "box"]).code, 0);
    }

    #[test]
    fn a_taken_name_is_refused_with_the_ways_out() {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        let ran = msb(&backend, &["create", "host", "-n", "box"]);
        assert_eq!(ran.code, 1);
        snapshot("error-name-taken", &ran.page());
    }

    #[test]
    fn a_failed_boot_shows_the_end_of_its_console() {
        let (memory, backend) = memory();
        let failure = microsandbox_core::error::BootFailure {
            name: "box".into(),
            stage: "mount".into(),
            step: "overlay".into(),
            errno: Some(22),
            message: "mount failed: invalid argument".into(),
            hint: "the home must not be on NFS".into(),
            log_tail: "first\n\u{1b}[31mlast\n".into(),
        };
        memory.fail_next("create", MicrosandboxError::BootStart(Box::new(failure)));
        let ran = msb(&backend, &["create", "host", "-n", "box"]);
        assert_eq!(ran.code, 1);
        snapshot("error-boot", &ran.page());
    }

    #[test]
    fn waiting_has_a_limit() {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        let ran = msb(&backend, &["wait", "-t", "100ms", "box"]);
        assert_eq!(ran.code, 1);
        snapshot("error-wait", &ran.page());
    }

    #[test]
    fn ping_and_touch_answer_for_each() {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        let ran = msb(&backend, &["ping", "--touch", "box"]);
        assert!(ran.code == 0 && ran.out.starts_with("box: ") && ran.out.ends_with(" ms\n"), "{ran:?}");
        assert_eq!(msb(&backend, &["touch", "box"]).out, "box\n");
        assert_eq!(msb(&backend, &["touch", "absent"]).code, 1);
    }
}

mod tables {
    use super::*;

    #[test]
    fn nothing_there_is_said_on_stderr_and_is_empty_in_json() {
        let (_, backend) = memory();
        assert_eq!(msb(&backend, &["list"]), Ran { code: 0, out: String::new(), err: "No sandboxes found.\n".into() });
        assert_eq!(msb(&backend, &["status"]).err, "No running sandboxes found.\n");
        for verb in ["list", "status", "metrics"] {
            let ran = msb(&backend, &[verb, "--format", "json"]);
            assert_eq!(ran, Ran { code: 0, out: "[]\n".into(), err: String::new() }, "{verb}");
        }
    }

    #[test]
    fn lists_are_as_written_down() {
        let (_, backend) = memory();
        created(&backend, "one", &[]);
        created(&backend, "a-much-longer-name", &["-c", "2", "-m", "1G", "--entrypoint", "sleep"]);
        assert_eq!(msb(&backend, &["stop", "-q", "one"]).code, 0);
        snapshot("list", &msb(&backend, &["list"]).out.replace("1 second ago", "just now"));
        snapshot("status", &msb(&backend, &["status", "-a"]).page());
        snapshot("status-json", &msb(&backend, &["status", "one", "--format", "json"]).page());
        assert_eq!(msb(&backend, &["list", "-q", "--running"]).out, "a-much-longer-name\n");
        assert_eq!(msb(&backend, &["list", "-q", "--stopped"]).out, "one\n");
        assert_eq!(msb(&backend, &["ps", "-q"]).out, "a-much-longer-name\n");
    }

    #[test]
    fn the_list_has_every_page() {
        let (_, backend) = memory();
        for number in 0..120 {
            created(&backend, &format!("box-{number}"), &[]);
        }
        assert_eq!(names(&backend).len(), 120);
    }

    #[test]
    fn json_has_the_keys_of_the_specification() {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        let json = |words: &[&str]| -> serde_json::Value { serde_json::from_str(&msb(&backend, words).out).unwrap() };
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let list = json(&["list", "--format", "json"]);
        assert_eq!(keys(&list[0]), ["created_at", "image", "isolation", "name", "status"]);
        // Memory isolates nothing and says so.
        assert_eq!((list[0]["status"].as_str(), list[0]["isolation"].is_null()), (Some("Running"), true));
        let inspect = json(&["inspect", "box", "--format", "json"]);
        for key in ["name", "status", "config", "created_at", "updated_at", "isolation"] {
            assert!(keys(&inspect).contains(&key.to_owned()), "{key}");
        }
        assert_eq!(inspect["config"]["resources"]["memory_mib"], 512);
        let metrics = json(&["metrics", "box", "--format", "json"]);
        for key in ["name", "state", "cpus", "timestamp", "cpu_percent", "memory_bytes", "uptime_secs"] {
            assert!(keys(&metrics).contains(&key.to_owned()), "{key}");
        }
        assert_eq!(metrics["state"], "running");
    }

    #[test]
    fn the_context_says_where_commands_go() {
        let (_, backend) = memory();
        snapshot("context", &msb(&backend, &["context"]).page());
        snapshot("context-json", &msb(&backend, &["ctx", "--format", "json"]).page());
    }

    #[test]
    fn an_unknown_sandbox_is_status_1_with_a_hint_everywhere() {
        let (_, backend) = memory();
        let verbs: [&[&str]; 9] = [
            &["inspect", "absent"],
            &["status", "absent"],
            &["logs", "absent"],
            &["metrics", "absent"],
            &["exec", "absent", "--", "true"],
            &["start", "absent"],
            &["kill", "absent"],
            &["ping", "absent"],
            &["wait", "absent"],
        ];
        for words in verbs {
            let ran = msb(&backend, words);
            let text = "error: sandbox not found: absent\nhint: msb list shows the sandboxes that exist\n";
            assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (1, "", text), "{words:?}");
        }
    }
}

mod logs {
    use super::*;

    fn spoken() -> SharedBackend {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        let script = "echo one; echo two >&2; echo three";
        assert_eq!(msb(&backend, &["exec", "box", "--", "sh", "-c", script]).code, 0);
        backend
    }

    #[test]
    fn history_is_what_programs_wrote() {
        let backend = spoken();
        assert_eq!(msb(&backend, &["logs", "box", "--source", "stdout"]).out, "one\nthree\n");
        assert_eq!(msb(&backend, &["logs", "box", "--source", "stderr"]).out, "two\n");
        assert_eq!(msb(&backend, &["logs", "box", "--grep", "^t.o$"]).out, "two\n");
        assert_eq!(msb(&backend, &["logs", "box", "--until", "1h"]).out, "");
        assert_eq!(msb(&backend, &["logs", "box", "--tail", "0"]).out, "");
        assert_eq!(msb(&backend, &["stop", "-q", "box"]).code, 0);
        assert_eq!(msb(&backend, &["logs", "box", "--source", "stderr"]).out, "two\n");
    }

    #[test]
    fn colors_only_come_where_they_are_wanted() {
        let backend = spoken();
        assert_eq!(msb(&backend, &["logs", "box", "--source", "stderr"]).out, "two\n");
        let colored = msb(&backend, &["logs", "box", "--source", "stderr", "--color", "always"]).out;
        assert_eq!(colored, "\x1b[31mtwo\x1b[0m\n");
    }

    #[test]
    fn json_lines_have_time_source_text_and_run() {
        let backend = spoken();
        let out = msb(&backend, &["logs", "box", "--json", "--source", "stderr"]).out;
        let entry: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((entry["s"].as_str(), entry["d"].as_str()), (Some("stderr"), Some("two\n")));
        assert!(entry["id"].is_u64() && entry["t"].as_str().unwrap().ends_with('Z') && entry["e"].is_null(), "{entry}");
    }

    #[test]
    fn following_ends_with_the_sandbox() {
        let backend = spoken();
        assert_eq!(msb(&backend, &["stop", "-q", "box"]).code, 0);
        assert_eq!(msb(&backend, &["logs", "-f", "box", "--source", "stdout"]).out, "one\nthree\n");
        assert_eq!(msb(&backend, &["logs", "-f", "--tail", "1", "box", "--source", "stdout"]).out, "three\n");
    }
}

mod copy {
    use super::*;

    #[test]
    fn files_and_directories_go_in_across_and_out() {
        let (_, backend) = memory();
        created(&backend, "one", &[]);
        created(&backend, "two", &[]);
        let work = std::env::temp_dir().join(format!("msb-cli-copy-{}", std::process::id()));
        std::fs::create_dir_all(work.join("in/deep")).unwrap();
        std::fs::write(work.join("in/a.txt"), "a").unwrap();
        std::fs::write(work.join("in/deep/b.txt"), "b").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", work.join("in/link")).unwrap();
        let host = |name: &str| work.join(name).to_str().unwrap().to_owned();

        let ran = msb(&backend, &["cp", &host("in"), "one:/tmp"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.err.contains("left out, a link:"), "{}", ran.err);
        assert_eq!(msb(&backend, &["exec", "one", "--", "cat", "/tmp/in/deep/b.txt"]).out, "b");
        assert_eq!(msb(&backend, &["cp", "-q", "one:/tmp/in", "two:/tmp/across"]).code, 0);
        assert_eq!(msb(&backend, &["cp", "-q", "two:/tmp/across", &host("out")]).code, 0);
        assert_eq!(std::fs::read_to_string(work.join("out/deep/b.txt")).unwrap(), "b");
        assert_eq!(msb(&backend, &["cp", "-q", &host("in/a.txt"), "one:/tmp/renamed"]).code, 0);
        assert_eq!(msb(&backend, &["cp", "-q", "one:/tmp/renamed", &host("out")]).code, 0);
        assert_eq!(std::fs::read_to_string(work.join("out/renamed")).unwrap(), "a");
        std::fs::remove_dir_all(&work).unwrap();
    }

    #[test]
    fn what_cannot_be_copied_is_named() {
        let (_, backend) = memory();
        created(&backend, "box", &[]);
        assert_eq!(msb(&backend, &["cp", "/a", "/b"]).code, 2);
        let cases: [&[&str]; 3] = [
            &["cp", "box:/absent", "/tmp/x"],
            &["cp", "/absent/file", "box:/tmp/x"],
            &["cp", "/etc/hostname", "box:/absent/"],
        ];
        let page: String = cases
            .iter()
            .map(|words| {
                let ran = msb(&backend, words);
                assert_eq!(ran.code, 1, "{words:?}");
                ran.err
            })
            .collect();
        snapshot("error-copy", &page);
    }
}
