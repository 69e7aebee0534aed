//! Changed log files to their reader: whatever a guest, a kill or a full disk left in them, every entry is given once, in the order
//! of its file, and reading goes on after any of them.

use microsandbox_core::model::LogSource;
use microsandbox_mutation::Target;

use super::line::Filter;
use super::merge::Merge;

const WORDS: &[&[u8]] = &[
    b"\n",
    b"{\"t\":\"2026-01-01T00:00:00.5Z\",\"s\":\"stdout\",\"d\":\"x\",\"id\":1}\n",
    b"\"e\":\"b64\"",
    b"\\u0000",
    b"\\ud83d",
    b"\"s\":\"system\"",
    b"2026-01-01T00:00:00Z ",
    b"9999-12-31T23:59:60Z",
    b"\"id\":18446744073709551616",
    b"\"d\":\"",
    b"+24:00",
];
const ALL: [LogSource; 4] = [LogSource::Stdout, LogSource::Stderr, LogSource::Output, LogSource::System];

fn read(directory: &std::path::Path, from: Option<&str>) -> Vec<(Vec<u8>, String)> {
    let from = from.map(|cursor| microsandbox_core::log_cursor::decode(cursor).unwrap());
    let mut merge = Merge::open(directory, Filter::new(&ALL, None, None), from.as_deref()).unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = merge.next().unwrap() {
        let _ = entry.timestamp.to_rfc3339();
        entries.push((entry.data.to_vec(), entry.cursor));
    }
    entries
}

/// The first byte says which file, and where it was rotated.
fn check(input: &[u8], directory: &std::path::Path) -> String {
    let Some((first, content)) = input.split_first() else { return String::new() };
    let file = ["exec.log", "runtime.log", "kernel.log"][usize::from(first % 3)];
    let cut = content.len() * usize::from(first / 3) / 86;
    std::fs::write(directory.join(format!("{file}.1")), &content[..cut.min(content.len())]).unwrap();
    std::fs::write(directory.join(file), &content[cut.min(content.len())..]).unwrap();
    let entries = read(directory, None);
    if let Some((_, cursor)) = entries.get(entries.len() / 2) {
        let rest = read(directory, Some(cursor));
        assert_eq!(rest, entries[entries.len() / 2 + 1..], "after {cursor}");
    }
    for name in [format!("{file}.1"), file.to_owned()] {
        std::fs::remove_file(directory.join(name)).unwrap();
    }
    format!("{} entries, {file}", entries.len())
}

#[test]
fn fuzz_logs() {
    let scratch = tempfile::tempdir().unwrap();
    Target::new("logs", WORDS).run(|input| check(input, scratch.path()));
}
