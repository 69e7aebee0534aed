//! The directories of a copy from its top down to the present one. As many as a walk holds stay open; one that was closed is reached
//! again by `..` from the one below it, and only if it is still the same directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use microsandbox_rooted::attributes::set_mode;
use rustix::fs::{Gid, Mode, Stat, Timestamps, Uid};
use rustix::io::Errno;

use super::copy::{DIRECTORY, times};

/// Directories that stay open, the deepest ones, beside the top.
const MAX_OPEN: usize = 16;

/// The copy of a directory, and what it will be given once it is filled.
pub struct Target {
    /// Absent while it is too far above the present one.
    to: Option<OwnedFd>,
    identity: (u64, u64),
    owner: (u32, u32),
    mode: u32,
    times: Timestamps,
}

impl Target {
    fn new(to: OwnedFd, source: &Stat) -> Result<Target, Errno> {
        let identity = identity(&to)?;
        let owner = (source.st_uid, source.st_gid);
        Ok(Target { to: Some(to), identity, owner, mode: source.st_mode & 0o7777, times: times(source) })
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.to.as_ref().map(AsFd::as_fd).ok_or(Errno::STALE)
    }

    /// Everything is in it.
    pub fn finish(&self) -> Result<(), Errno> {
        let to = self.fd()?;
        let _ = rustix::fs::fchown(to, Some(Uid::from_raw(self.owner.0)), Some(Gid::from_raw(self.owner.1)));
        set_mode(to, self.mode)?;
        rustix::fs::futimens(to, &self.times)
    }
}

/// Never empty until the top was left.
pub struct Trail(Vec<Target>);

impl Trail {
    pub fn new(top: OwnedFd, source: &Stat) -> Result<Trail, Errno> {
        Ok(Trail(vec![Target::new(top, source)?]))
    }

    /// The top and the present directory.
    pub fn ends(&self) -> Result<(BorrowedFd<'_>, BorrowedFd<'_>), Errno> {
        match (self.0.first(), self.0.last()) {
            (Some(top), Some(present)) => Ok((top.fd()?, present.fd()?)),
            _ => Err(Errno::STALE),
        }
    }

    pub fn push(&mut self, to: OwnedFd, source: &Stat) -> Result<(), Errno> {
        self.0.push(Target::new(to, source)?);
        if let Some(far) = self.0.len().checked_sub(MAX_OPEN + 1).filter(|far| *far > 0) {
            self.0[far].to = None;
        }
        Ok(())
    }

    /// Goes back to the directory above; the one that is left is returned, still open.
    pub fn leave(&mut self) -> Result<Target, Errno> {
        let done = self.0.pop().ok_or(Errno::STALE)?;
        if let Some(above) = self.0.last_mut().filter(|above| above.to.is_none()) {
            let fd = rustix::fs::openat(done.fd()?, c"..", DIRECTORY, Mode::empty())?;
            // Moved to another place while it was filled: the way back is lost.
            if identity(&fd)? != above.identity {
                return Err(Errno::STALE);
            }
            above.to = Some(fd);
        }
        Ok(done)
    }
}

fn identity(fd: &OwnedFd) -> Result<(u64, u64), Errno> {
    rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}
