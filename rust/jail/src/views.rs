//! Read-only views of files of the host. A read-only bind protects the content of files only: sockets and FIFOs in it can be
//! used, and locks and inotify watches reach the host's inodes. An overlay of the source and an empty directory has inodes of its own
//! for all of these, while its files keep the host's content.
//!
//! The kernel keeps the names that it has looked up in an overlay. A name that the host then replaces, removes or makes shows
//! only once the kernel forgets it: what [`Views::live`] returns is for a process that makes it forget ([`refresh`]).

use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use microsandbox_contract::{Mechanism, MechanismName, MechanismState};
use microsandbox_rooted::make;
use microsandbox_rooted::open::{Rule, open};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Mode, OFlags, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, fspick,
};

use crate::mounts::{self, Opt};

/// Mounts beneath one source that become views of their own; a source with more is bound plainly.
const MAX_SUBMOUNTS: usize = 64;
/// Views whose names are refreshed: as many descriptors as fit into one message (`SCM_MAX_FD` is 253).
pub const MAX_LIVE: usize = 128;
/// Largest list of mounts that is read.
const MAX_MOUNT_LIST: u64 = 16 << 20;
/// The name of the empty lower directory.
const EMPTY: &str = "empty";

/// The directory around a file: an overlay has directories as its layers.
pub struct Around {
    pub directory: OwnedFd,
    pub name: OsString,
}

/// A source, ready to be shown.
pub struct Tree {
    /// A detached mount of the source with everything beneath it.
    pub mount: OwnedFd,
    /// Of a file that is to be shown as a view: a detached mount of its directory.
    pub around: Option<Around>,
}

/// The views of one sandbox.
pub struct Views {
    /// A directory of the old root on which mounts may be put: they go with it at the pivot.
    stand: OwnedFd,
    scratch: Option<Scratch>,
    live: Vec<OwnedFd>,
    count: usize,
    /// Targets that are bound plainly, and why.
    plain: Vec<String>,
}

struct Scratch {
    top: OwnedFd,
    empty: OwnedFd,
}

/// A view that is not attached yet, with those of the mounts beneath it, outer ones first.
struct View {
    mount: OwnedFd,
    beneath: Vec<(PathBuf, OwnedFd)>,
}

impl Views {
    pub fn new(stand: &OwnedFd) -> Result<Views, Errno> {
        let stand = rustix::io::fcntl_dupfd_cloexec(stand, 0)?;
        Ok(Views { stand, scratch: None, live: Vec::new(), count: 0, plain: Vec::new() })
    }

    /// Attaches `tree` to `target` as a view; where the kernel makes none, as the plain bind, which the report then names by `path`.
    /// The result is what was attached.
    pub fn attach(
        &mut self,
        tree: &Tree,
        target: BorrowedFd<'_>,
        path: &str,
        noexec: bool,
        is_live: bool,
    ) -> Result<OwnedFd, Errno> {
        match self.make(tree, noexec) {
            Ok(view) => {
                mounts::attach(&view.mount, target)?;
                for (place, inner) in &view.beneath {
                    mounts::attach(inner, beneath(&view.mount, place)?)?;
                }
                self.count += 1;
                // A file keeps its inode, as every bind of one does.
                if is_live && tree.around.is_none() {
                    self.keep_live(&view)?;
                }
                Ok(view.mount)
            }
            Err(reason) => {
                self.plain.push(format!("{path} ({reason})"));
                mounts::attach(&tree.mount, target)?;
                rustix::io::fcntl_dupfd_cloexec(&tree.mount, 0)
            }
        }
    }

    fn keep_live(&mut self, view: &View) -> Result<(), Errno> {
        for mount in std::iter::once(&view.mount).chain(view.beneath.iter().map(|(_, mount)| mount)) {
            if self.live.len() < MAX_LIVE {
                self.live.push(fspick(mount, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?);
            }
        }
        Ok(())
    }

    fn make(&mut self, tree: &Tree, noexec: bool) -> Result<View, String> {
        let number = self.count + self.plain.len();
        let scratch = self.scratch().map_err(said("make a place for it"))?;
        let place = scratch.place(number).map_err(said("make a place for it"))?;
        match &tree.around {
            Some(around) => file_view(scratch, place, around, &tree.mount, noexec),
            None if make::is_dir(&tree.mount).map_err(said("look at it"))? => {
                directory_view(scratch, &place, &tree.mount, noexec)
            }
            None => Err("the directory of the file cannot be mounted".into()),
        }
    }

    fn scratch(&mut self) -> Result<&Scratch, Errno> {
        if self.scratch.is_none() {
            let plain = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            let top = mounts::fresh("tmpfs", &[Opt::Text("size", "4096"), Opt::Text("mode", "700")], plain)?;
            mounts::attach(&top, &self.stand)?;
            let empty = make::replace_with_dir(&top, EMPTY)?;
            self.scratch = Some(Scratch { top, empty });
        }
        self.scratch.as_ref().ok_or(Errno::NOENT)
    }

    /// How the read-only mounts are made; nothing where there are none.
    pub fn mechanism(&self) -> Option<Mechanism> {
        let views = "views: content of host files only, no sockets, FIFOs, locks or events of the host";
        if self.plain.is_empty() {
            return (self.count > 0).then(|| Mechanism::new(MechanismName::ReadonlyViews, MechanismState::On, views));
        }
        let reason = format!(
            "plain read-only binds, through which sockets, FIFOs, locks and inotify reach the host: {}",
            self.plain.join(", ")
        );
        Some(Mechanism::new(MechanismName::ReadonlyViews, MechanismState::Degraded, reason))
    }

    /// For [`refresh`]: the views in which names of the host may change.
    pub fn live(self) -> Vec<OwnedFd> {
        self.live
    }
}

/// Makes the kernel forget the names of a view that nothing holds open. The calling process must be the owner of the
/// sandbox's user namespace, or have its rights.
pub fn refresh(view: &OwnedFd) -> Result<(), Errno> {
    fsconfig_set_flag(view, "ro")?;
    fsconfig_reconfigure(view)
}

impl Scratch {
    /// A new directory to put a mount on.
    fn place(&self, number: usize) -> Result<OwnedFd, Errno> {
        make::replace_with_dir(&self.top, &number.to_string())
    }

    /// An overlay of `source`, which must be attached (a kernel before 6.15 takes no detached one), and nothing. The option is one short
    /// list in every kernel: no path of the host is shown in `mountinfo`.
    fn overlay(&self, source: impl AsFd, noexec: bool) -> Result<OwnedFd, String> {
        let source = source.as_fd();
        let lowers = format!("/proc/self/fd/{}:/proc/self/fd/{}", source.as_raw_fd(), self.empty.as_raw_fd());
        let made = (|| {
            let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV;
            let noexec = noexec || fs::fstatvfs(source)?.f_flag.contains(StatVfsMountFlags::NOEXEC);
            attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, noexec);
            let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_flag(&context, "userxattr")?;
            fsconfig_set_string(&context, "lowerdir", lowers.as_str())?;
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        })();
        made.map_err(said("overlay it"))
    }
}

fn directory_view(scratch: &Scratch, place: &OwnedFd, source: &OwnedFd, noexec: bool) -> Result<View, String> {
    mounts::attach(source, place).map_err(said("attach it"))?;
    let mount = scratch.overlay(source, noexec)?;
    let mut inner = Vec::new();
    for path in submounts(source).map_err(said("list the mounts in it"))? {
        if inner.len() == MAX_SUBMOUNTS {
            return Err(format!("more than {MAX_SUBMOUNTS} mounts are in it"));
        }
        let at = |error| format!("{} in it: {error}", path.display());
        let lower = beneath(source, &path).map_err(|error| at(error.to_string()))?;
        if !make::is_dir(&lower).map_err(|error| at(error.to_string()))? {
            return Err(at("a file is mounted there".into()));
        }
        let overlay = scratch.overlay(&lower, noexec).map_err(at)?;
        inner.push((path, overlay));
    }
    Ok(View { mount, beneath: inner })
}

/// The view of the directory, of which only the file is shown.
fn file_view(scratch: &Scratch, place: OwnedFd, around: &Around, file: &OwnedFd, noexec: bool) -> Result<View, String> {
    mounts::attach(&around.directory, &place).map_err(said("attach its directory"))?;
    let overlay = scratch.overlay(&around.directory, noexec)?;
    let cut = (|| {
        // Over the directory itself: only an attached mount can be copied from, before Linux 6.15.
        mounts::attach(&overlay, &around.directory)?;
        let shown = fs::openat(
            &overlay,
            around.name.as_os_str(),
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let (found, meant) = (fs::fstat(&shown)?, fs::fstat(file)?);
        if (found.st_ino, found.st_mode) != (meant.st_ino, meant.st_mode) {
            return Err(Errno::STALE);
        }
        mounts::copy_tree(&shown)
    })();
    Ok(View { mount: cut.map_err(said("cut the file out"))?, beneath: Vec::new() })
}

fn said<E: Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("cannot {what}: {error}")
}

/// A place beneath a mount, through other mounts but through no link.
fn beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = path.to_str().ok_or(Errno::INVAL)?;
    open(root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), Rule::PLAIN)
}

/// Where other mounts are attached beneath an attached one, outer ones first.
fn submounts(mount: &OwnedFd) -> Result<Vec<PathBuf>, Errno> {
    if microsandbox_sys::mount::has_children(mount)? == Some(false) {
        return Ok(Vec::new());
    }
    let id = fs::statx(mount, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id;
    let mut list = Vec::new();
    let file = std::fs::File::open("/proc/self/mountinfo").map_err(errno)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_MOUNT_LIST), &mut list).map_err(errno)?;
    Ok(within(&list, id))
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Of a list of mounts (proc(5), `mountinfo`): the places of those beneath mount `id`, relative to it.
fn within(list: &[u8], id: u64) -> Vec<PathBuf> {
    let number = |field: Option<&[u8]>| std::str::from_utf8(field?).ok()?.parse::<u64>().ok();
    let entries: Vec<(u64, u64, PathBuf)> = list
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|&byte| byte == b' ');
            let (own, parent) = (number(fields.next())?, number(fields.next())?);
            Some((own, parent, unescaped(fields.nth(2)?)))
        })
        .collect();
    let Some((.., top)) = entries.iter().find(|(own, ..)| *own == id) else { return Vec::new() };
    let mut family = std::collections::BTreeSet::from([id]);
    loop {
        let known = family.len();
        family.extend(
            entries.iter().filter(|(_, parent, _)| family.contains(parent)).map(|(own, ..)| *own).collect::<Vec<_>>(),
        );
        if family.len() == known {
            break;
        }
    }
    let places = entries.iter().filter(|(own, ..)| *own != id && family.contains(own));
    let mut places: Vec<PathBuf> =
        places.filter_map(|(.., path)| path.strip_prefix(top).ok().map(Path::to_owned)).collect();
    places.retain(|path| !path.as_os_str().is_empty());
    places.sort_by_key(|path| path.components().count());
    places.dedup();
    places
}

/// `\040` is a space (proc(5)).
fn unescaped(field: &[u8]) -> PathBuf {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match octal {
            Some(digits) => {
                text.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &after[3..];
            }
            None => {
                text.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(text))
}

/// The directory around the file behind `file`, detached, if it is the one in which `path` lies.
pub fn around(path: &Path, file: &OwnedFd) -> Result<Around, Errno> {
    let (parent, name) = (path.parent().ok_or(Errno::INVAL)?, path.file_name().ok_or(Errno::INVAL)?);
    let parent = fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let there = fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let place = |fd: &OwnedFd| {
        let found = fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | StatxFlags::INO)?;
        Ok::<_, Errno>((found.stx_mnt_id, found.stx_ino))
    };
    let meant = place(file)?;
    // A file that is mounted there itself is not the one in the directory.
    if place(&there)? != meant || place(&parent)?.0 != meant.0 {
        return Err(Errno::STALE);
    }
    Ok(Around { directory: mounts::copy_one(&parent)?, name: OsString::from_vec(name.as_bytes().to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_beneath_another_one_are_found_by_their_parents() {
        let list = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
            7 1 8:1 /src /stand/0 ro - ext4 /dev/a rw\n\
            9 8 0:5 / /stand/0/a\\040b/c rw - tmpfs t rw\n\
            8 7 0:4 / /stand/0/a\\040b rw - tmpfs t rw\n\
            5 1 0:6 / /stand/0/not/ours rw - tmpfs t rw\n\
            6 1 0:7 / /stand/01 rw - tmpfs t rw\n";
        assert_eq!(within(list, 7), [PathBuf::from("a b"), PathBuf::from("a b/c")]);
        assert_eq!(within(list, 9), Vec::<PathBuf>::new());
        assert_eq!(within(list, 77), Vec::<PathBuf>::new());
        assert_eq!(within(b"\xff x\n\n7", 7), Vec::<PathBuf>::new());
    }
}
