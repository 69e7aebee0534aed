//! What lies beneath a layer: the directories of the layers under it, seen as the overlay will show them. Asked only
//! where a layer's archive names something that it does not hold itself.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use microsandbox_rooted::open::{Rule, open};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Overlay attributes of a directory that hides what is beneath it, and of a whiteout made without `mknod`.
pub const OPAQUE: &str = "user.overlay.opaque";
pub const WHITEOUT: &str = "user.overlay.whiteout";

/// The layers beneath, top first.
pub struct Beneath {
    layers: Vec<OwnedFd>,
}

impl Beneath {
    pub fn new(top_first: Vec<OwnedFd>) -> Beneath {
        Beneath { layers: top_first }
    }

    /// What stands at `path` (names without symlinks among the parents), and in which layer.
    pub fn find(&self, path: &[Vec<u8>]) -> Result<Option<(BorrowedFd<'_>, Stat)>, Errno> {
        for layer in &self.layers {
            match look(layer, path)? {
                Seen::Nothing => {}
                Seen::Hidden => return Ok(None),
                Seen::There(stat) => return Ok(Some((layer.as_fd(), stat))),
            }
        }
        Ok(None)
    }
}

impl Beneath {
    /// Names at the root of the layers beneath the first one.
    pub fn root_names(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = Vec::new();
        for layer in self.layers.iter().skip(1) {
            for entry in fs::Dir::read_from(layer)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.push(name);
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

enum Seen {
    /// Not in this layer; the next one down is asked.
    Nothing,
    /// Deleted, or hidden by something of this layer.
    Hidden,
    There(Stat),
}

fn look(layer: &OwnedFd, path: &[Vec<u8>]) -> Result<Seen, Errno> {
    let mut at = rustix::io::fcntl_dupfd_cloexec(layer, 0)?;
    let mut opaque = false;
    for (index, name) in path.iter().enumerate() {
        let stat = match fs::statat(&at, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(if opaque { Seen::Hidden } else { Seen::Nothing }),
            Err(error) => return Err(error),
        };
        if is_whiteout(&at, name, &stat) {
            return Ok(Seen::Hidden);
        }
        if index + 1 == path.len() {
            return Ok(Seen::There(stat));
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(Seen::Hidden);
        }
        at = open_dir(&at, name)?;
        opaque |= is_opaque(&at);
    }
    fs::fstat(layer).map(Seen::There)
}

/// Opens the directory `name` in `at`, never through a symlink.
pub fn open_dir(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens what stands at `path` beneath `root`, refusing every symlink.
pub fn open_plain(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    open(root, OsStr::from_bytes(path), flags, Mode::empty(), Rule::STRICT)
}

/// Whether the overlay takes this entry for a deletion.
pub fn is_whiteout(at: &impl AsFd, name: &[u8], stat: &Stat) -> bool {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => stat.st_rdev == 0,
        FileType::RegularFile if stat.st_size == 0 => {
            let file = open_plain(at, name, OFlags::RDONLY | OFlags::NOFOLLOW);
            file.is_ok_and(|file| fs::fgetxattr(&file, WHITEOUT, &mut [0u8; 1][..]).is_ok())
        }
        _ => false,
    }
}

/// Whether the directory hides what is beneath it.
pub fn is_opaque(dir: impl AsFd) -> bool {
    let mut value = [0u8; 4];
    matches!(fs::fgetxattr(dir, OPAQUE, &mut value[..]), Ok(1) if value[0] == b'y')
}
