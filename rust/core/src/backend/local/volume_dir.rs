//! The directory of a volume, beside its row.
//!
//! The row is inserted before the directory is made and deleted after the directory was put aside, and both happen under
//! the volume's lock. What a process that died in between left is put right by the next one that holds the lock:
//! [`LocalBackend::recover_volume`].

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::lock::NameLock;
use super::volume_files::Tree;
use super::{LocalBackend, boot, idmap, lifecycle, tree};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// A removed volume's files, until they are gone. No name of a volume begins so.
const ASIDE: &str = ".removed-";
/// A volume's directory until it has its owner.
const UNOWNED: &str = ".made-";

/// Held while a volume comes or goes.
pub struct VolumeLock(NameLock);

impl VolumeLock {
    /// The volume is gone, and nobody else needs its lock.
    pub fn remove_file(self) {
        self.0.remove_file();
    }
}

fn key(name: &str) -> String {
    // No name of a sandbox holds a colon.
    format!("volume:{name}")
}

fn absent(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

impl LocalBackend {
    /// Never taken while somebody waits for a sandbox's lock: those who hold one wait for this.
    pub(super) async fn lock_volume(&self, name: &str) -> MicrosandboxResult<VolumeLock> {
        let what = format!("volume {name}");
        let home = &self.config().home;
        NameLock::acquire_for(home, &key(name), &what, lifecycle::LOCK_DEADLINE).await.map(VolumeLock)
    }

    fn volume_aside(&self, name: &str) -> PathBuf {
        self.volumes_dir().join(format!("{ASIDE}{name}"))
    }

    /// Puts right what a removal that was cut off left: with its row still there the volume gets its files back, without
    /// they go.
    pub(super) async fn recover_volume(&self, _lock: &VolumeLock, name: &str) -> MicrosandboxResult<()> {
        let (path, aside) = (self.config().volume_path(name), self.volume_aside(name));
        if absent(&aside) {
            return Ok(());
        }
        if self.store().await?.volume(name).await?.is_some() && absent(&path) {
            return std::fs::rename(&aside, &path).map_err(|error| MicrosandboxError::io("restore", &path, error));
        }
        tree::remove(self, &aside).await
    }

    /// Moves the files out of the way, so that they can come back until the row is gone.
    pub(super) fn put_volume_aside(&self, _lock: &VolumeLock, name: &str) -> MicrosandboxResult<()> {
        let path = self.config().volume_path(name);
        let moved = match std::fs::rename(&path, self.volume_aside(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| MicrosandboxError::io("remove", &path, error)),
        };
        boot::failpoint("volume_aside");
        moved
    }

    /// What other removals left that were cut off, unless somebody is at it.
    pub(super) async fn sweep_removed_volumes(&self) {
        let Ok(entries) = std::fs::read_dir(self.volumes_dir()) else { return };
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let Some(name) = file_name.to_str().and_then(|text| text.strip_prefix(ASIDE)) else { continue };
            let Ok(Some(lock)) = NameLock::try_acquire(&self.config().home, &key(name)) else { continue };
            if let Err(error) = self.recover_volume(&VolumeLock(lock), name).await {
                tracing::debug!(%error, "the rest of a removed volume stays for now");
            }
        }
    }

    /// The directory of a volume that has a row; made if it is not there.
    pub(super) async fn volume_root(&self, name: &str) -> MicrosandboxResult<Tree> {
        if let Some(tree) = self.open_volume(name)? {
            return Ok(tree);
        }
        let lock = self.lock_volume(name).await?;
        self.recover_volume(&lock, name).await?;
        if self.store().await?.volume(name).await?.is_none() {
            return Err(MicrosandboxError::VolumeNotFound(name.into()));
        }
        self.make_volume(&lock, name)
    }

    /// The directory, if it is there.
    fn open_volume(&self, name: &str) -> MicrosandboxResult<Option<Tree>> {
        let path = self.config().volume_path(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(root) => Ok(Some(Tree::new(root, self.id_map()?))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(MicrosandboxError::io("open", &path, error.into())),
        }
    }

    /// The directory of a volume that has a row, made if it is not there. It has its owner before it has its name.
    pub(super) fn make_volume(&self, _lock: &VolumeLock, name: &str) -> MicrosandboxResult<Tree> {
        if let Some(tree) = self.open_volume(name)? {
            return Ok(tree);
        }
        let volumes = self.volumes_dir();
        super::make_private_directory(&volumes)?;
        let failed = |action: &'static str| {
            let path = self.config().volume_path(name);
            move |error: Errno| MicrosandboxError::io(action, &path, error.into())
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent: OwnedFd = rustix::fs::open(&volumes, flags, Mode::empty()).map_err(failed("open"))?;
        let unowned = format!("{UNOWNED}{name}");
        match rustix::fs::mkdirat(&parent, &unowned, Mode::from_raw_mode(0o755)) {
            // One that was cut off here left it.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("create")(error)),
        }
        if let Some((uid, gid)) = idmap::inside_root(&self.id_map()?) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&parent, &unowned, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("own"))?;
        }
        rustix::fs::renameat(&parent, &unowned, &parent, name).map_err(failed("create"))?;
        self.open_volume(name)?.ok_or_else(|| failed("open")(Errno::NOENT))
    }
}
