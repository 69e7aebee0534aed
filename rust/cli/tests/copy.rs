//! `msb copy`.

use crate::support::{created, memory, msb, snapshot};

#[test]
fn files_are_copied_in_across_and_out() {
    let (_, backend) = memory();
    created(&backend, "one", &[]);
    created(&backend, "two", &[]);
    let work = std::env::temp_dir().join(format!("msb-cli-copy-{}", std::process::id()));
    std::fs::create_dir_all(work.join("out")).unwrap();
    std::fs::write(work.join("a.txt"), "a").unwrap();
    let host = |name: &str| work.join(name).to_str().unwrap().to_owned();
    assert_eq!(msb(&backend, &["cp", &host("a.txt"), "one:/tmp"]).code, 0);
    assert_eq!(msb(&backend, &["exec", "one", "--", "cat", "/tmp/a.txt"]).out, "a");
    assert_eq!(msb(&backend, &["cp", "-q", "one:/tmp/a.txt", "two:/tmp/across"]).code, 0);
    assert_eq!(msb(&backend, &["cp", "-q", "two:/tmp/across", &host("out")]).code, 0);
    assert_eq!(std::fs::read_to_string(work.join("out/across")).unwrap(), "a");
    // This backend has no archives, as which directories are copied.
    let ran = msb(&backend, &["cp", &host("out"), "one:/tmp"]);
    assert!(ran.code == 1 && ran.err.contains("write_tar"), "{}", ran.err);
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
