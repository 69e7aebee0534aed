//! A host file in the making: a temporary sibling, synced and renamed into place, removed if that never happens.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Zeros in runs of this size become holes.
const HOLE: usize = 64 << 10;
/// Names tried for the temporary file.
const NAME_TRIES: u32 = 16;

pub(crate) struct HostTarget {
    path: PathBuf,
    name: OsString,
    parent: OwnedFd,
    temporary: OsString,
    file: File,
    length: u64,
    published: bool,
}

impl HostTarget {
    /// Opens a temporary sibling of `path`. What already lies at `path` must be a regular file or nothing.
    pub fn create(path: &Path, mode: u32) -> MicrosandboxResult<HostTarget> {
        let failed = |error: std::io::Error| MicrosandboxError::io("write", path, error);
        let name = path.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?.to_owned();
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(directory, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        refuse_odd_target(path, &parent, &name)?;
        let (temporary, file) = open_temporary(&parent, &name, mode).map_err(failed)?;
        Ok(HostTarget { path: path.into(), name, parent, temporary, file, length: 0, published: false })
    }

    fn failed(&self, error: impl Into<std::io::Error>) -> MicrosandboxError {
        MicrosandboxError::io("write", &self.path, error.into())
    }

    /// Appends; long runs of zeros are left out.
    pub fn write(&mut self, data: &[u8]) -> MicrosandboxResult<()> {
        for piece in data.chunks(HOLE) {
            if piece.len() < HOLE || piece.iter().any(|&byte| byte != 0) {
                self.file.write_all_at(piece, self.length).map_err(|error| self.failed(error))?;
            }
            self.length += piece.len() as u64;
        }
        Ok(())
    }

    /// Syncs and renames into place.
    pub fn publish(mut self) -> MicrosandboxResult<()> {
        self.file.set_len(self.length).map_err(|error| self.failed(error))?;
        self.file.sync_all().map_err(|error| self.failed(error))?;
        rustix::fs::renameat(&self.parent, &self.temporary, &self.parent, &self.name)
            .map_err(|error| self.failed(error))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for HostTarget {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: the error that led here is the one to report.
            let _ = rustix::fs::unlinkat(&self.parent, &self.temporary, AtFlags::empty());
        }
    }
}

/// A link planted there by an earlier copy, a directory or a device is no place for a file.
fn refuse_odd_target(path: &Path, parent: &OwnedFd, name: &OsStr) -> MicrosandboxResult<()> {
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(MicrosandboxError::io("write", path, error.into())),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(MicrosandboxError::Filesystem {
            operation: "write".into(),
            path: path.display().to_string(),
            kind: "PathEscapes".into(),
            errno: Some(libc::ELOOP),
            message: "the host path is a symbolic link; remove it or name its target".into(),
        }),
        FileType::Directory => Err(MicrosandboxError::io("write", path, std::io::ErrorKind::IsADirectory.into())),
        _ => {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
            Err(MicrosandboxError::io("write", path, error))
        }
    }
}

fn open_temporary(parent: &OwnedFd, name: &OsStr, mode: u32) -> std::io::Result<(OsString, File)> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..NAME_TRIES {
        let mut temporary = OsString::from(".");
        // Cut so that the suffix still fits into NAME_MAX.
        temporary.push(OsStr::new(&name.to_string_lossy().chars().take(40).collect::<String>()));
        temporary.push(format!(".{:016x}", RandomState::new().build_hasher().finish()));
        match rustix::fs::openat(parent, &temporary, flags, Mode::from_raw_mode(mode)) {
            Ok(fd) => return Ok((temporary, File::from(fd))),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    // hazard: F5
    #[test]
    fn zeros_become_holes_and_setuid_never_arrives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let mut target = HostTarget::create(&path, 0o4755 & 0o777).unwrap();
        target.write(b"begin").unwrap();
        for _ in 0..64 {
            target.write(&vec![0; 1 << 20]).unwrap();
        }
        target.publish().unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 5 + (64 << 20));
        assert!(metadata.blocks() * 512 < 4 << 20, "{} blocks", metadata.blocks());
        assert_eq!(metadata.permissions().mode() & 0o7000, 0);
        assert_eq!(names(directory.path()), ["out"]);
    }

    // hazard: F6
    #[test]
    fn a_planted_link_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        std::fs::write(&victim, "old").unwrap();
        let planted = directory.path().join("planted");
        std::os::unix::fs::symlink(&victim, &planted).unwrap();
        let error = HostTarget::create(&planted, 0o644).err().unwrap();
        assert!(matches!(&error, MicrosandboxError::Filesystem { kind, .. } if kind == "PathEscapes"), "{error}");
        assert_eq!(std::fs::read_to_string(victim).unwrap(), "old");
    }

    // hazard: F8
    #[test]
    fn an_unpublished_target_leaves_only_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let mut target = HostTarget::create(&path, 0o644).unwrap();
        target.write(b"half").unwrap();
        drop(target);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(directory.path()), ["out"]);
    }
}
