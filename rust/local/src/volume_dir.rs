//! The directory of a volume, beside its row.
//!
//! The row is inserted before the directory is made and deleted after the directory was put aside, and both happen under
//! the volume's lock. If a process dies in between, the next holder of the lock repairs what was left:
//! [`Volumes::recover`].

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::lifecycle;
use crate::volume_files::{Room, Tree};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_home::blocking;
use microsandbox_home::failpoint::failpoint;
use microsandbox_home::lock::NameLock;
use microsandbox_home::{Home, ids, tree};

/// Prefix of a removed volume's files until they are deleted. No name of a volume begins with it.
const ASIDE: &str = ".removed-";
/// Prefix of a volume's directory until its owner is set.
const UNOWNED: &str = ".made-";

const VOLUME_MODE: Mode = Mode::from_raw_mode(0o755);

/// Held while a volume is created or removed.
pub struct VolumeLock(NameLock);

impl VolumeLock {
    /// Removes the lock file: the volume is gone, and no other task needs its lock.
    pub async fn remove_file(self) {
        self.0.remove_file().await;
    }
}

fn key(name: &str) -> String {
    // No name of a sandbox holds a colon.
    format!("volume:{name}")
}

fn absent(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// The directories of the volumes of one home.
#[derive(Clone, Copy)]
pub struct Volumes<'a> {
    pub home: &'a Home,
}

impl Volumes<'_> {
    /// Lock order: a sandbox's lock, then this one. A holder of this lock never waits for a sandbox's lock, because
    /// holders of a sandbox's lock wait for this one.
    pub async fn lock(&self, name: &str) -> MicrosandboxResult<VolumeLock> {
        let what = format!("volume {name}");
        let home = self.home.path();
        NameLock::acquire_for(home, &key(name), &what, lifecycle::LOCK_DEADLINE).await.map(VolumeLock)
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.home.volumes_dir().join(format!("{ASIDE}{name}"))
    }

    /// Repairs what an interrupted removal left: if the row is still there, the volume's files are restored; otherwise
    /// the files are deleted.
    pub async fn recover(&self, _lock: &VolumeLock, name: &str) -> MicrosandboxResult<()> {
        let (path, aside) = (self.home.config().volume_path(name), self.aside(name));
        let (there, here) = (aside.clone(), path.clone());
        let (nothing_aside, no_files) = blocking(move || Ok((absent(&there), absent(&here)))).await?;
        if nothing_aside {
            return Ok(());
        }
        if self.home.store().await?.volume(name).await?.is_some() && no_files {
            return blocking(move || {
                std::fs::rename(&aside, &path).map_err(|error| MicrosandboxError::io("restore", &path, error))
            })
            .await;
        }
        tree::remove(self.home, &aside).await
    }

    /// Moves the files out of the way, so that they can come back until the row is gone.
    pub fn put_aside(&self, _lock: &VolumeLock, name: &str) -> MicrosandboxResult<()> {
        let path = self.home.config().volume_path(name);
        let moved = match std::fs::rename(&path, self.aside(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| MicrosandboxError::io("remove", &path, error)),
        };
        failpoint("volume_aside");
        moved
    }

    /// Repairs what other, interrupted removals left, except volumes whose lock is held.
    pub async fn sweep_removed(&self) {
        let volumes = self.home.volumes_dir();
        let names = blocking(move || {
            let entries = std::fs::read_dir(volumes).into_iter().flatten().flatten();
            let name = |entry: std::fs::DirEntry| Some(entry.file_name().to_str()?.strip_prefix(ASIDE)?.to_owned());
            Ok(entries.filter_map(name).collect::<Vec<_>>())
        });
        for name in names.await.unwrap_or_default() {
            let Ok(Some(lock)) = NameLock::try_acquire(self.home.path(), &key(&name)).await else { continue };
            if let Err(error) = self.recover(&VolumeLock(lock), &name).await {
                tracing::debug!(%error, "the rest of a removed volume stays for now");
            }
        }
    }

    /// The directory of a volume that has a row; made if it is not there.
    pub async fn root(&self, name: &str) -> MicrosandboxResult<Tree> {
        let (home, owned) = (self.home.clone(), name.to_owned());
        if let Some(tree) = blocking(move || open(&home, &owned)).await? {
            return Ok(tree);
        }
        let lock = self.lock(name).await?;
        self.recover(&lock, name).await?;
        if self.home.store().await?.volume(name).await?.is_none() {
            return Err(MicrosandboxError::VolumeNotFound(name.into()));
        }
        self.make(&lock, name).await
    }

    /// The directory of a volume that has a row, made if it is not there. Its owner is set before its final name.
    pub async fn make(&self, _lock: &VolumeLock, name: &str) -> MicrosandboxResult<Tree> {
        let (home, name) = (self.home.clone(), name.to_owned());
        blocking(move || make(&home, &name)).await
    }
}

/// Refuses a directory of volumes that other users can enter or that is not ours: a guest's files may be programs of the user who
/// runs it, and they are of no concern to other users in any case.
fn check_private(volumes: &Path) -> MicrosandboxResult<()> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = volumes.symlink_metadata() else { return Ok(()) };
    if meta.is_symlink() {
        return Err(MicrosandboxError::InvalidConfig(format!(
            "the directory of volumes {} is a symbolic link, which could lead elsewhere later: set paths.volumes to the directory that \
             is meant, or replace the link by a directory",
            volumes.display()
        )));
    }
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() == own && meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(MicrosandboxError::InvalidConfig(format!(
        "the directory of volumes {} belongs to user {} and has mode {:04o}: it must belong to user {own}, who runs the sandboxes, \
         and be closed to others (chmod 700), because guests write to it; or set paths.volumes to another directory",
        volumes.display(),
        meta.uid(),
        meta.mode() & 0o7777
    )))
}

/// The directory, if it is there.
fn open(home: &Home, name: &str) -> MicrosandboxResult<Option<Tree>> {
    let path = home.config().volume_path(name);
    check_private(&home.volumes_dir())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(root) => Ok(Some(Tree::new(root, home.id_map()?, Room::of(home, &path)))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(MicrosandboxError::io("open", &path, error.into())),
    }
}

fn make(home: &Home, name: &str) -> MicrosandboxResult<Tree> {
    if let Some(tree) = open(home, name)? {
        return Ok(tree);
    }
    let volumes = home.volumes_dir();
    microsandbox_home::make_private_directory(&volumes)?;
    let failed = |action: &'static str| {
        let path = home.config().volume_path(name);
        move |error: Errno| MicrosandboxError::io(action, &path, error.into())
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent: OwnedFd = rustix::fs::open(&volumes, flags, Mode::empty()).map_err(failed("open"))?;
    let unowned = format!("{UNOWNED}{name}");
    match rustix::fs::mkdirat(&parent, &unowned, VOLUME_MODE) {
        // One that was cut off here left it.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed("create")(error)),
    }
    // The caller's umask must not decide which users inside can read a volume.
    rustix::fs::chmodat(&parent, &unowned, VOLUME_MODE, AtFlags::empty()).map_err(failed("set the mode of"))?;
    if let Some((uid, gid)) = ids::inside_root(&home.id_map()?) {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&parent, &unowned, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("own"))?;
    }
    rustix::fs::renameat(&parent, &unowned, &parent, name).map_err(failed("create"))?;
    open(home, name)?.ok_or_else(|| failed("open")(Errno::NOENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_place_of_the_volumes_is_named_as_one() {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let scratch = tempfile::Builder::new().permissions(private).tempdir().unwrap();
        let link = scratch.path().join("volumes");
        std::os::unix::fs::symlink(scratch.path(), &link).unwrap();
        let text = check_private(&link).unwrap_err().to_string();
        assert!(text.contains("is a symbolic link") && text.contains("paths.volumes"), "{text}");
        assert!(!text.contains("chmod"), "{text}");
        std::os::unix::fs::symlink("nowhere", scratch.path().join("dangling")).unwrap();
        assert!(check_private(&scratch.path().join("dangling")).is_err());
        check_private(scratch.path()).unwrap();
    }
}
