//! The grammar of the command line and its help; none of these tests uses a backend.

use crate::support::{msb_alone, snapshot, snapshots};

const VERBS: [&str; 41] = [
    "run",
    "create",
    "start",
    "stop",
    "kill",
    "restart",
    "modify",
    "pause",
    "resume",
    "remove",
    "wait",
    "exec",
    "jobs",
    "attach",
    "signal",
    "eof",
    "list",
    "status",
    "inspect",
    "logs",
    "metrics",
    "copy",
    "ping",
    "touch",
    "pull",
    "load",
    "save",
    "prune",
    "df",
    "images",
    "image",
    "registry",
    "install",
    "uninstall",
    "doctor",
    "volume",
    "profile",
    "context",
    "serve",
    "completion",
    "self",
];

/// Verbs of a help text: the first words below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs =
        lines.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    verbs.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Compares the help of the verb `path` and of every verb below it; returns the names of the snapshots.
fn helps(path: &[&str]) -> Vec<String> {
    let ran = msb_alone(&[path, &["--help"]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{path:?}");
    let name = [&["help"], path].concat().join("-");
    snapshot(&name, &ran.out);
    let below = subcommands(&ran.out);
    let below = below.iter().flat_map(|verb| helps(&[path, &[verb.as_str()]].concat()));
    std::iter::once(name).chain(below).collect()
}

#[test]
fn every_help_text_matches_its_snapshot() {
    let mut shown = helps(&[]);
    shown.sort();
    assert!(VERBS.iter().all(|verb| shown.contains(&format!("help-{verb}"))), "{shown:?}");
    assert!(shown.contains(&"help-serve-key-create".to_owned()), "{shown:?}");
    assert_eq!(snapshots("help"), shown, "snapshots of verbs that do not exist");
}

#[test]
fn the_list_of_verbs_in_this_test_is_complete() {
    assert_eq!(subcommands(&msb_alone(&["--help"]).out), VERBS);
}

#[test]
fn the_tree_matches_its_snapshot() {
    let tree = msb_alone(&["--tree"]);
    assert_eq!(tree.code, 0);
    snapshot("tree", &tree.out);
    assert!(msb_alone(&["image", "--tree"]).out.starts_with("msb image\n"));
    assert!(msb_alone(&["run", "--tree"]).out.contains("--idle-timeout"));
}

#[test]
fn version_is_printed_by_both_spellings() {
    for flag in ["--version", "-V"] {
        let ran = msb_alone(&[flag]);
        assert_eq!((ran.code, ran.out.as_str()), (0, concat!("msb ", env!("CARGO_PKG_VERSION"), "\n")));
    }
}

#[test]
fn aliases_are_the_same_verbs() {
    for (alias, verb) in [("ls", "list"), ("ps", "status"), ("rm", "remove"), ("cp", "copy"), ("ctx", "context")] {
        assert_eq!(msb_alone(&[alias, "--help"]).out, msb_alone(&[verb, "--help"]).out, "{alias}");
    }
    assert_eq!(msb_alone(&["self", "check", "--help"]).code, 0);
}

#[test]
fn an_invalid_command_line_is_status_2_with_the_reason() {
    let cases: &[(&str, &[&str])] = &[
        ("no-verb", &[]),
        ("unknown-verb", &["rnu"]),
        ("unknown-flag", &["list", "--colour"]),
        ("command-without-dashes", &["run", "host", "ls"]),
        ("no-image", &["run", "--", "ls"]),
        ("no-name", &["stop"]),
        ("bad-memory", &["create", "host", "-m", "12X"]),
        ("bad-cpus", &["create", "host", "-c", "0"]),
        ("bad-env", &["create", "host", "-e", "MSB_NOT_SET_HERE"]),
        ("bad-label", &["create", "host", "--label", "x"]),
        ("bad-rlimit", &["create", "host", "--rlimit", "nofile"]),
        ("bad-duration", &["create", "host", "--max-duration", "soon"]),
        ("bad-isolation", &["create", "host", "--isolation", "vm"]),
        ("isolation-twice", &["create", "host", "--isolation", "container", "--require-microvm"]),
        ("bad-time", &["logs", "box", "--since", "yesterday"]),
        ("bad-regex", &["logs", "box", "--grep", "("]),
        ("bad-detach-keys", &["run", "host", "--detach-keys", "ctrl-"]),
        ("fraction-of-a-mib", &["create", "host", "-m", "0.3M"]),
        ("bad-copy", &["create", "host", "--copy", "/etc/hosts"]),
        ("bad-script", &["create", "host", "--script", "=x"]),
        ("missing-script", &["create", "host", "--script-path", "x:/nonexistent/file"]),
        ("bad-scope", &["serve", "key", "create", "ci", "--scope", "everything"]),
        ("bad-signal", &["signal", "box", "--job", "1", "--signal", "65"]),
        ("detach-with-timeout", &["run", "host", "-d", "--timeout", "1s", "--", "true"]),
        ("next-start-with-restart", &["modify", "box", "--next-start", "--restart"]),
    ];
    for (name, words) in cases {
        let ran = msb_alone(words);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{words:?}");
        snapshot(&format!("usage-{name}"), &ran.err);
    }
}

#[test]
fn completion_needs_no_backend_and_knows_every_verb() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = msb_alone(&["completion", shell]);
        assert_eq!(ran.code, 0, "{shell}");
        for verb in VERBS {
            assert!(ran.out.contains(verb), "{shell}: {verb}");
        }
    }
}
