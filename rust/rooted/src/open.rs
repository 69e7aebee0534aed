//! Resolving a path beneath a root: by the kernel where it knows `openat2`, else by hand with the same result.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::by_hand;

/// How often a resolution that raced with a rename is tried again.
const RETRIES: u32 = 128;

/// `openat2` is unknown to this kernel or refused by a filter.
static UNKNOWN: AtomicBool = AtomicBool::new(false);

/// Where a path that leads above its root ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceiling {
    /// At the root, as after `chroot`: absolute paths and links start there.
    Root,
    /// Nowhere: `EXDEV`.
    Refused,
    /// Wherever it leads. By hand it ends at the root nevertheless.
    Open,
}

/// What a path may lead through. Magic links of procfs are always refused with `ELOOP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub ceiling: Ceiling,
    /// Symbolic links are followed; else they are refused with `ELOOP`.
    pub links: bool,
    /// Mount points are crossed; else they are refused with `EXDEV`. By hand only other devices are noticed.
    pub mounts: bool,
}

impl Rule {
    /// As in a chroot: links are followed and stay inside.
    pub const INSIDE: Rule = Rule { ceiling: Ceiling::Root, links: true, mounts: true };
    /// As in a chroot, without any symbolic link on the way.
    pub const PLAIN: Rule = Rule { links: false, ..Rule::INSIDE };
    /// Links are followed; a path that leads out is refused.
    pub const BENEATH: Rule = Rule { ceiling: Ceiling::Refused, ..Rule::INSIDE };
    /// Neither out, nor through a link, nor into another mount.
    pub const STRICT: Rule = Rule { ceiling: Ceiling::Refused, links: false, mounts: false };
    /// No ceiling: for a look at a path that another process named.
    pub const ANYWHERE: Rule = Rule { ceiling: Ceiling::Open, ..Rule::INSIDE };

    fn flags(self) -> ResolveFlags {
        let mut flags = ResolveFlags::NO_MAGICLINKS;
        flags |= match self.ceiling {
            Ceiling::Root => ResolveFlags::IN_ROOT,
            Ceiling::Refused => ResolveFlags::BENEATH,
            Ceiling::Open => ResolveFlags::empty(),
        };
        flags.set(ResolveFlags::NO_SYMLINKS, !self.links);
        flags.set(ResolveFlags::NO_XDEV, !self.mounts);
        flags
    }
}

/// Opens `path` from the directory `root` under `rule`. The descriptor is close-on-exec.
pub fn open(root: impl AsFd, path: impl AsRef<OsStr>, flags: OFlags, mode: Mode, rule: Rule) -> Result<OwnedFd, Errno> {
    let (root, path) = (root.as_fd(), path.as_ref().as_bytes());
    let by_hand = || match by_hand::open(root, path, flags, mode, rule) {
        Err(by_hand::MAGIC_LINK) => Err(Errno::LOOP),
        other => other,
    };
    if UNKNOWN.load(Ordering::Relaxed) {
        return by_hand();
    }
    match by_kernel(root, path, flags | OFlags::CLOEXEC, mode, rule.flags()) {
        Err(Errno::NOSYS) => {
            UNKNOWN.store(true, Ordering::Relaxed);
            by_hand()
        }
        // A party that renames at full speed can win every race; the resolution by hand holds each directory it passed.
        Err(Errno::AGAIN | Errno::INTR) if rule.ceiling != Ceiling::Open => by_hand(),
        other => other,
    }
}

/// Whether a magic link is what made [`open`] with [`Rule::INSIDE`] return `ELOOP`, which also means a loop of links.
pub fn is_magic_link(root: impl AsFd, path: impl AsRef<OsStr>, flags: OFlags) -> bool {
    let (root, path) = (root.as_fd(), path.as_ref().as_bytes());
    let flags = OFlags::PATH | OFlags::CLOEXEC | (flags & OFlags::NOFOLLOW);
    if UNKNOWN.load(Ordering::Relaxed) {
        return by_hand::open(root, path, flags, Mode::empty(), Rule::INSIDE).err() == Some(by_hand::MAGIC_LINK);
    }
    // Without the explicit flag a magic link is still refused beneath a root, but with another error.
    by_kernel(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).err() == Some(Errno::XDEV)
}

fn by_kernel(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut last = Errno::AGAIN;
    for _ in 0..RETRIES {
        match rustix::fs::openat2(root, path, flags, mode, resolve) {
            Err(error @ (Errno::AGAIN | Errno::INTR)) => last = error,
            other => return other,
        }
    }
    Err(last)
}
