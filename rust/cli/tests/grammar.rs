//! What the command line accepts and says about itself; no backend is ever asked.

mod support;

use support::{msb_alone, snapshot};

const VERBS: [&str; 36] = [
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
    "load",
    "images",
    "image",
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

#[test]
fn every_help_text_is_as_written_down() {
    let top = msb_alone(&["--help"]);
    assert_eq!((top.code, top.err.as_str()), (0, ""));
    snapshot("help", &top.out);
    for verb in VERBS {
        let help = msb_alone(&[verb, "--help"]);
        assert_eq!((help.code, help.err.as_str()), (0, ""), "{verb}");
        snapshot(&format!("help-{verb}"), &help.out);
    }
    for verb in ["create", "list", "revoke"] {
        snapshot(&format!("help-serve-key-{verb}"), &msb_alone(&["serve", "key", verb, "--help"]).out);
    }
    for verb in ["create", "list", "inspect", "remove"] {
        snapshot(&format!("help-volume-{verb}"), &msb_alone(&["volume", verb, "--help"]).out);
    }
    for verb in ["list", "show", "use"] {
        snapshot(&format!("help-profile-{verb}"), &msb_alone(&["profile", verb, "--help"]).out);
    }
    for verb in ["list", "inspect", "load", "remove", "prune"] {
        snapshot(&format!("help-image-{verb}"), &msb_alone(&["image", verb, "--help"]).out);
    }
}

#[test]
fn the_list_of_verbs_in_this_test_is_complete() {
    let tree = msb_alone(&["--tree"]).out;
    let shown: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.strip_prefix("├─ ").or_else(|| line.strip_prefix("└─ ")))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(shown, VERBS);
}

#[test]
fn the_tree_is_as_written_down() {
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
fn a_wrong_command_line_is_status_2_and_says_what_is_wrong() {
    let cases: [(&str, &[&str]); 17] = [
        ("no-verb", &[]),
        ("unknown-verb", &["rnu"]),
        ("unknown-flag", &["list", "--colour"]),
        ("command-without-dashes", &["run", "host", "ls"]),
        ("no-image", &["run", "--", "ls"]),
        ("no-name", &["stop"]),
        ("bad-memory", &["create", "host", "-m", "12X"]),
        ("bad-cpus", &["create", "host", "-c", "0"]),
        ("bad-env", &["create", "host", "-e", "HOME"]),
        ("bad-label", &["create", "host", "--label", "x"]),
        ("bad-rlimit", &["create", "host", "--rlimit", "nofile"]),
        ("bad-duration", &["create", "host", "--max-duration", "soon"]),
        ("bad-isolation", &["create", "host", "--isolation", "vm"]),
        ("isolation-twice", &["create", "host", "--isolation", "container", "--require-microvm"]),
        ("bad-time", &["logs", "box", "--since", "yesterday"]),
        ("bad-regex", &["logs", "box", "--grep", "("]),
        ("bad-detach-keys", &["run", "host", "--detach-keys", "ctrl-"]),
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
