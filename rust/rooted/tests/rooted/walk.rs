use std::os::unix::fs::symlink;
use std::path::Path;

use microsandbox_rooted::walk::{Bounds, Order, Step, Walk};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::deep::{DEPTH, nest, open, peak, scratch, under_each_limit, widen};

/// Paths in order; `<` where a directory was left.
fn paths(top: &Path, order: Order) -> Vec<String> {
    let mut walk = Walk::new(open(top), order, Bounds::WIDE).unwrap();
    let mut seen = Vec::new();
    while let Some(step) = walk.step() {
        seen.push(match step.unwrap() {
            Step::Entry(entry) => String::from_utf8(entry.path.to_vec()).unwrap(),
            Step::Left => "<".to_owned(),
        });
    }
    seen
}

fn small(top: &Path) {
    std::fs::create_dir_all(top.join("b/c")).unwrap();
    for file in ["a", "b/z", "b/c/f", "d"] {
        std::fs::write(top.join(file), "x").unwrap();
    }
    symlink("b", top.join("l")).unwrap();
}

#[test]
fn by_name_every_entry_comes_once_and_in_order() {
    let scratch = tempfile::tempdir().unwrap();
    small(scratch.path());
    let seen = paths(scratch.path(), Order::Name);
    assert_eq!(seen, ["a", "b", "b/c", "b/c/f", "<", "b/z", "<", "d", "l"]);
}

#[test]
fn as_found_the_files_of_a_directory_come_first() {
    let scratch = tempfile::tempdir().unwrap();
    small(scratch.path());
    let mut seen = paths(scratch.path(), Order::Found);
    assert_eq!(seen.split_off(3), ["b", "b/z", "b/c", "b/c/f", "<", "<"]);
    seen.sort_unstable();
    assert_eq!(seen, ["a", "d", "l"]);
}

#[test]
fn fifty_thousand_levels_are_walked_with_any_descriptor_limit() {
    under_each_limit("walk::fifty_thousand_levels_are_walked_with_any_descriptor_limit", || {
        let scratch = scratch();
        nest(scratch.path(), DEPTH);
        let mut walk = Walk::new(open(scratch.path()), Order::Found, Bounds::WIDE).unwrap();
        let (mut directories, mut files, mut left) = (0, 0, 0);
        while let Some(step) = walk.step() {
            match step.unwrap() {
                Step::Entry(entry) if entry.kind() == FileType::Directory => directories += 1,
                Step::Entry(_) => files += 1,
                Step::Left => left += 1,
            }
        }
        assert_eq!((directories, files, left), (DEPTH, DEPTH, DEPTH));
        microsandbox_rooted::remove::content(scratch.path()).unwrap();
    });
}

#[test]
fn bounds_end_a_walk_that_is_too_deep_or_too_wide() {
    let scratch = tempfile::tempdir().unwrap();
    nest(scratch.path(), 20);
    let bounds = Bounds { depth: 10, memory: 100_000 };
    let mut walk = Walk::new(open(scratch.path()), Order::Found, bounds).unwrap();
    let error = std::iter::from_fn(|| walk.step().map(|step| step.map(drop))).find_map(Result::err);
    assert_eq!(error, Some(Errno::OVERFLOW));
    let bounds = Bounds { depth: 100, memory: 0 };
    let mut walk = Walk::new(open(scratch.path()), Order::Name, bounds).unwrap();
    assert_eq!(walk.step().map(|step| step.map(drop)), Some(Err(Errno::OVERFLOW)));
}

/// A directory whose names alone are more than what a walk keeps.
#[test]
fn many_files_are_walked_by_name_in_bounded_memory() {
    let scratch = scratch();
    let count = widen(scratch.path());
    for directory in ["a", "z"] {
        std::fs::create_dir_all(scratch.path().join(directory).join("inner")).unwrap();
    }
    let before = peak();
    let mut walk = Walk::new(open(scratch.path()), Order::Name, Bounds::WIDE).unwrap();
    let (mut files, mut directories, mut runs, mut last) = (0, Vec::new(), 1, Vec::new());
    while let Some(step) = walk.step() {
        let Step::Entry(entry) = step.unwrap() else { continue };
        if entry.kind() == FileType::Directory {
            directories.push(String::from_utf8(entry.path.to_vec()).unwrap());
            continue;
        }
        files += 1;
        runs += usize::from(last.as_slice() > entry.path);
        last = entry.path.to_vec();
    }
    assert_eq!(files, count);
    assert_eq!(directories, ["a", "a/inner", "z", "z/inner"], "after the files, where those are many");
    assert!((2..=count / 10_000 + 1).contains(&runs), "{runs} runs");
    assert!(peak() - before < 16 << 20, "{} bytes more", peak() - before);
    microsandbox_rooted::remove::content(scratch.path()).unwrap();
}

#[test]
fn a_skipped_directory_is_not_entered() {
    let scratch = tempfile::tempdir().unwrap();
    small(scratch.path());
    let mut walk = Walk::new(open(scratch.path()), Order::Name, Bounds::WIDE).unwrap();
    let mut seen = Vec::new();
    while let Some(step) = walk.step() {
        let Step::Entry(entry) = step.unwrap() else { continue };
        seen.push(String::from_utf8(entry.path.to_vec()).unwrap());
        walk.skip();
    }
    assert_eq!(seen, ["a", "b", "d", "l"]);
}

/// The way back must not lead to where a directory was moved to.
#[test]
fn a_directory_moved_during_the_walk_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, other) = (scratch.path().join("tree"), scratch.path().join("other"));
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("secret"), "x").unwrap();
    let mut path = tree.clone();
    for level in 0..40 {
        path.push(level.to_string());
    }
    std::fs::create_dir_all(&path).unwrap();
    let mut walk = Walk::new(open(&tree), Order::Found, Bounds::WIDE).unwrap();
    while !matches!(walk.step(), Some(Ok(Step::Left))) {}
    // The first directory that was closed on the way down, by the names of those that are still there.
    let moved: std::path::PathBuf = (0..12).map(|level| level.to_string()).collect();
    std::fs::rename(tree.join(moved), other.join("here")).unwrap();
    let mut errors = Vec::new();
    while let Some(step) = walk.step() {
        match step {
            Ok(Step::Entry(entry)) => assert_ne!(entry.name.to_bytes(), b"secret"),
            Ok(Step::Left) => {}
            Err(error) => errors.push(error),
        }
    }
    assert_eq!(errors, [Errno::STALE]);
}

#[test]
fn directories_that_cannot_be_entered_cost_nothing() {
    const DIRECTORIES: usize = 1000;
    let scratch = tempfile::tempdir().unwrap();
    let mode = |bits| std::os::unix::fs::PermissionsExt::from_mode(bits);
    let places: Vec<_> = (0..DIRECTORIES).map(|number| scratch.path().join(number.to_string())).collect();
    for place in &places {
        std::fs::create_dir(place).unwrap();
        // It can be opened, but what is in it cannot be.
        std::fs::set_permissions(place, mode(0o400)).unwrap();
    }
    let top = open(scratch.path());
    // As an ordinary user; of one thread.
    let errors = std::thread::spawn(move || {
        let sets = capabilities(None).unwrap();
        set_capabilities(None, CapabilitySets { effective: CapabilitySet::empty(), ..sets }).unwrap();
        let mut walk = Walk::new(top, Order::Found, Bounds { memory: 100 << 10, ..Bounds::WIDE }).unwrap();
        let mut errors = Vec::new();
        while let Some(step) = walk.step() {
            errors.extend(step.err());
        }
        errors
    });
    let errors = errors.join().unwrap();
    for place in &places {
        std::fs::set_permissions(place, mode(0o700)).unwrap();
    }
    assert_eq!(errors, [Errno::ACCESS; DIRECTORIES]);
}
