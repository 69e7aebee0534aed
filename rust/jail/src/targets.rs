//! Where the mounts of a sandbox go: resolved beneath its root once, by descriptor, and never where the links of an image lead to a
//! place that the sandbox itself is made of.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use microsandbox_contract::Step;
use microsandbox_contract::note::Failure;
use microsandbox_rooted::make;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs;
use rustix::io::Errno;

/// Beneath the root. `/.msb` holds mounts of our own, but only by its own name.
const OURS: [&str; 4] = ["proc", "sys", "dev", ".msb"];
const SYSFS_MAGIC: u64 = 0x6265_6572;
const DEVPTS_MAGIC: u64 = 0x1cd1;
const MQUEUE_MAGIC: u64 = 0x1980_0202;
/// File systems of the kernel, wherever they are mounted (magic(5) of statfs(2)).
const OF_THE_KERNEL: [u64; 4] = [libc::PROC_SUPER_MAGIC as u64, SYSFS_MAGIC, DEVPTS_MAGIC, MQUEUE_MAGIC];

/// Why nothing is mounted.
pub enum Refusal {
    Call(Errno),
    /// The target lies there, relative to the root.
    Ours(PathBuf),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal::Call(errno)
    }
}

impl Refusal {
    /// The failure to mount on `target`.
    pub fn of(self, target: &str, hint: &str) -> Failure {
        let action = format!("mount on {target}");
        match self {
            Refusal::Call(errno) => Failure::call(Step::MountBinds, action, errno, hint),
            Refusal::Ours(place) => Failure::new(
                Step::MountBinds,
                format!(
                    "{action}: links of the image lead to /{}, which belongs to the sandbox itself",
                    place.display()
                ),
                "mount it elsewhere, or use an image without that link",
            ),
        }
    }
}

/// The places for mounts beneath one root.
pub struct Targets<'a> {
    root: BorrowedFd<'a>,
    /// The path of the root, as this process sees it.
    path: PathBuf,
    /// What belongs to the user stays as it is: a mount point that is missing there is an error.
    closed: make::Mounts,
}

impl<'a> Targets<'a> {
    pub fn new(root: &'a OwnedFd) -> Result<Targets<'a>, Errno> {
        Ok(Targets { root: root.as_fd(), path: path_of(root.as_fd())?, closed: make::Mounts::default() })
    }

    /// The directory `target`, made where it is missing.
    pub fn directory(&self, target: &str) -> Result<OwnedFd, Refusal> {
        self.checked(target, make::ensure_dir_outside(self.root, target, &self.closed)?)
    }

    /// The file `target`, made where it is missing.
    pub fn file(&self, target: &str) -> Result<OwnedFd, Refusal> {
        self.checked(target, make::ensure_file_outside(self.root, target, &self.closed)?)
    }

    /// From now on nothing is made in this mount.
    pub fn close(&mut self, tree: impl AsFd) -> Result<(), Errno> {
        self.closed.add(tree)
    }

    fn checked(&self, target: &str, place: OwnedFd) -> Result<OwnedFd, Refusal> {
        let found = path_of(place.as_fd())?;
        // Beneath the root, whatever links there were: the resolver keeps it so.
        let inside = found.strip_prefix(&self.path).map_err(|_| Errno::STALE)?;
        let is_named = Path::new(target.trim_start_matches('/')) == inside;
        let is_ours = OURS.iter().any(|ours| inside.starts_with(ours));
        let kind = fs::fstatfs(&place)?.f_type as u64;
        if (is_ours && !is_named) || OF_THE_KERNEL.contains(&kind) {
            return Err(Refusal::Ours(inside.to_owned()));
        }
        Ok(place)
    }
}

/// Without links; the procfs of the host is still there.
fn path_of(fd: BorrowedFd<'_>) -> Result<PathBuf, Errno> {
    let path = fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
    Ok(OsString::from_vec(path.into_bytes()).into())
}
