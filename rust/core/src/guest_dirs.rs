//! The directories of this machine that a sandbox of a home can write to, or could: a guest may have put links into them, and
//! no path of the host side is followed out of them. The list is a file of the home, because such a link outlives its sandbox.

use std::fs::File;
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
    fn of(named: &Named) -> GuestDir {
        GuestDir { path: named.path.clone(), device: named.stat.st_dev, inode: named.stat.st_ino }
    }

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
    fn find(&self, path: &Path) -> Result<Named, Refusal> {
        let path = std::path::absolute(path).map_err(|_| Errno::INVAL)?;
        resolve(&path, |path, stat| self.directories.iter().any(|dir| dir.is(path, stat)))
    }

    /// Opens what `path` leads to, without waiting for the other end of a fifo.
    pub fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Refusal> {
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if self.directories.is_empty() {
            return Ok(rustix::fs::open(path, flags, Mode::empty())?);
        }
        let named = self.find(path)?;
        let own = format!("/proc/self/fd/{}", named.fd.as_raw_fd());
        Ok(rustix::fs::open(own, flags, Mode::empty())?)
    }

    /// Notes that links of a guest are about to come into a directory.
    pub fn add(&self, directory: impl AsFd) -> MicrosandboxResult<()> {
        let Some(home) = &self.home else { return Ok(()) };
        let failed = |errno: Errno| MicrosandboxError::io("look at", home, errno.into());
        let named = Named::of(rustix::io::fcntl_dupfd_cloexec(directory, 3).map_err(failed)?).map_err(failed)?;
        add(home, &GuestDir::of(&named))
    }

    /// Adds a directory to the list, before a guest can write to it.
    pub fn note(&mut self, named: &Named) -> MicrosandboxResult<()> {
        let entry = GuestDir::of(named);
        let Some(home) = self.home.as_ref().filter(|_| !self.directories.contains(&entry)) else { return Ok(()) };
        add(home, &entry)?;
        self.directories.push(entry);
        Ok(())
    }

    /// What `path` leads to, found once; `what` is the field that holds it, for the error.
    pub fn resolve(&self, what: &str, path: &Path) -> MicrosandboxResult<Named> {
        self.find(path).map_err(|refusal| {
            let why = match refusal {
                Refusal::Io(errno) => std::io::Error::from(errno).to_string(),
                Refusal::LeadsOut { directory } => leads_out(&directory),
            };
            MicrosandboxError::InvalidConfig(format!("{what} {} cannot be used: {why}", path.display()))
        })
    }
}

fn leads_out(directory: &Path) -> String {
    format!(
        "a symbolic link or .. leads out of {}, which a sandbox can write to, or could: name the path that is meant, without \
         links",
        directory.display()
    )
}

/// The error of an `operation` on `path` whose path, or that of its directory, is not followed.
pub(crate) fn refused(operation: &str, path: &Path, refusal: Refusal) -> MicrosandboxError {
    match refusal {
        Refusal::Io(errno) => MicrosandboxError::io(operation, path, errno.into()),
        Refusal::LeadsOut { directory } => MicrosandboxError::Filesystem {
            operation: operation.into(),
            path: path.display().to_string(),
            kind: "PathEscapes".into(),
            errno: Some(libc::ELOOP),
            message: leads_out(&directory),
        },
    }
}

/// An unfinished line, of a process that was killed, is no entry: its sandbox did not boot.
fn parse(text: &[u8]) -> Vec<GuestDir> {
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Adds an entry to the list of `home`. A list that is full is replaced in one step by one without what is gone: a crash leaves the one
/// or the other, never fewer entries.
fn add(home: &Path, entry: &GuestDir) -> MicrosandboxResult<()> {
    let path = home.join(FILE);
    let failed = |error: std::io::Error| MicrosandboxError::io("write", &path, error);
    let mut file = lock(&path).map_err(failed)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(failed)?;
    let mut known = parse(&text);
    if known.contains(entry) {
        return Ok(());
    }
    let mut line = line_of(entry)?;
    if text.last().is_some_and(|byte| *byte != b'\n') {
        line.insert(0, b'\n');
    }
    if (text.len() + line.len()) as u64 <= MAX_BYTES {
        return file.write_all(&line).map_err(failed);
    }
    known.retain(GuestDir::exists);
    known.push(entry.clone());
    let kept = known.iter().map(line_of).collect::<MicrosandboxResult<Vec<_>>>()?.concat();
    if kept.len() as u64 > MAX_BYTES {
        return Err(MicrosandboxError::ResourceExhausted {
            resource: "home.guest_directories".into(),
            message: format!(
                "{} holds {MAX_BYTES} bytes of directories that sandboxes could write to; remove directories that are no \
                 longer needed, or bind one directory above them",
                path.display()
            ),
        });
    }
    crate::private::write(&path, &kept)
}

/// The list, open to be added to, under its lock.
fn lock(path: &Path) -> std::io::Result<File> {
    loop {
        let file = File::options().read(true).append(true).create(true).mode(0o600).open(path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        // The holder before may have replaced it.
        let (ours, there) = (file.metadata()?, path.metadata());
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
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
            GuestDirs::of(&home).unwrap().note(&named(&work)).unwrap();
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
    fn a_full_list_forgets_what_is_gone_in_one_step() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(FILE);
        let gone = GuestDir { path: format!("/{}", "x".repeat(1 << 20)).into(), device: 1, inode: 2 };
        let lines = [line_of(&gone).unwrap().repeat(4), b"{\"path\":\"/cut of".to_vec()].concat();
        std::fs::write(&path, &lines).unwrap();
        let mut before = File::open(&path).unwrap();
        GuestDirs::of(home.path()).unwrap().note(&named(home.path())).unwrap();
        assert_eq!(GuestDirs::of(home.path()).unwrap().directories, [GuestDir::of(&named(home.path()))]);
        // Whoever reads the old list, or finds it after a crash, has all of it.
        let mut old = Vec::new();
        before.read_to_end(&mut old).unwrap();
        assert!(old == lines, "the old list has {} bytes instead of {}", old.len(), lines.len());
    }

    #[test]
    fn an_entry_that_waited_for_the_lock_is_in_the_new_list() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(FILE);
        let held = lock(&path).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| GuestDirs::of(home.path()).unwrap().note(&named(home.path())));
            std::thread::sleep(std::time::Duration::from_millis(50));
            crate::private::write(&path, b"").unwrap();
            drop(held);
            waiting.join().unwrap().unwrap();
        });
        assert_eq!(GuestDirs::of(home.path()).unwrap().directories.len(), 1);
    }

    #[test]
    fn a_loop_of_links_is_no_way_out_of_a_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("loop");
        std::os::unix::fs::symlink("loop", &path).unwrap();
        let mut guests = GuestDirs { home: Some(scratch.path().into()), directories: Vec::new() };
        let open = |guests: &GuestDirs| guests.open(&path, OFlags::RDONLY).unwrap_err();
        assert_eq!(open(&guests), Refusal::Io(Errno::LOOP));
        guests.note(&named(scratch.path())).unwrap();
        assert_eq!(open(&guests), Refusal::Io(Errno::LOOP));
        guests.open(scratch.path(), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc", &path).unwrap();
        assert!(matches!(open(&guests), Refusal::LeadsOut { .. }));
        let text = refused("read", &path, open(&guests)).to_string();
        assert!(text.contains("leads out of") && text.contains("without links"), "{text}");
    }
}
