use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use microsandbox_rooted::by_hand;
use microsandbox_rooted::open::{Rule, is_magic_link, open};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::deep;

fn tree(top: &Path) {
    std::fs::create_dir_all(top.join("a/b")).unwrap();
    std::fs::write(top.join("a/f"), "x").unwrap();
    for (target, link) in
        [("/", "root"), ("../../..", "a/up"), ("b", "a/s"), ("loop", "loop"), ("/etc", "a/etc"), ("a/f", "file")]
    {
        symlink(target, top.join(link)).unwrap();
    }
}

/// What the descriptor is, relative to the top; or the error.
fn place(top: &Path, opened: Result<std::os::fd::OwnedFd, Errno>) -> Result<String, Errno> {
    use std::os::fd::AsRawFd;
    let opened = opened?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).unwrap();
    Ok(real.strip_prefix(top).unwrap_or(&real).to_string_lossy().into_owned())
}

#[test]
fn the_kernel_and_the_walk_by_hand_agree_under_every_rule() {
    let scratch = tempfile::tempdir().unwrap();
    let top = scratch.path().canonicalize().unwrap();
    tree(&top);
    let root = deep::open(&top);
    let paths = [
        "a/b",
        "/a/f",
        "a/f/",
        "a/b/",
        ".",
        "/",
        "..",
        "../a",
        "a/../..",
        "a/s",
        "a/up",
        "a/up/a/f",
        "root/a/b",
        "loop",
        "a/etc/passwd",
        "file",
        "nope",
        "a/nope",
        "a/b/../f",
        "a/f/..",
        "file/x",
    ];
    for rule in [Rule::INSIDE, Rule::PLAIN, Rule::BENEATH, Rule::STRICT] {
        for path in paths {
            for flags in [OFlags::PATH, OFlags::PATH | OFlags::NOFOLLOW, OFlags::RDONLY] {
                let flags = flags | OFlags::CLOEXEC;
                let kernel = place(&top, open(&root, path, flags, Mode::empty(), rule));
                let path_bytes = std::ffi::OsStr::new(path).as_bytes();
                let hand = place(&top, by_hand::open(root.as_fd(), path_bytes, flags, Mode::empty(), rule));
                assert_eq!(kernel, hand, "{path} {rule:?} {flags:?}");
                if let Ok(place) = &kernel {
                    assert!(!place.starts_with('/'), "{path} led to {place}");
                }
            }
        }
    }
}

#[test]
fn each_rule_refuses_what_it_says() {
    let scratch = tempfile::tempdir().unwrap();
    tree(scratch.path());
    let root = deep::open(scratch.path());
    let error = |path: &str, rule| open(&root, path, OFlags::RDONLY, Mode::empty(), rule).err();
    assert_eq!(error("a/up/a/f", Rule::INSIDE), None);
    assert_eq!(error("file", Rule::PLAIN), Some(Errno::LOOP));
    assert_eq!(error("../x", Rule::BENEATH), Some(Errno::XDEV));
    assert_eq!(error("/a", Rule::BENEATH), Some(Errno::XDEV));
    assert_eq!(error("a/up", Rule::BENEATH), Some(Errno::XDEV));
    assert_eq!(error("file", Rule::BENEATH), None);
    assert_eq!(error("file", Rule::STRICT), Some(Errno::LOOP));
}

#[test]
fn a_strict_rule_stays_on_its_file_system() {
    let root = deep::open(Path::new("/"));
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    assert_eq!(
        open(&root, "proc/self", flags | OFlags::NOFOLLOW, Mode::empty(), Rule::STRICT).err(),
        Some(Errno::XDEV)
    );
    let by_hand = by_hand::open(root.as_fd(), b"proc/version", flags, Mode::empty(), Rule::STRICT);
    assert_eq!(by_hand.err(), Some(Errno::XDEV));
}

#[test]
fn magic_links_are_refused_and_told_apart_from_loops() {
    let scratch = tempfile::tempdir().unwrap();
    tree(scratch.path());
    let root = deep::open(Path::new("/"));
    let opened = open(&root, "/proc/self/root/etc", OFlags::RDONLY, Mode::empty(), Rule::INSIDE);
    assert_eq!(opened.err(), Some(Errno::LOOP));
    assert!(is_magic_link(&root, "/proc/self/root/etc", OFlags::RDONLY));
    let tree = deep::open(scratch.path());
    assert_eq!(open(&tree, "loop", OFlags::RDONLY, Mode::empty(), Rule::INSIDE).err(), Some(Errno::LOOP));
    assert!(!is_magic_link(&tree, "loop", OFlags::RDONLY));
}
