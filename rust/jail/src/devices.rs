//! Device nodes: our own where the host's root runs the sandbox, so that no watch, lock or time stamp of the host's nodes is within
//! reach; the host's nodes otherwise.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::mounts::{self, Opt};

/// Name, major and minor number (Linux, `admin-guide/devices.txt`).
pub type Device = (&'static str, u32, u32);

/// What every program expects.
pub const PROGRAMS: [Device; 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// A detached directory of new nodes, open to every user and owned by `owner`. Only host root may make one; a container manager may
/// refuse it even there.
pub fn own(devices: &[Device], options: &[Opt<'_>], owner: (u32, u32)) -> Result<OwnedFd, Errno> {
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let tree = mounts::fresh("tmpfs", options, flags)?;
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    for (name, major, minor) in devices {
        let mode = Mode::from_raw_mode(0o666);
        fs::mknodat(&tree, *name, FileType::CharacterDevice, mode, fs::makedev(*major, *minor))?;
        fs::chmodat(&tree, *name, mode, fs::AtFlags::empty())?;
        fs::chownat(&tree, *name, Some(uid), Some(gid), fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    fs::chownat(&tree, "", Some(uid), Some(gid), fs::AtFlags::EMPTY_PATH)?;
    Ok(tree)
}

/// Puts the host's nodes into the directory `dev`.
pub fn bind_host(devices: &[Device], dev: &OwnedFd) -> Result<(), Errno> {
    for (name, major, minor) in devices {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let target = fs::openat(dev, *name, flags, Mode::from_raw_mode(0o666))?;
        mounts::attach(mounts::device(None, name, *major, *minor)?, target)?;
    }
    Ok(())
}

/// `/dev/null`, detached: the one of `own`, which must be attached, or the host's.
pub fn null(own: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Errno> {
    mounts::device(own.as_ref().map(AsFd::as_fd), "null", 1, 3)
}
