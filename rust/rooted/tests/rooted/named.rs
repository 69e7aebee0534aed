use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use microsandbox_rooted::named::{Refusal, open_again, resolve};
use rustix::fs::OFlags;
use rustix::io::Errno;

#[test]
fn links_of_the_machine_are_followed_to_the_real_path() {
    let scratch = tempfile::tempdir().unwrap();
    let top = scratch.path().canonicalize().unwrap();
    std::fs::create_dir_all(top.join("a/b/c")).unwrap();
    symlink(top.join("a"), top.join("absolute")).unwrap();
    symlink("b/../b", top.join("a/relative")).unwrap();
    for path in ["a/b/c", "absolute/relative/./c", "a/b/../relative//c/", "absolute/../a/b/c"] {
        let found = resolve(&top.join(path), |_, _| false).unwrap();
        assert_eq!(found.path, top.join("a/b/c"), "{path}");
        assert_eq!(found.stat.st_ino, std::fs::metadata(top.join("a/b/c")).unwrap().ino());
    }
    std::fs::write(top.join("file"), "x").unwrap();
    assert_eq!(resolve(&top.join("file"), |_, _| true).unwrap().path, top.join("file"));
    assert_eq!(resolve(&top.join("file/x"), |_, _| false).unwrap_err(), Refusal::Io(Errno::NOTDIR));
    assert_eq!(resolve(&top.join("absent"), |_, _| false).unwrap_err(), Refusal::Io(Errno::NOENT));
    symlink("loop", top.join("loop")).unwrap();
    assert_eq!(resolve(&top.join("loop"), |_, _| false).unwrap_err(), Refusal::Io(Errno::LOOP));
}

#[test]
fn a_link_in_a_guests_directory_leads_nowhere_outside() {
    let scratch = tempfile::tempdir().unwrap();
    let top = scratch.path().canonicalize().unwrap();
    let work = top.join("work");
    std::fs::create_dir_all(work.join("real/deep")).unwrap();
    std::fs::create_dir(top.join("secret")).unwrap();
    symlink("real", work.join("inner")).unwrap();
    symlink("../../work/real", work.join("real/back")).unwrap();
    symlink(top.join("secret"), work.join("absolute")).unwrap();
    symlink("../secret", work.join("relative")).unwrap();
    symlink(&work, top.join("way")).unwrap();
    let guests = |path: &Path, _: &_| path == work;
    for path in ["work", "work/real/deep", "work/inner/deep", "way/inner"] {
        resolve(&top.join(path), guests).unwrap_or_else(|error| panic!("{path}: {error:?}"));
    }
    for path in ["work/absolute", "work/relative", "way/relative", "work/real/back", "way/absolute/x", "work/../secret"]
    {
        let error = resolve(&top.join(path), guests).unwrap_err();
        assert_eq!(error, Refusal::LeadsOut { directory: work.clone() }, "{path}");
    }
}

#[test]
fn what_was_resolved_is_opened_again_or_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let top = scratch.path().canonicalize().unwrap();
    std::fs::create_dir_all(top.join("a/b")).unwrap();
    let found = resolve(&top.join("a/b"), |_, _| false).unwrap();
    let again = || open_again(&found.path, (found.stat.st_dev, found.stat.st_ino), OFlags::DIRECTORY);
    again().unwrap();
    std::fs::rename(top.join("a/b"), top.join("c")).unwrap();
    assert_eq!(again().unwrap_err(), Errno::STALE);
    // The same directory by a link: a path that has become another one.
    symlink(top.join("c"), top.join("a/b")).unwrap();
    assert_eq!(again().unwrap_err(), Errno::STALE);
    std::fs::remove_file(top.join("a/b")).unwrap();
    std::fs::create_dir(top.join("a/b")).unwrap();
    assert_eq!(again().unwrap_err(), Errno::STALE);
}
