//! The files of one volume, from this side. A guest may have put anything there, and may change it while we look.
//!
//! Every path is resolved beneath the volume's root ([`Rule::BENEATH`]): `..` above the root and links out
//! of it are refused. Nothing but a regular file is ever read, nothing is opened that could block.

mod fresh;
mod listing;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::{Bytes, BytesMut};
use futures::stream;
use microsandbox_contract::{Headroom, IdMap};
use microsandbox_protocol::names;
use microsandbox_rooted::open::{Rule, open};
use microsandbox_rooted::remove;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use self::fresh::{Fresh, Sink};
use self::listing::Listing;
use crate::disk_use;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{FsEntryKind, FsListStream, FsMetadata, FsReadStream, FsWriteSink};
use microsandbox_home::{Home, blocking, headroom};

/// Bytes that are read or copied per call.
const CHUNK: usize = 1 << 20;
/// Entries of a tree that are counted for its size.
const COUNTED: usize = 200_000;
const PATH_MAX: usize = 4096;

/// One volume's root directory.
#[derive(Clone)]
pub struct Tree {
    root: Arc<OwnedFd>,
    ids: IdMap,
    room: Room,
}

/// The free space that writing to a volume leaves to the host.
#[derive(Clone)]
pub struct Room {
    headroom: Headroom,
    volume: Arc<Path>,
}

impl Room {
    pub fn of(home: &Home, volume: &Path) -> Room {
        Room { headroom: headroom::of(&home.config().disk), volume: volume.into() }
    }

    /// Refuses to write where less than that is free. `file` is open on the file system of the volume.
    fn check(&self, file: impl AsFd) -> MicrosandboxResult<()> {
        headroom::check_open(self.headroom, file, &self.volume, || format!("write to volume {}", self.name()))
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.volume.file_name().unwrap_or_default().to_string_lossy()
    }
}

fn kind_of(stat: &Stat) -> FsEntryKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FsEntryKind::File,
        FileType::Directory => FsEntryKind::Directory,
        FileType::Symlink => FsEntryKind::Symlink,
        _ => FsEntryKind::Other,
    }
}

fn millis(seconds: i64, nanos: u64) -> Option<f64> {
    Some(seconds as f64 * 1000.0 + nanos as f64 / 1e6)
}

/// The error of a call, by its errno.
fn failed(operation: &str, path: &str, errno: Errno) -> MicrosandboxError {
    let (operation, path) = (operation.to_owned(), path.to_owned());
    let code = errno.raw_os_error();
    match errno {
        Errno::NOENT => MicrosandboxError::PathNotFound { operation, path },
        // What `Rule::BENEATH` refuses with.
        Errno::XDEV | Errno::LOOP => MicrosandboxError::Filesystem {
            operation,
            path,
            kind: "PathEscapes".into(),
            errno: Some(code),
            message: "the path leads out of the volume, or in circles".into(),
        },
        _ => {
            let kind = match errno {
                Errno::ISDIR => "EISDIR",
                Errno::NOTDIR => "ENOTDIR",
                Errno::EXIST => "EEXIST",
                Errno::NOTEMPTY => "ENOTEMPTY",
                Errno::ACCESS => "EACCES",
                Errno::PERM => "EPERM",
                Errno::NOSPC => "ENOSPC",
                Errno::ROFS => "EROFS",
                Errno::INVAL => "EINVAL",
                Errno::NAMETOOLONG => "ENAMETOOLONG",
                _ => "EIO",
            };
            let message = std::io::Error::from(errno).to_string();
            MicrosandboxError::Filesystem { operation, path, kind: kind.into(), errno: Some(code), message }
        }
    }
}

fn refused(operation: &str, path: &str, kind: &str, message: &str) -> MicrosandboxError {
    MicrosandboxError::Filesystem {
        operation: operation.into(),
        path: path.into(),
        kind: kind.into(),
        errno: None,
        message: message.into(),
    }
}

/// As the kernel wants it: relative, `.` for the root. A leading slash is the volume's root.
fn relative<'a>(operation: &str, path: &'a str) -> MicrosandboxResult<&'a str> {
    if path.contains('\0') || path.len() > PATH_MAX {
        return Err(refused(
            operation,
            &path.replace('\0', "\\0"),
            "EINVAL",
            "a path is at most 4096 bytes without NUL",
        ));
    }
    let path = path.trim_start_matches('/').trim_end_matches('/');
    Ok(if path.is_empty() { "." } else { path })
}

/// Directory and name; the root has neither.
fn split<'a>(operation: &str, path: &'a str) -> MicrosandboxResult<(&'a str, Cow<'a, OsStr>)> {
    let path = relative(operation, path)?;
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    if matches!(name, "." | "..") {
        return Err(refused(operation, path, "EINVAL", "this names no file of the volume"));
    }
    Ok((if parent.is_empty() { "." } else { parent }, names::to_os(name)))
}

impl Tree {
    pub fn new(root: OwnedFd, ids: IdMap, room: Room) -> Self {
        Tree { root: Arc::new(root), ids, room }
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        open(&*self.root, &*names::to_os(path), flags, Mode::empty(), Rule::BENEATH)
    }

    fn directory(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Translates a host id to the id inside; an id that is not mapped becomes that of the account `nobody`.
    fn inside(&self, id: u32) -> u32 {
        match &self.ids {
            IdMap::Range { base, count } => id.checked_sub(*base).filter(|inner| inner < count).unwrap_or(65_534),
            IdMap::Single { uid, .. } => {
                if id == *uid {
                    0
                } else {
                    65_534
                }
            }
            IdMap::Subordinate { uid, sub_uid, count, .. } => match id {
                id if id == *uid => 0,
                id => id.checked_sub(*sub_uid).filter(|inner| inner < count).map_or(65_534, |inner| inner + 1),
            },
        }
    }

    /// What we create belongs to root inside.
    fn give(&self, file: impl AsFd) -> Result<(), Errno> {
        match microsandbox_home::ids::inside_root(&self.ids) {
            Some((uid, gid)) => rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            None => Ok(()),
        }
    }

    /// A regular file, for reading.
    fn open_file(&self, operation: &str, path: &str) -> MicrosandboxResult<(File, Stat)> {
        let name = relative(operation, path)?;
        let fail = |errno| failed(operation, path, errno);
        // Not opened before it is known to be one: a device may act on being opened.
        let place = self.open(name, OFlags::PATH).map_err(fail)?;
        let stat = rustix::fs::fstat(&place).map_err(fail)?;
        match kind_of(&stat) {
            FsEntryKind::File => {}
            FsEntryKind::Directory => return Err(fail(Errno::ISDIR)),
            _ => return Err(refused(operation, path, "NotRegularFile", "only a regular file can be read")),
        }
        let file = self.open(name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).map_err(fail)?;
        let stat = rustix::fs::fstat(&file).map_err(fail)?;
        if kind_of(&stat) != FsEntryKind::File {
            return Err(refused(operation, path, "NotRegularFile", "it was changed while it was opened"));
        }
        Ok((File::from(file), stat))
    }

    pub async fn read_stream(self, path: &str) -> MicrosandboxResult<FsReadStream> {
        let path = path.to_owned();
        let (file, _) = blocking({
            let path = path.clone();
            move || self.open_file("read", &path)
        })
        .await?;
        let file = Arc::new(file);
        let pieces = stream::try_unfold(0u64, move |at| {
            let (file, path) = (file.clone(), path.clone());
            async move {
                let piece = blocking(move || read_at(&file, at, &path)).await?;
                Ok((!piece.is_empty()).then(|| (at + piece.len() as u64, piece)).map(|(next, piece)| (piece, next)))
            }
        });
        Ok(Box::pin(pieces))
    }

    pub async fn write_stream(self, path: &str) -> MicrosandboxResult<FsWriteSink> {
        let owned = path.to_owned();
        let fresh = blocking(move || Fresh::create(&self, "write", &owned, None)).await?;
        Ok(Box::new(Sink::new(fresh)))
    }

    pub async fn stat(self, operation: &'static str, path: &str) -> MicrosandboxResult<FsMetadata> {
        let path = path.to_owned();
        blocking(move || {
            let fail = |errno| failed(operation, &path, errno);
            let place = self.open(relative(operation, &path)?, OFlags::PATH).map_err(fail)?;
            let stat = rustix::fs::fstat(&place).map_err(fail)?;
            Ok(FsMetadata {
                kind: kind_of(&stat),
                size: u64::try_from(stat.st_size).unwrap_or_default(),
                mode: stat.st_mode,
                uid: self.inside(stat.st_uid),
                gid: self.inside(stat.st_gid),
                readonly: stat.st_mode & 0o222 == 0,
                modified_ms: millis(stat.st_mtime, stat.st_mtime_nsec),
                modified: Some((stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default())),
                created_ms: None,
            })
        })
        .await
    }

    /// One level in the directory's own order; paths are relative to the volume's root.
    pub async fn list_stream(self, path: &str) -> MicrosandboxResult<FsListStream> {
        let path = path.to_owned();
        let listing = blocking(move || Listing::open(&self, path)).await?;
        Ok(Box::pin(stream::try_unfold(listing, |mut listing| async move {
            blocking(move || {
                let page = listing.page()?;
                Ok((!page.is_empty()).then_some((page, listing)))
            })
            .await
        })))
    }

    pub async fn mkdir(self, path: &str) -> MicrosandboxResult<()> {
        let path = path.to_owned();
        blocking(move || {
            let fail = |errno| failed("mkdir", &path, errno);
            self.room.check(&*self.root)?;
            let mut done = String::from(".");
            for part in relative("mkdir", &path)?.split('/').filter(|part| !matches!(*part, "" | ".")) {
                let parent = self.directory(&done).map_err(fail)?;
                done.push('/');
                done.push_str(part);
                if part == ".." {
                    continue;
                }
                let part = &*names::to_os(part);
                let mode = Mode::from_raw_mode(0o755);
                match rustix::fs::mkdirat(&parent, part, mode) {
                    Ok(()) => {
                        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        let made = rustix::fs::openat(&parent, part, flags, Mode::empty()).map_err(fail)?;
                        // Whatever the caller's umask is.
                        rustix::fs::fchmod(&made, mode).map_err(fail)?;
                        self.give(&made).map_err(fail)?;
                    }
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(fail(error)),
                }
            }
            // The last one must be a directory, not a file of that name.
            self.directory(&done).map(drop).map_err(fail)
        })
        .await
    }

    pub async fn remove(self, path: &str, recursive: bool) -> MicrosandboxResult<()> {
        let path = path.to_owned();
        blocking(move || {
            let fail = |errno| failed("remove", &path, errno);
            let (parent, name) = split("remove", &path)?;
            let parent = self.directory(parent).map_err(fail)?;
            if !recursive {
                return rustix::fs::unlinkat(&parent, &*name, AtFlags::empty()).map_err(fail);
            }
            remove::directory(&parent, name.as_bytes(), &AtomicBool::new(false)).map_err(|errno| match errno {
                // Something is mounted inside.
                Errno::XDEV => fail(Errno::BUSY),
                errno => fail(errno),
            })
        })
        .await
    }

    pub async fn copy(self, from: &str, to: &str) -> MicrosandboxResult<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        blocking(move || {
            let (file, stat) = self.open_file("copy", &from)?;
            let mut fresh = Fresh::create(&self, "copy", &to, Some(stat.st_mode & 0o777))?;
            let mut at = 0;
            loop {
                let piece = read_at(&file, at, &from)?;
                if piece.is_empty() {
                    return fresh.publish();
                }
                at += piece.len() as u64;
                fresh.write(&piece)?;
            }
        })
        .await
    }

    /// As `rename(2)`: an existing target file is replaced.
    pub async fn rename(self, from: &str, to: &str) -> MicrosandboxResult<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        blocking(move || {
            let (from_dir, from_name) = split("rename", &from)?;
            let (to_dir, to_name) = split("rename", &to)?;
            let from_dir = self.directory(from_dir).map_err(|errno| failed("rename", &from, errno))?;
            let to_dir = self.directory(to_dir).map_err(|errno| failed("rename", &to, errno))?;
            rustix::fs::renameat(&from_dir, &*from_name, &to_dir, &*to_name)
                .map_err(|errno| failed("rename", &from, errno))
        })
        .await
    }

    /// Bytes of all regular files; of the first [`COUNTED`] entries where there are more.
    pub fn used_bytes(&self) -> u64 {
        let root = self.open(".", OFlags::RDONLY | OFlags::DIRECTORY);
        root.and_then(|root| disk_use::count(root, COUNTED)).unwrap_or_default().content()
    }
}

fn read_at(file: &File, at: u64, path: &str) -> MicrosandboxResult<Bytes> {
    let mut piece = BytesMut::zeroed(CHUNK);
    let count = file.read_at(&mut piece, at).map_err(|error| {
        let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        failed("read", path, errno)
    })?;
    piece.truncate(count);
    Ok(piece.freeze())
}

#[cfg(test)]
#[path = "../../rooted/tests/rooted/deep.rs"]
mod deep;

#[cfg(test)]
mod tests {
    use super::deep::{DEPTH, nest, open as open_directory, peak, scratch, under_each_limit};
    use super::*;

    /// H1: the same of a volume, which a guest fills, and of looking at how much is in it.
    #[test]
    fn a_deep_volume_is_counted_and_emptied_with_any_limit() {
        under_each_limit("volume_files::tests::a_deep_volume_is_counted_and_emptied_with_any_limit", || {
            let scratch = scratch();
            let inner = scratch.path().join("inner");
            std::fs::create_dir(&inner).unwrap();
            nest(&inner, DEPTH);
            std::fs::write(scratch.path().join("file"), "12345").unwrap();
            let before = peak();
            let room = Room { headroom: Headroom::Bytes(0), volume: scratch.path().into() };
            let tree = Tree::new(open_directory(scratch.path()), IdMap::Single { uid: 0, gid: 0 }, room);
            assert_eq!(tree.used_bytes(), 5);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let not_empty = runtime.block_on(tree.clone().remove("inner", false));
            assert!(not_empty.is_err());
            runtime.block_on(tree.remove("inner", true)).unwrap();
            assert!(!inner.exists());
            // The names of the present path are kept while it is walked.
            assert!(peak() - before < 64 << 20, "{} bytes more", peak() - before);
        });
    }
}
