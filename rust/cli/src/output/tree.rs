//! `--tree`: verbs and flags below a verb, on one page.

use std::ffi::OsString;
use std::fmt::Write;

use clap::Command;

/// The tree, if `args` contain `--tree`. Checked before parsing, so that missing arguments do not matter; words after
/// `--` belong to the guest.
pub fn asked(args: &[OsString]) -> Option<String> {
    let own: Vec<&OsString> = args.iter().skip(1).take_while(|word| *word != "--").collect();
    if !own.iter().any(|word| *word == "--tree") {
        return None;
    }
    let mut grammar = crate::app::grammar();
    grammar.build();
    let mut at = &grammar;
    let mut path = vec!["msb".to_owned()];
    for word in own {
        let Some(next) = word.to_str().and_then(|word| at.find_subcommand(word)) else { continue };
        path.push(next.get_name().to_owned());
        at = next;
    }
    let mut tree = format!("{}\n", path.join(" "));
    describe(at, "", &mut tree);
    Some(tree)
}

fn describe(command: &Command, indent: &str, tree: &mut String) {
    let verbs: Vec<&Command> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
    let flags: Vec<String> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && !argument.is_global_set())
        .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
        .map(ToString::to_string)
        .collect();
    let count = flags.len() + verbs.len();
    for (index, flag) in flags.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(tree, "{indent}{} {flag}", branch(index, count));
    }
    for (index, verb) in verbs.iter().enumerate() {
        let at = flags.len() + index;
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(tree, "{indent}{} {}  {about}", branch(at, count), verb.get_name());
        let below = if at + 1 == count { "   " } else { "│  " };
        describe(verb, &format!("{indent}{below}"), tree);
    }
}

fn branch(index: usize, count: usize) -> &'static str {
    if index + 1 == count { "└─" } else { "├─" }
}
