//! Removing a sandbox's directory, files of mapped ids included.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use microsandbox_contract::{IdMap, Job, LAUNCH_VERSION, RemoveTreeSpec, Report};
use microsandbox_rooted::remove;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::Home;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

/// Directories whose blocks are freed side by side; a larger tree frees the others one by one.
const HELD: usize = 24;
/// Entries of a directory that are looked at for directories to hold.
const LOOKED_AT: usize = 512;
/// Threads that free what is held.
const FREEING: usize = 4;

/// What a removed tree still occupies: no entry has a name any more; the blocks are freed when this value is freed or
/// dropped.
///
/// Some file systems wait for the disk at every directory that loses its last reference (ext4 with `discard` and no
/// journal: a millisecond and more each), under the lock of the directory above it. A directory that is held
/// open loses its name without that wait, and its blocks later, together with the others and under no lock.
#[must_use]
pub struct Remains(Vec<OwnedFd>);

impl Remains {
    /// Gives the blocks back; they are free when this returns.
    pub async fn free(self) {
        // The blocking task finishes even if this future is dropped.
        let _ = tokio::task::spawn_blocking(move || {
            let mut shares: Vec<Vec<OwnedFd>> = (0..FREEING).map(|_| Vec::new()).collect();
            for (number, directory) in self.0.into_iter().enumerate() {
                shares[number % FREEING].push(directory);
            }
            let own = shares.pop();
            std::thread::scope(|scope| {
                for share in shares.into_iter().filter(|share| !share.is_empty()) {
                    // Where no thread is to be had, the share is dropped here and now.
                    let _ = std::thread::Builder::new().spawn_scoped(scope, move || drop(share));
                }
                drop(own);
            });
        })
        .await;
    }
}

/// Removes `path` with everything beneath it; absence is fine. Where the caller may not (files of subordinate ids,
/// directories without permissions), a runtime process does it inside the id mapping.
pub async fn remove(home: &Home, path: &Path) -> MicrosandboxResult<()> {
    unlink(home, path).await?.free().await;
    Ok(())
}

/// As [`remove`], up to the point where nothing has a name any more.
pub async fn unlink(home: &Home, path: &Path) -> MicrosandboxResult<Remains> {
    let owned = path.to_owned();
    let plain = tokio::task::spawn_blocking(move || unlink_plainly(&owned)).await;
    let (done, remains) = plain.map_err(|e| MicrosandboxError::Runtime(format!("removal task: {e}")))?;
    match done {
        Ok(()) => Ok(remains),
        Err(Errno::ACCESS | Errno::PERM) => mapped(home, path).await.map(|()| remains),
        Err(error) => Err(MicrosandboxError::io("remove", path, error.into())),
    }
}

/// Removes the tree with the rights of this process. A guest may have nested directories without bound: the removal
/// neither recurses nor opens a descriptor a level.
fn unlink_plainly(path: &Path) -> (Result<(), Errno>, Remains) {
    let held = hold(path);
    match remove::tree(path) {
        // What is held may be just what the removal lacks.
        Err(Errno::MFILE | Errno::NFILE) => {
            drop(held);
            (remove::tree(path), Remains(Vec::new()))
        }
        done => (done, Remains(held)),
    }
}

/// Opens the upper levels of the tree, as far as they may be opened; no symlink is followed.
fn hold(path: &Path) -> Vec<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut held: Vec<OwnedFd> = rustix::fs::openat(CWD, path, flags, Mode::empty()).into_iter().collect();
    let mut next = 0;
    while next < held.len() && held.len() < HELD {
        let names: Vec<CString> = Dir::read_from(&held[next]).map_or_else(|_| Vec::new(), directories);
        for name in names.iter().take(HELD - held.len()) {
            held.extend(rustix::fs::openat(&held[next], name, flags, Mode::empty()));
        }
        next += 1;
    }
    held
}

fn directories(entries: Dir) -> Vec<CString> {
    let is_inner = |name: &[u8]| name != b"." && name != b"..";
    let found = entries.take(LOOKED_AT).flatten().filter(|entry| entry.file_type() == FileType::Directory);
    found.map(|entry| entry.file_name().to_owned()).filter(|name| is_inner(name.as_bytes())).collect()
}

async fn mapped(home: &Home, path: &Path) -> MicrosandboxResult<()> {
    // As root nothing is gained by the mapping, but mode-000 directories are no obstacle there either.
    let ids: IdMap = home.id_map()?;
    let job = Job::RemoveTree(RemoveTreeSpec { version: LAUNCH_VERSION, ids, path: path.to_owned() });
    let mut failed = None;
    home.run_job(&job, &[], &mut |report| {
        if let Report::Failed(error) = report {
            failed = Some(error);
        }
    })
    .await?;
    match failed {
        None => Ok(()),
        Some(error) => {
            Err(MicrosandboxError::Runtime(format!("remove {}: {}; {}", path.display(), error.message, error.hint)))
        }
    }
}

#[cfg(test)]
#[path = "../../rooted/tests/rooted/deep.rs"]
mod deep;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use microsandbox_core::config::LocalConfig;

    use super::deep::{DEPTH, nest, peak, scratch, under_each_limit};
    use super::*;

    /// H1: a guest nests directories in its overlay; their removal used to end the process that removed the sandbox.
    #[test]
    fn a_deep_sandbox_is_removed_with_any_descriptor_limit() {
        under_each_limit("tree::tests::a_deep_sandbox_is_removed_with_any_descriptor_limit", || {
            let scratch = scratch();
            let home = Home::new(LocalConfig::default_for_home(scratch.path()));
            let sandbox = home.sandbox_dir("deep");
            for part in ["upper", "work", "logs", "runtime"] {
                std::fs::create_dir_all(sandbox.join(part)).unwrap();
            }
            nest(&sandbox.join("upper"), DEPTH);
            let before = peak();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(remove(&home, &sandbox)).unwrap();
            assert!(!sandbox.exists());
            assert!(peak() - before < 16 << 20, "{} bytes more", peak() - before);
        });
    }

    #[test]
    fn directories_are_held_level_by_level_and_no_link_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let (tree, outside) = (root.path().join("tree"), root.path().join("outside"));
        std::fs::create_dir_all(outside.join("deep")).unwrap();
        for inner in ["a/b/c", "d"] {
            std::fs::create_dir_all(tree.join(inner)).unwrap();
        }
        std::fs::write(tree.join("a/file"), "x").unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        // The tree itself, a, b, c and d.
        assert_eq!(hold(&tree).len(), 5);
        assert_eq!(hold(&tree.join("link")).len(), 0, "a link in the place of the tree");
        assert_eq!(hold(&root.path().join("absent")).len(), 0);
        for number in 0..2 * HELD {
            std::fs::create_dir(tree.join(format!("many-{number}"))).unwrap();
        }
        assert_eq!(hold(&tree).len(), HELD, "a large tree takes no more descriptors than that");
    }

    #[tokio::test]
    async fn what_is_held_does_not_keep_the_tree_from_going() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b/c")).unwrap();
        std::fs::write(tree.join("a/b/file"), "x").unwrap();
        let remains = Remains(hold(&tree));
        remove::tree(&tree).unwrap();
        assert!(!tree.exists());
        remains.free().await;
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
