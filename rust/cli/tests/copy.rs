//! `msb copy`.

use crate::support::{created, memory, msb, snapshot};

#[test]
fn files_and_directories_are_copied_in_across_and_out() {
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
    assert!(ran.err.contains("skipped, a symbolic link:"), "{}", ran.err);
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
fn failed_copies_are_reported_with_their_path() {
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
