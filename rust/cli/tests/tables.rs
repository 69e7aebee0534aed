//! Tables, and the JSON in their place.

use crate::support::{Ran, created, memory, msb, names, snapshot};

#[test]
fn an_empty_list_is_a_remark_on_stderr_and_empty_json() {
    let (_, backend) = memory();
    assert_eq!(msb(&backend, &["list"]), Ran { code: 0, out: String::new(), err: "No sandboxes found.\n".into() });
    assert_eq!(msb(&backend, &["status"]).err, "No running sandboxes found.\n");
    for verb in ["list", "status", "metrics"] {
        let ran = msb(&backend, &[verb, "--format", "json"]);
        assert_eq!(ran, Ran { code: 0, out: "[]\n".into(), err: String::new() }, "{verb}");
    }
}

#[test]
fn lists_match_their_snapshots() {
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
    // The memory backend has no isolation.
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
fn the_context_shows_the_backend() {
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
        let text = "error: sandbox not found: absent\nhint: msb list shows the existing sandboxes\n";
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (1, "", text), "{words:?}");
    }
}

/// `text` with each match of a pattern replaced: ids, times and figures of this run.
fn masked(text: &str, patterns: &[(&str, &str)]) -> String {
    let replace = |text: String, (pattern, value): &(&str, &str)| {
        regex::Regex::new(pattern).unwrap().replace_all(&text, *value).into_owned()
    };
    patterns.iter().fold(text.to_owned(), replace)
}

const MOMENT: (&str, &str) = (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<moment>");
const AGE: (&str, &str) = (r"just now|\d+ seconds? ago", "<age>");
const ID: (&str, &str) = (r"\b[0-9a-f]{32}\b", "<id>");

#[test]
fn one_sandbox_in_full_matches_its_snapshot() {
    let (_, backend) = memory();
    created(&backend, "box", &["--label", "team=a", "-e", "A=B", "--idle-timeout", "5m"]);
    let shown = |words: &[&str]| masked(&msb(&backend, words).page(), &[MOMENT, AGE, ID]);
    snapshot("inspect-running", &shown(&["inspect", "box"]));
    assert_eq!(msb(&backend, &["stop", "-q", "box"]).code, 0);
    snapshot("inspect-stopped", &shown(&["inspect", "box"]));
    snapshot("wait-json", &shown(&["wait", "box", "--format", "json"]));
}

#[test]
fn metrics_match_their_snapshots() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    created(&backend, "stopped", &[]);
    assert_eq!(msb(&backend, &["stop", "-q", "stopped"]).code, 0);
    let figure = (r" +[\d.]+( [KMGT]?i?B|%|s)", " <figure>");
    snapshot("metrics", &masked(&msb(&backend, &["metrics", "-a"]).page(), &[(r" {2,}", "  "), figure]));
    let json = msb(&backend, &["metrics", "stopped", "box", "--format", "json"]);
    assert_eq!(json.code, 2, "one name at most");
}

#[test]
fn volumes_match_their_snapshots() {
    let (_, backend) = memory();
    assert_eq!(msb(&backend, &["volume", "create", "data", "--label", "team=a"]).out, "data\n");
    let shown = |words: &[&str]| masked(&msb(&backend, words).page(), &[MOMENT, AGE]);
    snapshot("volume-list", &shown(&["volume", "list"]));
    snapshot("volume-inspect-json", &shown(&["volume", "inspect", "data", "--format", "json"]));
    assert_eq!(msb(&backend, &["volume", "rm", "data"]).out, "data\n");
    assert_eq!(msb(&backend, &["volume", "ls"]).err, "No volumes found.\n");
}

#[test]
fn a_plan_of_changes_matches_its_snapshot() {
    let (_, backend) = memory();
    created(&backend, "box", &[]);
    let flags = ["modify", "box", "-m", "1G", "-e", "A=B", "--label", "team=a", "--dry-run"];
    snapshot("modify", &msb(&backend, &flags).page());
    snapshot("modify-json", &msb(&backend, &[&flags[..], &["--format", "json"]].concat()).page());
}
