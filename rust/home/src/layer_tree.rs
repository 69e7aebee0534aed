//! Building a cached read-only layer.
//!
//! A layer appears in the cache complete or not at all: it is built in a temporary sibling, synced and renamed. One
//! process builds at a time (a lock file in the parent); the next one removes what a killed builder left.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use microsandbox_contract::IdMap;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use rustix::fs::FlockOperation;

use crate::make_private_directory;

/// Start of the names of unfinished layers.
const TEMPORARY: &str = ".tmp-";

/// `<parent>/<name>`, built by `build` if it is not there yet.
pub fn publish(
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

/// Removes what killed builders left; the caller holds the lock, so no builder is running.
fn sweep(parent: &Path) -> MicrosandboxResult<()> {
    let entries = fs::read_dir(parent).map_err(|e| MicrosandboxError::io("list", parent, e))?;
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            microsandbox_rooted::remove::tree(&entry.path())
                .map_err(|e| MicrosandboxError::io("remove the unfinished layer", &entry.path(), e.into()))?;
        }
    }
    Ok(())
}

fn sync(root: &Path) -> MicrosandboxResult<()> {
    let dir = File::open(root).map_err(|e| MicrosandboxError::io("open", root, e))?;
    rustix::fs::syncfs(&dir).map_err(|e| MicrosandboxError::io("sync", root, e.into()))
}

pub fn sync_dir(path: &Path) -> MicrosandboxResult<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| MicrosandboxError::io("sync", path, e))
}

/// Who owns the files of a layer: the inside root, as the host numbers it.
#[derive(Debug, Clone, Copy)]
pub struct Owner(Option<u32>);

impl Owner {
    /// An ordinary user is the inside root already.
    pub fn of(ids: &IdMap) -> Owner {
        match *ids {
            IdMap::Range { base, .. } => Owner(Some(base)),
            IdMap::Subordinate { .. } | IdMap::Single { .. } => Owner(None),
        }
    }

    /// Gives `path` (not what it links to) to inside id `inside`.
    pub fn give(self, path: &Path, inside: u32) -> MicrosandboxResult<()> {
        let Owner(Some(base)) = self else { return Ok(()) };
        let id = Some(base + inside);
        std::os::unix::fs::lchown(path, id, id).map_err(|e| MicrosandboxError::io("change the owner of", path, e))
    }
}

/// A layer that is being built. Paths are relative to its root and made by this crate, never by an image.
pub struct LayerTree {
    root: PathBuf,
    owner: Owner,
}

impl LayerTree {
    /// A directory with its missing parents (0755).
    pub fn dir(&self, path: &Path, mode: u32) -> MicrosandboxResult<()> {
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
    pub fn home(&self, path: &Path, inside: u32) -> MicrosandboxResult<()> {
        self.dir(path, 0o755)?;
        self.owner.give(&self.root.join(path), inside)
    }

    pub fn file(&self, path: &Path, content: &[u8], mode: u32) -> MicrosandboxResult<()> {
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

    pub fn symlink(&self, path: &Path, target: &Path) -> MicrosandboxResult<()> {
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
