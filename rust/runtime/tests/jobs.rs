//! The jobs beside launching: removing trees, probing the machine.

use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::*;
use microsandbox_contract::*;

fn remove(path: &std::path::Path) -> Report {
    let ids = IdMap::Range { base: BASE, count: 65_536 };
    let job = Job::RemoveTree(RemoveTreeSpec { version: LAUNCH_VERSION, ids, path: path.to_path_buf() });
    let mut runtime = start(&job, None);
    let report = runtime.report();
    runtime.wait();
    report
}

#[test]
fn hostile_trees_are_removed_and_nothing_else() {
    let scratch = Scratch::new("remove");
    let tree = scratch.sandbox("tree");
    let outside = scratch.sandbox("outside");
    std::fs::write(outside.join("kept"), "x").unwrap();
    symlink(&outside, tree.join("link")).unwrap();
    std::fs::create_dir_all(tree.join("locked/inner")).unwrap();
    std::fs::write(tree.join("locked/inner/file"), "x").unwrap();
    std::fs::set_permissions(tree.join("locked/inner"), PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::set_permissions(tree.join("locked"), PermissionsExt::from_mode(0o000)).unwrap();
    // Deeper than descriptors or a path could go.
    let mut at: std::os::fd::OwnedFd = std::fs::File::open(&tree).unwrap().into();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "d", 0o755.into()).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap();
    }
    for n in 0..2000 {
        std::fs::write(tree.join(format!("file{n}")), "").unwrap();
    }
    assert!(matches!(remove(&tree), Report::Done));
    assert!(!tree.exists());
    assert_eq!(read(outside.join("kept")), "x");
    assert!(matches!(remove(&tree), Report::Done), "removing what is gone is fine");
}

#[test]
fn another_file_system_is_not_entered() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("xdev");
    let tree = scratch.sandbox("tree");
    std::fs::create_dir(tree.join("mnt")).unwrap();
    rustix::mount::mount("tmpfs", tree.join("mnt"), "tmpfs", rustix::mount::MountFlags::empty(), c"size=1m").unwrap();
    std::fs::write(tree.join("mnt/kept"), "x").unwrap();
    let report = remove(&tree);
    let kept = tree.join("mnt/kept").exists();
    rustix::mount::unmount(tree.join("mnt"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(matches!(report, Report::Failed(ref error) if error.hint.contains("unmount")), "{report:?}");
    assert!(kept, "a file of another file system was removed");
}

fn probe(scratch: &std::path::Path, ids: IdMap, user: Option<User>) -> IsolationReport {
    let job =
        Job::Probe(ProbeSpec { version: LAUNCH_VERSION, ids, private_ids: Vec::new(), scratch: scratch.to_path_buf() });
    let mut runtime = start_as(&job, None, user);
    let Report::Probed(report) = runtime.report() else { panic!("not probed") };
    assert_eq!(runtime.wait(), 0);
    let left: Vec<_> = std::fs::read_dir(scratch).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    report
}

#[test]
fn a_probe_reports_what_works_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("probe");
    let place = scratch.sandbox("place");
    let report = probe(&place, IdMap::Range { base: BASE, count: 65_536 }, None);
    assert_eq!(state_of(&report, MechanismName::Container).state, MechanismState::On, "{report:?}");
    for name in ["user_namespace", "seccomp", "landlock", "tree_kill", "memory_limit", "cgroup_namespace"] {
        let line = state_of(&report, MechanismName::parse(name));
        assert!(line.state == MechanismState::On || line.reason.is_some());
    }
}

#[test]
fn a_probe_as_a_user_without_ranges_says_so() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("probeuser");
    let place = scratch.sandbox("place");
    std::os::unix::fs::chown(&place, Some(54_323), Some(54_323)).unwrap();
    let user = User { uid: 54_323, sub_ids: None };
    let report = probe(&place, IdMap::Single { uid: 54_323, gid: 54_323 }, Some(user));
    assert_eq!(state_of(&report, MechanismName::Container).state, MechanismState::On, "{report:?}");
    assert_eq!(state_of(&report, MechanismName::IdRange).state, MechanismState::Degraded);
    let ranges = IdMap::Subordinate { uid: 54_323, gid: 54_323, sub_uid: 2_000_000, sub_gid: 2_000_000, count: 10 };
    let report = probe(&place, ranges, Some(user));
    let container = state_of(&report, MechanismName::Container);
    assert_eq!(container.state, MechanismState::Off);
    assert!(container.reason.as_ref().unwrap().contains("map ids"), "{container:?}");
}
