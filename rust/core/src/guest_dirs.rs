//! The directories of this machine that a sandbox of a home can write to, or could: a guest may have put links into them, and
//! no path of the host side is followed out of them. The list is a file of the home, because such a link outlives its sandbox.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use microsandbox_rooted::named::{Named, Refusal, resolve};
use rustix::fs::{FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// In the home; a JSON document a line.
const FILE: &str = "guest-directories";
/// Of the list (`home.guest_directories`); what no longer exists is taken out before more is refused.
const MAX_BYTES: u64 = 4 << 20;

/// A directory, by its path and by what it is: either is enough, so that it is also known after it was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct GuestDir {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl GuestDir {
    fn is(&self, path: &Path, stat: &Stat) -> bool {
        self.path == path || (self.device, self.inode) == (stat.st_dev, stat.st_ino)
    }

    fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }
}

/// The list, as it was read. The default is that of a caller without a home: empty, and nothing is added to it.
#[derive(Debug, Default)]
pub struct GuestDirs {
    home: Option<PathBuf>,
    directories: Vec<GuestDir>,
}

impl GuestDirs {
    pub fn of(home: &Path) -> MicrosandboxResult<GuestDirs> {
        let path = home.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => Ok(GuestDirs { home: Some(home.into()), directories: parse(&text) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(GuestDirs { home: Some(home.into()), directories: Vec::new() })
            }
            Err(error) => Err(MicrosandboxError::io("read", &path, error)),
        }
    }

    /// What `path` leads to, found once.
    pub fn find(&self, path: &Path) -> Result<Named, Refusal> {
        let path = std::path::absolute(path).map_err(|_| Errno::INVAL)?;
        resolve(&path, |path, stat| self.directories.iter().any(|dir| dir.is(path, stat)))
    }

    /// Opens what `path` leads to, without waiting for the other end of a fifo; [`Refusal::LeadsOut`] is `ELOOP`.
    pub fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if self.directories.is_empty() {
            return rustix::fs::open(path, flags, Mode::empty());
        }
        match self.find(path) {
            Ok(named) => {
                let own = format!("/proc/self/fd/{}", named.fd.as_raw_fd());
                rustix::fs::open(own, flags, Mode::empty())
            }
            Err(Refusal::LeadsOut { .. }) => Err(Errno::LOOP),
            Err(Refusal::Io(errno)) => Err(errno),
        }
    }

    /// Notes that links of a guest are about to come into a directory.
    pub fn add(&self, directory: impl AsFd) -> MicrosandboxResult<()> {
        let Some(home) = &self.home else { return Ok(()) };
        let failed = |errno: Errno| MicrosandboxError::io("look at", home, errno.into());
        let named = Named::of(rustix::io::fcntl_dupfd_cloexec(directory, 3).map_err(failed)?).map_err(failed)?;
        add(home, &named)
    }

    /// What `path` leads to, found once; `what` is the field that holds it, for the error.
    pub fn resolve(&self, what: &str, path: &Path) -> MicrosandboxResult<Named> {
        self.find(path).map_err(|refusal| {
            let why = match refusal {
                Refusal::Io(errno) => std::io::Error::from(errno).to_string(),
                Refusal::LeadsOut { directory } => format!(
                    "a symbolic link or .. leads out of {}, which a sandbox can write to, or could: name the path that is \
                     meant, without links",
                    directory.display()
                ),
            };
            MicrosandboxError::InvalidConfig(format!("{what} {} cannot be used: {why}", path.display()))
        })
    }
}

/// An unfinished line, of a process that was killed, is no entry: its sandbox did not boot.
fn parse(text: &[u8]) -> Vec<GuestDir> {
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Adds a directory to the list of `home`, before a guest can write to it.
pub fn add(home: &Path, named: &Named) -> MicrosandboxResult<()> {
    let path = home.join(FILE);
    let failed = |error: std::io::Error| MicrosandboxError::io("write", &path, error);
    let entry = GuestDir { path: named.path.clone(), device: named.stat.st_dev, inode: named.stat.st_ino };
    let mut file =
        std::fs::File::options().read(true).append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(failed)?;
    let mut known = parse(&text);
    if known.contains(&entry) {
        return Ok(());
    }
    let mut line = line_of(&entry)?;
    if text.last().is_some_and(|byte| *byte != b'\n') {
        line.insert(0, b'\n');
    }
    if (text.len() + line.len()) as u64 > MAX_BYTES {
        known.retain(GuestDir::exists);
        let kept = known.iter().map(line_of).collect::<MicrosandboxResult<Vec<_>>>()?.concat();
        if (kept.len() + line.len()) as u64 > MAX_BYTES {
            return Err(MicrosandboxError::ResourceExhausted {
                resource: "home.guest_directories".into(),
                message: format!(
                    "{} holds {MAX_BYTES} bytes of directories that sandboxes could write to; remove directories that are no \
                     longer needed, or bind one directory above them",
                    path.display()
                ),
            });
        }
        file.set_len(0).map_err(failed)?;
        line = [kept, line].concat();
    }
    file.write_all(&line).map_err(failed)
}

fn line_of(entry: &GuestDir) -> MicrosandboxResult<Vec<u8>> {
    let text = serde_json::to_vec(entry);
    let mut line = text.map_err(|error| MicrosandboxError::json("the path of a bound directory", error))?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &Path) -> Named {
        GuestDirs::default().resolve("mount source", path).unwrap()
    }

    #[test]
    fn a_link_in_a_directory_that_a_guest_could_write_to_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let (home, work) = (scratch.path().join("home"), scratch.path().join("work"));
        std::fs::create_dir(&home).unwrap();
        std::fs::create_dir(&work).unwrap();
        std::os::unix::fs::symlink("/etc", work.join("data")).unwrap();
        let resolve = |path: &Path| GuestDirs::of(&home).unwrap().resolve("mount source", path);
        assert_eq!(resolve(&work.join("data")).unwrap().path, Path::new("/etc"));
        for _ in 0..2 {
            add(&home, &named(&work)).unwrap();
        }
        let text = resolve(&work.join("data")).unwrap_err().to_string();
        assert!(text.contains("leads out of") && text.contains("name the path that is meant"), "{text}");
        // Also after the directory was moved.
        let moved = scratch.path().join("moved");
        std::fs::rename(&work, &moved).unwrap();
        assert!(resolve(&moved.join("data")).is_err());
        assert_eq!(std::fs::read_to_string(home.join(FILE)).unwrap().lines().count(), 1, "an entry is there once");
    }

    #[test]
    fn a_full_list_forgets_what_is_gone_and_then_refuses() {
        let home = tempfile::tempdir().unwrap();
        let gone = GuestDir { path: format!("/{}", "x".repeat(1 << 20)).into(), device: 1, inode: 2 };
        let lines = [line_of(&gone).unwrap().repeat(4), b"{\"path\":\"/cut of".to_vec()].concat();
        std::fs::write(home.path().join(FILE), lines).unwrap();
        add(home.path(), &named(home.path())).unwrap();
        assert_eq!(GuestDirs::of(home.path()).unwrap().directories.len(), 1);
    }
}
