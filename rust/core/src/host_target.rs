//! A host file in the making: a temporary sibling, synced and renamed into place, removed if that never happens. Where the
//! name is a mount point, or its directory takes no new names, an existing file is written in place, which is not atomic.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use microsandbox_rooted::attributes;
use microsandbox_rooted::replace::{Holes, Temporary, open_existing, refuses_names, write_over, write_sparsely};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::guest_dirs::{self, GuestDirs};

pub(crate) struct HostTarget {
    path: PathBuf,
    name: OsString,
    output: Output,
    /// Seconds and nanoseconds.
    modified: Option<(i64, u32)>,
    length: u64,
    holes: Holes,
}

enum Output {
    Fresh(Temporary),
    /// With the bytes it had.
    InPlace(OwnedFd, u64),
}

impl HostTarget {
    /// Opens a temporary sibling of `path`. What already lies at `path` must be a regular file or nothing. Of `mode`, which a
    /// guest chose, a new file gets what the caller's umask leaves.
    pub fn create(
        path: &Path,
        mode: u32,
        modified: Option<(i64, u32)>,
        guests: &GuestDirs,
    ) -> MicrosandboxResult<HostTarget> {
        let failed = |error: std::io::Error| MicrosandboxError::io("write", path, error);
        let name = path.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?.to_owned();
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = guests
            .open(directory, OFlags::DIRECTORY | OFlags::RDONLY)
            .map_err(|refusal| guest_dirs::refused("write", path, refusal))?;
        refuse_odd_target(path, &parent, &name)?;
        let own = rustix::io::fcntl_dupfd_cloexec(&parent, 3).map_err(|error| failed(error.into()))?;
        let output = match Temporary::new(own) {
            Ok(temporary) => {
                rustix::fs::fchmod(temporary.file(), Mode::from_raw_mode(permitted(mode)))
                    .map_err(|error| failed(error.into()))?;
                Output::Fresh(temporary)
            }
            Err(error) if refuses_names(error) => {
                let file = open_existing(&parent, &name).map_err(|_| failed(error.into()))?;
                let old = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?.st_size as u64;
                Output::InPlace(file, old)
            }
            Err(error) => return Err(failed(error.into())),
        };
        Ok(HostTarget { path: path.into(), name, output, modified, length: 0, holes: Holes::default() })
    }

    fn file(&self) -> BorrowedFd<'_> {
        match &self.output {
            Output::Fresh(temporary) => temporary.file(),
            Output::InPlace(file, _) => file.as_fd(),
        }
    }

    /// Appends; long runs of zeros are left out.
    pub fn write(&mut self, data: &[u8]) -> MicrosandboxResult<()> {
        let written = match &self.output {
            Output::Fresh(temporary) => write_sparsely(temporary.file(), data, self.length, &mut self.holes),
            Output::InPlace(file, old) => write_over(file, data, self.length, *old, &mut self.holes),
        };
        written.map_err(|error| MicrosandboxError::io("write", &self.path, error.into()))?;
        self.length += data.len() as u64;
        Ok(())
    }

    /// Syncs and renames into place.
    pub fn publish(self) -> MicrosandboxResult<()> {
        self.complete().map_err(|error| MicrosandboxError::io("write", &self.path, error.into()))?;
        match self.output {
            Output::Fresh(temporary) => temporary
                .publish(&*self.name)
                .map(drop)
                .map_err(|error| MicrosandboxError::io("write", &self.path, error.into())),
            Output::InPlace(..) => Ok(()),
        }
    }

    fn complete(&self) -> rustix::io::Result<()> {
        rustix::fs::ftruncate(self.file(), self.length)?;
        if let Some(time) = self.modified {
            rustix::fs::futimens(self.file(), &attributes::modified(time))?;
        }
        rustix::fs::fsync(self.file())
    }
}

/// The permissions of `mode` that the umask of this process leaves, as `cp` and `tar` of an ordinary user give them.
pub(crate) fn permitted(mode: u32) -> u32 {
    mode & 0o777 & !umask()
}

/// Read and not exchanged: for a moment that would change what other threads create. Without procfs: nothing for others.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    field.and_then(|value| u32::from_str_radix(value.trim(), 8).ok()).unwrap_or(0o077)
}

/// A link planted there by an earlier copy, a directory or a device is no place for a file.
fn refuse_odd_target(path: &Path, parent: &OwnedFd, name: &OsStr) -> MicrosandboxResult<()> {
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(MicrosandboxError::io("write", path, error.into())),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(escapes(path, "the host path is a symbolic link; remove it or name its target")),
        FileType::Directory => Err(MicrosandboxError::io("write", path, std::io::ErrorKind::IsADirectory.into())),
        _ => {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
            Err(MicrosandboxError::io("write", path, error))
        }
    }
}

fn escapes(path: &Path, message: &str) -> MicrosandboxError {
    MicrosandboxError::Filesystem {
        operation: "write".into(),
        path: path.display().to_string(),
        kind: "PathEscapes".into(),
        errno: Some(libc::ELOOP),
        message: message.into(),
    }
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
        let mut target = HostTarget::create(&path, 0o4755 & 0o777, Some((7, 8)), &GuestDirs::default()).unwrap();
        target.write(b"begin").unwrap();
        for _ in 0..64 {
            target.write(&vec![0; 1 << 20]).unwrap();
        }
        target.publish().unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 5 + (64 << 20));
        assert!(metadata.blocks() * 512 < 4 << 20, "{} blocks", metadata.blocks());
        assert_eq!(
            (metadata.permissions().mode() & 0o7777, metadata.mtime(), metadata.mtime_nsec()),
            (permitted(0o755), 7, 8)
        );
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
        let error = HostTarget::create(&planted, 0o644, None, &GuestDirs::default()).err().unwrap();
        assert!(matches!(&error, MicrosandboxError::Filesystem { kind, .. } if kind == "PathEscapes"), "{error}");
        assert_eq!(std::fs::read_to_string(victim).unwrap(), "old");
    }

    // hazard: F8
    #[test]
    fn an_unpublished_target_leaves_only_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let mut target = HostTarget::create(&path, 0o644, None, &GuestDirs::default()).unwrap();
        target.write(b"half").unwrap();
        drop(target);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(directory.path()), ["out"]);
    }

    #[test]
    fn a_mode_from_a_guest_is_what_the_umask_leaves_of_it() {
        let umask = super::umask();
        let probe = tempfile::tempdir().unwrap();
        let made = probe.path().join("made");
        rustix::fs::mkdir(&made, Mode::from_raw_mode(0o777)).unwrap();
        assert_eq!(std::fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o777 & !umask);
        assert_eq!((permitted(0o7777), permitted(0o600)), (0o777 & !umask, 0o600 & !umask));
    }

    #[test]
    fn a_file_in_place_is_unchanged_until_something_comes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        std::fs::write(&path, "old and longer").unwrap();
        let in_place = || {
            let file = open_existing(std::fs::File::open(directory.path()).unwrap(), "out").unwrap();
            let output = Output::InPlace(file, 14);
            HostTarget {
                path: path.clone(),
                name: "out".into(),
                output,
                modified: None,
                length: 0,
                holes: Holes::default(),
            }
        };
        drop(in_place());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old and longer");
        let mut target = in_place();
        target.write(b"new").unwrap();
        target.publish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    }
}
