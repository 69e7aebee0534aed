//! Mounts by descriptor: made detached, given their attributes, then attached to a target that was resolved to a
//! descriptor before. No mount is ever placed by a path.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use microsandbox_sys::process;

/// Attribute bits of a mount, for [`restrict`].
pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// What the option list of a classic `mount` call may hold.
const OPTION_PAGE: usize = 4096;

/// An option of a file system that is about to be mounted.
pub enum Opt<'a> {
    Flag(&'a str),
    Text(&'a str, &'a str),
}

/// Nothing that is mounted from now on leaves this mount namespace, and nothing comes in.
pub fn make_private() -> Result<(), Errno> {
    mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// A fresh instance of a kernel file system, not yet attached.
pub fn fresh(kind: &str, options: &[Opt<'_>], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in options {
        match option {
            Opt::Flag(key) => mount::fsconfig_set_flag(&context, *key)?,
            Opt::Text(key, value) => mount::fsconfig_set_string(&context, *key, *value)?,
        }
    }
    mount::fsconfig_create(&context)?;
    mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// An overlay of `lowers` (bottom first) under `upper`, not yet attached. All are descriptors opened in this mount
/// namespace, so no directory above them needs to be reachable for the sandbox's ids. `here` is a directory that something may
/// be mounted over.
pub fn overlay(lowers: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd, here: &OwnedFd) -> Result<OwnedFd, Errno> {
    // Layers one by one since 6.8, or all in one list. A kernel that does not know a way may say so only when the file system is
    // created (before 6.5 options are collected unread), so each way is tried to its end. Never by descriptor (since 6.13): the kernel
    // would show the paths of the host in `mountinfo`, where it shows a name as it was given.
    match overlay_by_name(lowers, upper, work) {
        Err(Errno::INVAL | Errno::NOENT | Errno::OPNOTSUPP) => overlay_by_list(lowers, upper, work, here),
        other => other,
    }
}

fn overlay_by_name(lowers: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd) -> Result<OwnedFd, Errno> {
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let context = overlay_context()?;
    lowers.iter().rev().try_for_each(|lower| mount::fsconfig_set_string(&context, "lowerdir+", name(lower)))?;
    mount::fsconfig_set_string(&context, "upperdir", name(upper))?;
    mount::fsconfig_set_string(&context, "workdir", name(work))?;
    create_overlay(&context)
}

fn create_overlay(context: &OwnedFd) -> Result<OwnedFd, Errno> {
    mount::fsconfig_create(context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// `volatile`: without it, every end of a sandbox (and every `sync` inside) would write back the whole file system that
/// holds the product home. What a sandbox writes survives the sandbox and its runtime; a power loss of the host loses
/// at most what the host kernel's own write-back had not yet written. Kernels before 5.10 have no such option.
fn overlay_context() -> Result<OwnedFd, Errno> {
    let context = mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    mount::fsconfig_set_flag(&context, "userxattr")?;
    let _ = mount::fsconfig_set_flag(&context, "volatile");
    Ok(context)
}

/// The oldest way, of kernels before 6.5: one option list, which must fit into a page (relative names keep it short),
/// and a mount that is attached when it is made. That mount can be opened only by a name in a directory that may be
/// searched, so a temporary file system is mounted over `here` to hold that name; the overlay is mounted in it.
fn overlay_by_list(lowers: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd, here: &OwnedFd) -> Result<OwnedFd, Errno> {
    let list: Vec<String> = lowers.iter().rev().map(|fd| fd.as_raw_fd().to_string()).collect();
    let options = format!(
        "userxattr,volatile,lowerdir={},upperdir={},workdir={}",
        list.join(":"),
        upper.as_raw_fd(),
        work.as_raw_fd()
    );
    if options.len() >= OPTION_PAGE {
        return Err(Errno::TOOBIG);
    }
    let options = process::c_string(options)?;
    let plain = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let stand = fresh("tmpfs", &[Opt::Text("size", "4096"), Opt::Text("mode", "700")], plain)?;
    attach(&stand, here)?;
    fs::mkdirat(&stand, "top", Mode::from_raw_mode(0o700))?;
    let place = fs::openat(&stand, "top", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let target = format!("/proc/self/fd/{}", place.as_raw_fd());
    rustix::process::chdir("/proc/self/fd")?;
    let flags = mount::MountFlags::NOSUID | mount::MountFlags::NODEV;
    let mounted = mount::mount("overlay", target.as_str(), "overlay", flags, options.as_c_str());
    // Not back to where it was: the ids inside may not enter the sandbox's directory.
    rustix::process::fchdir(&stand)?;
    mounted?;
    let top = mount::open_tree(&stand, "top", OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE)?;
    mount::unmount(target.as_str(), UnmountFlags::DETACH)?;
    Ok(top)
}

/// A detached copy of the mount that holds `source`, with all mounts beneath it, rooted at `source`.
pub fn copy_tree(source: impl AsFd) -> Result<OwnedFd, Errno> {
    mount::open_tree(
        source,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH,
    )
}

/// A detached copy of the mount that holds `source`, rooted at `source`, without the mounts beneath it.
pub fn copy_one(source: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    mount::open_tree(source, "", flags)
}

/// Adds restrictions to a detached mount and everything beneath it, and cuts it off from its peers.
pub fn restrict(tree: impl AsFd, attributes: u64) -> Result<(), Errno> {
    microsandbox_sys::mount::set_attributes(tree, true, attributes, libc::MS_PRIVATE, None)
}

/// Makes an attached mount itself read-only; what is mounted in it stays as it is.
pub fn freeze(mount: impl AsFd) -> Result<(), Errno> {
    microsandbox_sys::mount::set_attributes(mount, false, RDONLY, 0, None)
}

/// Attaches a detached mount on what `target` refers to.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    mount::move_mount(
        tree,
        "",
        target,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// A device, detached and ready to attach: one of the attached directory `own`, or of the host's `/dev`. Refused unless it really is the
/// device of these numbers.
pub fn device(own: Option<BorrowedFd<'_>>, name: &str, major: u32, minor: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match own {
        Some(own) => fs::openat(own, name, flags, Mode::empty()),
        None => fs::open(format!("/dev/{name}"), flags, Mode::empty()),
    }?;
    let stat = fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != fs::makedev(major, minor) {
        return Err(Errno::NODEV);
    }
    let tree = copy_tree(&fd)?;
    restrict(&tree, NOSUID | NOEXEC)?;
    Ok(tree)
}

/// Makes `root` the root directory and detaches the old one.
pub fn pivot(root: impl AsFd) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    // The old root ends up stacked over the new one; the working directory is still the new one beneath it.
    rustix::process::pivot_root(".", ".")?;
    mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}
