//! Cached read-only layers that this crate makes itself: the runtime layer, and the means to build one.
//!
//! A layer appears in the cache complete or not at all: it is built in a temporary sibling, synced and renamed. One
//! process builds at a time (a lock file in the parent); what a killed one left behind is swept by the next.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use microsandbox_contract::IdMap;
use rustix::fs::FlockOperation;

use super::{LocalBackend, make_private_directory};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Number of the contents below; raised whenever they change.
const LAYOUT: u32 = 1;
/// Start of the names of unfinished layers.
const TEMPORARY: &str = ".tmp-";
/// Directories of the runtime layer: the scripts directory, and the mount points that every root file system needs.
const DIRECTORIES: [(&str, u32); 7] = [
    (".msb", 0o755),
    (".msb/scripts", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("tmp", 0o1777),
    ("run", 0o755),
];

/// The bottom layer of every sandbox: `/.msb/scripts` and mount points. Made on first use, one `stat` afterwards.
pub async fn prepare(backend: &LocalBackend) -> MicrosandboxResult<PathBuf> {
    let (parent, ids) = (backend.cache_dir().join("runtime"), backend.id_map()?);
    let target = parent.join(name(&ids));
    if target.is_dir() {
        return Ok(target);
    }
    blocking(move || prepare_in(&parent, &ids)).await
}

/// Runs file work away from the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> MicrosandboxResult<T> + Send + 'static,
) -> MicrosandboxResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(MicrosandboxError::Runtime(format!("file work did not finish: {error}"))),
    }
}

fn name(ids: &IdMap) -> String {
    format!("{}-{LAYOUT}-{}", env!("CARGO_PKG_VERSION"), inside_root(ids).0)
}

fn prepare_in(parent: &Path, ids: &IdMap) -> MicrosandboxResult<PathBuf> {
    publish(parent, OsStr::new(&name(ids)), ids, |tree| {
        DIRECTORIES.iter().try_for_each(|(path, mode)| tree.dir(Path::new(path), *mode))
    })
}

/// The host ids of the inside root.
pub(super) fn inside_root(ids: &IdMap) -> (u32, u32) {
    match *ids {
        IdMap::Range { base, .. } => (base, base),
        IdMap::Subordinate { uid, gid, .. } | IdMap::Single { uid, gid } => (uid, gid),
    }
}

/// `<parent>/<name>`, built by `build` if it is not there yet.
pub(super) fn publish(
    parent: &Path,
    name: &OsStr,
    ids: &IdMap,
    build: impl FnOnce(&LayerTree) -> MicrosandboxResult<()>,
) -> MicrosandboxResult<PathBuf> {
    let target = parent.join(name);
    if target.is_dir() {
        return Ok(target);
    }
    make_private_directory(parent)?;
    let _lock = lock(parent)?;
    if target.is_dir() {
        return Ok(target);
    }
    sweep(parent)?;
    let temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempdir_in(parent)
        .map_err(|e| MicrosandboxError::io("make a layer in", parent, e))?;
    let tree = LayerTree { root: temporary.path().to_owned(), owner: Owner::of(ids) };
    build(&tree)?;
    tree.finish_dir(Path::new(""), 0o755)?;
    sync(&tree.root)?;
    fs::rename(&tree.root, &target).map_err(|e| MicrosandboxError::io("publish the layer", &target, e))?;
    // It has its final name now: nothing is left to remove.
    let _ = temporary.keep();
    sync_dir(parent)?;
    Ok(target)
}

/// An exclusive lock on the directory's lock file, held until dropped (or until this process dies).
fn lock(parent: &Path) -> MicrosandboxResult<File> {
    let path = parent.join(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| MicrosandboxError::io("open", &path, e))?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
        .map_err(|e| MicrosandboxError::io("lock", &path, e.into()))?;
    Ok(file)
}

/// Removes what killed builders left; the caller holds the lock, so nobody is building.
fn sweep(parent: &Path) -> MicrosandboxResult<()> {
    let entries = fs::read_dir(parent).map_err(|e| MicrosandboxError::io("list", parent, e))?;
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            fs::remove_dir_all(entry.path())
                .map_err(|e| MicrosandboxError::io("remove the unfinished layer", &entry.path(), e))?;
        }
    }
    Ok(())
}

fn sync(root: &Path) -> MicrosandboxResult<()> {
    let dir = File::open(root).map_err(|e| MicrosandboxError::io("open", root, e))?;
    rustix::fs::syncfs(&dir).map_err(|e| MicrosandboxError::io("sync", root, e.into()))
}

pub(crate) fn sync_dir(path: &Path) -> MicrosandboxResult<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| MicrosandboxError::io("sync", path, e))
}

/// Who owns the files of a layer: the inside root, as the host numbers it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner(Option<u32>);

impl Owner {
    /// An ordinary user is the inside root already.
    pub(crate) fn of(ids: &IdMap) -> Owner {
        match *ids {
            IdMap::Range { base, .. } => Owner(Some(base)),
            IdMap::Subordinate { .. } | IdMap::Single { .. } => Owner(None),
        }
    }

    /// Gives `path` (not what it links to) to inside id `inside`.
    pub(crate) fn give(self, path: &Path, inside: u32) -> MicrosandboxResult<()> {
        let Owner(Some(base)) = self else { return Ok(()) };
        let id = Some(base + inside);
        std::os::unix::fs::lchown(path, id, id).map_err(|e| MicrosandboxError::io("change the owner of", path, e))
    }
}

/// A layer that is being built. Paths are relative to its root and made by this crate, never by an image.
pub(super) struct LayerTree {
    root: PathBuf,
    owner: Owner,
}

impl LayerTree {
    /// A directory with its missing parents (0755).
    pub(super) fn dir(&self, path: &Path, mode: u32) -> MicrosandboxResult<()> {
        self.parents(path)?;
        match fs::create_dir(self.root.join(path)) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(MicrosandboxError::io("create", &self.root.join(path), e));
            }
            _ => {}
        }
        self.finish_dir(path, mode)
    }

    /// A home directory: as [`LayerTree::dir`], but of inside id `inside`.
    pub(super) fn home(&self, path: &Path, inside: u32) -> MicrosandboxResult<()> {
        self.dir(path, 0o755)?;
        self.owner.give(&self.root.join(path), inside)
    }

    pub(super) fn file(&self, path: &Path, content: &[u8], mode: u32) -> MicrosandboxResult<()> {
        self.parents(path)?;
        let full = self.root.join(path);
        let written = File::options().create_new(true).write(true).open(&full).and_then(|mut file| {
            file.write_all(content)?;
            // The umask must not decide what a sandbox can read.
            file.set_permissions(Permissions::from_mode(mode))
        });
        written.map_err(|e| MicrosandboxError::io("write", &full, e))?;
        self.owner.give(&full, 0)
    }

    pub(super) fn symlink(&self, path: &Path, target: &Path) -> MicrosandboxResult<()> {
        self.parents(path)?;
        let full = self.root.join(path);
        std::os::unix::fs::symlink(target, &full).map_err(|e| MicrosandboxError::io("link", &full, e))?;
        self.owner.give(&full, 0)
    }

    fn parents(&self, path: &Path) -> MicrosandboxResult<()> {
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
        if self.root.join(parent).is_dir() { Ok(()) } else { self.dir(parent, 0o755) }
    }

    fn finish_dir(&self, path: &Path, mode: u32) -> MicrosandboxResult<()> {
        let full = self.root.join(path);
        fs::set_permissions(&full, Permissions::from_mode(mode))
            .map_err(|e| MicrosandboxError::io("set the mode of", &full, e))?;
        self.owner.give(&full, 0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn ids() -> IdMap {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid == 0 { IdMap::Range { base: 200_000, count: 65_536 } } else { IdMap::Single { uid, gid } }
    }

    #[test]
    fn runtime_layer_is_complete_and_owned_by_the_inside_root() {
        let cache = tempfile::tempdir().unwrap();
        let layer = prepare_in(&cache.path().join("runtime"), &ids()).unwrap();
        for (path, mode) in DIRECTORIES {
            let meta = fs::symlink_metadata(layer.join(path)).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.uid()), (mode, inside_root(&ids()).0), "{path}");
        }
        assert_eq!(fs::metadata(&layer).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(prepare_in(&cache.path().join("runtime"), &ids()).unwrap(), layer);
    }

    #[test]
    fn another_id_mapping_gets_a_layer_of_its_own() {
        let cache = tempfile::tempdir().unwrap();
        let one = prepare_in(cache.path(), &ids()).unwrap();
        let base = inside_root(&ids()).0;
        assert!(one.to_str().unwrap().ends_with(&format!("-{base}")));
    }

    #[test]
    fn l1_what_a_killed_builder_left_is_swept_and_nothing_half_made_is_used() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir_all(cache.path().join(".tmp-dead/sub")).unwrap();
        prepare_in(cache.path(), &ids()).unwrap();
        assert!(!cache.path().join(".tmp-dead").exists());
    }

    #[test]
    fn l1_a_failing_build_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let failed = publish(cache.path(), OsStr::new("x"), &ids(), |tree| {
            tree.dir(Path::new("a/b"), 0o755)?;
            Err(MicrosandboxError::Custom("stop".into()))
        });
        assert!(failed.is_err());
        let left: Vec<_> = fs::read_dir(cache.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [".lock"]);
    }

    #[test]
    fn l2_builders_at_the_same_time_agree() {
        let cache = tempfile::tempdir().unwrap();
        let layers: Vec<_> = std::thread::scope(|scope| {
            let run = || prepare_in(cache.path(), &ids()).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(layers.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 2);
    }
}
