use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use microsandbox_rooted::remove;
use rustix::io::Errno;

use super::deep::{DEPTH, nest, open, peak, scratch, under_each_limit, widen};

#[test]
fn fifty_thousand_levels_go_with_any_descriptor_limit() {
    under_each_limit("remove::fifty_thousand_levels_go_with_any_descriptor_limit", || {
        let scratch = scratch();
        let tree = scratch.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        nest(&tree, DEPTH);
        let before = peak();
        remove::tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(peak() - before < 8 << 20, "{} bytes more", peak() - before);
    });
}

#[test]
fn with_few_descriptors_left_a_tree_still_goes() {
    under_each_limit("remove::with_few_descriptors_left_a_tree_still_goes", || {
        let scratch = scratch();
        let tree = scratch.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        nest(&tree, 100);
        let mut taken = Vec::new();
        // Only where the limit is low: what is left is the parent, the top and two more.
        while taken.len() < 1024
            && let Ok(file) = std::fs::File::open("/dev/null")
        {
            taken.push(file);
        }
        taken.truncate(taken.len() - 4);
        remove::tree(&tree).unwrap();
        drop(taken);
        assert!(!tree.exists());
    });
}

#[test]
fn many_files_need_no_more_memory() {
    let scratch = scratch();
    let tree = scratch.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    widen(&tree);
    let before = peak();
    remove::tree(&tree).unwrap();
    assert!(!tree.exists());
    assert!(peak() - before < 4 << 20, "{} bytes more", peak() - before);
}

#[test]
fn links_are_removed_and_never_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, outside) = (scratch.path().join("tree"), scratch.path().join("outside"));
    std::fs::create_dir_all(tree.join("a")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "x").unwrap();
    symlink(&outside, tree.join("a/link")).unwrap();
    remove::tree(&tree).unwrap();
    symlink(&outside, scratch.path().join("top")).unwrap();
    remove::tree(&scratch.path().join("top")).unwrap();
    assert!(outside.join("kept").exists());
    assert!(!tree.exists() && scratch.path().join("top").symlink_metadata().is_err());
}

fn lock(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn directories_without_permissions_go_too() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    // Deeper than what is open at the same time, so that locked directories are moved as well.
    let mut path = tree.clone();
    let mut all = Vec::new();
    for _ in 0..40 {
        path.push("d");
        all.push(path.clone());
    }
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("f"), "x").unwrap();
    all.iter().rev().for_each(|path| lock(path, 0o000));
    remove::tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn a_name_that_the_removal_uses_may_be_taken() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    std::fs::create_dir_all(tree.join(".msb-removing-0/x")).unwrap();
    std::fs::write(tree.join(".msb-removing-1"), "x").unwrap();
    nest(&tree, 200);
    nest(&tree.join(".msb-removing-0/x"), 200);
    remove::tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn content_goes_and_the_directory_stays() {
    let scratch = tempfile::tempdir().unwrap();
    nest(scratch.path(), 100);
    remove::content(scratch.path()).unwrap();
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    assert_eq!(remove::tree(&scratch.path().join("absent")), Ok(()));
}

#[test]
fn a_cancelled_removal_ends() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(scratch.path().join("tree/a/b")).unwrap();
    let result = remove::directory(open(scratch.path()), b"tree", &AtomicBool::new(true));
    assert_eq!(result, Err(Errno::CANCELED));
    assert!(scratch.path().join("tree").exists());
}
