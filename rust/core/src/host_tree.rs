//! A tree of the host as an archive on its way to a guest, and an archive of a guest as a tree of the host. Modes, times, links,
//! names of one file, holes and empty directories are kept. Owners are not: what arrives belongs to root inside, and to the
//! caller's user here. Set-id and sticky bits do not leave a guest, and its modes are what the caller's umask leaves of them.

use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt as _;
use microsandbox_protocol::names;
use microsandbox_rooted::open::{Ceiling, Rule};
use microsandbox_rooted::pack::{self, Owners, Pack};
use microsandbox_rooted::tar::{self, Archive, Kind, LONGEST_EXTENSION, Pieces, Source, quoted};
use microsandbox_rooted::unpack::{self, Placed, Unpack};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::files::Files;
use crate::guest_dirs::{self, GuestDirs};
use crate::host_target::permitted;

/// Bytes of an archive per piece.
const PIECE: usize = 1 << 20;
/// Pieces between the thread with the host's tree and the sandbox.
const QUEUE: usize = 4;
/// Characters of a name below the tree that an error shows.
const SHOWN: usize = 1024;
/// Entries that are named as left out.
const MAX_LEFT_OUT: usize = 1000;
/// Links planted by an earlier copy lead nowhere.
const PARENTS: Rule = Rule { ceiling: Ceiling::Refused, links: false, mounts: true };

/// What of a tree could not be copied, `a socket: name`, for the user: from a guest, so it is to be escaped.
pub type LeftOut = Vec<String>;

/// What is taken over of the modes of a host's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Permissions.
    Permissions,
    /// Set-id bits as well.
    All,
}

/// Copies the directory `host` to `guest`, which is made if it is missing; else it is merged into, and keeps its own attributes.
pub async fn send(files: &dyn Files, host: &Path, guest: &str, bits: Bits) -> MicrosandboxResult<LeftOut> {
    let mode = match bits {
        Bits::Permissions => 0o777,
        Bits::All => 0o7777,
    };
    let with_top = !exists(files, guest).await?;
    let guests = files.guest_dirs()?;
    let sink = files.write_tar(guest).await?;
    let (sender, mut pieces) = mpsc::channel::<Bytes>(QUEUE);
    let path = host.to_owned();
    let packing = tokio::task::spawn_blocking(move || pack_tree(&path, &guests, mode, with_top, &sender));
    while let Some(piece) = pieces.recv().await {
        sink.write(piece).await?;
    }
    let left_out = packing.await.map_err(ended_early)??;
    sink.close().await?;
    Ok(left_out)
}

/// Copies the directory `from` of one sandbox to `to` of another, with its owners. The same rule about the target.
pub async fn between(from: (&dyn Files, &str), to: (&dyn Files, &str)) -> MicrosandboxResult<LeftOut> {
    let mut archive = match exists(to.0, to.1).await? {
        true => from.0.read_tar(from.1).await?,
        false => from.0.read_tree(from.1).await?,
    };
    let sink = to.0.write_tar(to.1).await?;
    let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
    let reading = tokio::task::spawn_blocking(move || remarks(arriving(receiver)));
    while let Some(piece) = archive.next().await {
        let piece = piece?;
        // Whether the archive is sound is for the other sandbox to find.
        let _ = sender.send(piece.clone()).await;
        sink.write(piece).await?;
    }
    drop(sender);
    sink.close().await?;
    reading.await.map_err(ended_early)
}

/// What the archive's comments name as left out.
fn remarks(pieces: impl Source) -> LeftOut {
    let mut archive = Archive::new(pieces, LONGEST_EXTENSION);
    while matches!(archive.next_entry(), Ok(Some(_))) {}
    named_in_comments(&archive)
}

fn named_in_comments(archive: &Archive<impl Source>) -> LeftOut {
    let named = archive.comments().iter().filter_map(|text| text.strip_prefix(pack::LEFT_OUT));
    named.map(|name| names::to_text(name).into_owned()).collect()
}

async fn exists(files: &dyn Files, path: &str) -> MicrosandboxResult<bool> {
    match files.stat(path, false).await {
        Ok(_) => Ok(true),
        Err(MicrosandboxError::PathNotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn pack_tree(
    host: &Path,
    guests: &GuestDirs,
    mode: u32,
    with_top: bool,
    sender: &mpsc::Sender<Bytes>,
) -> MicrosandboxResult<LeftOut> {
    let failed = |error: Errno| MicrosandboxError::io("read", host, error.into());
    let top = guests
        .open(host, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|refusal| guest_dirs::refused("read", host, refusal))?;
    let rules = pack::Rules { owners: Owners::Root, mode, with_top };
    let mut packing = Pack::new(top, rules).map_err(failed)?;
    loop {
        let (piece, is_last) = packing.step(PIECE).map_err(|failure| unread(failure, host))?;
        // The receiver has gone and knows why.
        if sender.blocking_send(piece.into()).is_err() || is_last {
            return Ok(packing.left_out().iter().map(|name| names::to_text(name).into_owned()).collect());
        }
    }
}

fn unread(failure: pack::Failure, host: &Path) -> MicrosandboxError {
    let limit =
        |text: String| MicrosandboxError::io("read", host, std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
    match failure {
        pack::Failure::Io { path, errno } => MicrosandboxError::io("read", &below(host, &path), errno.into()),
        pack::Failure::TooDeep { depth } => {
            limit(format!("it is deeper than {depth} directories: copy the deeper ones by themselves"))
        }
        pack::Failure::TooMany { what, limit: most } => {
            limit(format!("it has more than {most} bytes of {what}: copy parts of it"))
        }
    }
}

/// Copies the directory `guest` to the directory `host`, which is made if it is missing; else it is merged into.
/// Directories that exist keep their own attributes. A link at `host` or below it is not followed.
pub async fn receive(files: &dyn Files, guest: &str, host: &Path) -> MicrosandboxResult<LeftOut> {
    let (mut archive, guests) = (files.read_tree(guest).await?, files.guest_dirs()?);
    let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
    let (path, from) = (host.to_owned(), guest.to_owned());
    let unpacking = tokio::task::spawn_blocking(move || unpack_tree(arriving(receiver), &from, &path, &guests));
    let mut broken = None;
    while let Some(piece) = archive.next().await {
        match piece {
            Ok(piece) => {
                if sender.send(piece).await.is_err() {
                    // The thread gave up and says why.
                    break;
                }
            }
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let unpacked = unpacking.await.map_err(ended_early)?;
    // An archive that broke off looks like one that is cut.
    broken.map_or(unpacked, Err)
}

fn arriving(mut receiver: mpsc::Receiver<Bytes>) -> impl Source {
    Pieces::new(move || receiver.blocking_recv().unwrap_or_default())
}

fn unpack_tree(pieces: impl Source, guest: &str, host: &Path, guests: &GuestDirs) -> MicrosandboxResult<LeftOut> {
    let (base, is_new) = directory(host, guests)?;
    // Links that come are the guest's, and outlive this copy.
    let mut marked =
        Some(rustix::io::fcntl_dupfd_cloexec(&base, 3).map_err(|e| MicrosandboxError::io("open", host, e.into()))?);
    let rules = unpack::Rules {
        parents: PARENTS,
        keeps_owners: false,
        file_mode: permitted(0o777),
        directory_mode: permitted(0o777),
        makes_fifos: false,
        sets_top: is_new,
    };
    let mut unpacking = Unpack::new(base, rules);
    let mut archive = Archive::new(pieces, LONGEST_EXTENSION);
    let mut left_out = LeftOut::new();
    let malformed = |error: tar::Error| unreadable(guest, &error);
    while let Some(entry) = archive.next_entry().map_err(malformed)? {
        if entry.kind == Kind::Symlink
            && let Some(base) = marked.take()
        {
            guests.add(base)?;
        }
        let placed = unpacking.apply(&entry, &mut archive).map_err(|failure| unplaced(failure, guest, host))?;
        if placed == Placed::LeftOut && left_out.len() < MAX_LEFT_OUT {
            left_out.push(format!("a fifo: {}", names::to_text(&entry.path)));
        }
    }
    left_out.extend(named_in_comments(&archive));
    while !archive.source().next(u64::MAX).is_empty() {}
    unpacking.finish().map_err(|failure| unplaced(failure, guest, host))?;
    Ok(left_out)
}

/// The directory `host` itself, and whether it was made: then it is closed for others until the archive says its mode.
fn directory(host: &Path, guests: &GuestDirs) -> MicrosandboxResult<(OwnedFd, bool)> {
    let failed = |error: Errno| MicrosandboxError::io("write", host, error.into());
    let (parent, name) = match (host.parent(), host.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => (parent, name),
        (_, Some(name)) => (Path::new("."), name),
        // `.`, `..` and `/` are themselves.
        (_, None) => (host, ".".as_ref()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = guests.open(parent, flags).map_err(|refusal| guest_dirs::refused("write", host, refusal))?;
    let is_new = match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(failed(error)),
    };
    let base = rustix::fs::openat(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty());
    let base = base.map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR if is_link(host) => escapes(host),
        error => failed(error),
    })?;
    Ok((base, is_new))
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink())
}

fn escapes(path: &Path) -> MicrosandboxError {
    MicrosandboxError::Filesystem {
        operation: "write".into(),
        path: path.display().to_string(),
        kind: "PathEscapes".into(),
        errno: Some(libc::ELOOP),
        message: "a symbolic link is in the place of a directory on the host; remove it or name its target".into(),
    }
}

fn unreadable(guest: &str, error: &dyn Display) -> MicrosandboxError {
    MicrosandboxError::Filesystem {
        operation: "read".into(),
        path: guest.into(),
        kind: "InvalidArchive".into(),
        errno: None,
        message: format!("the archive of the sandbox cannot be read: {error}"),
    }
}

fn unplaced(failure: unpack::Failure, guest: &str, host: &Path) -> MicrosandboxError {
    match failure {
        unpack::Failure::Io { path, errno: Errno::LOOP | Errno::XDEV, .. } => escapes(&below(host, &path)),
        unpack::Failure::Io { path, errno, .. } => MicrosandboxError::io("write", &below(host, &path), errno.into()),
        unpack::Failure::Refused { path, why } => unreadable(guest, &format!("{} {why}", quoted(&path))),
        other => unreadable(guest, &other),
    }
}

fn below(host: &Path, name: &[u8]) -> PathBuf {
    let text = names::to_text(name);
    let text = text.trim_matches('/');
    // Of a very deep one, the end.
    match text.char_indices().rev().nth(SHOWN) {
        Some((cut, _)) => host.join(format!("…{}", &text[cut..])),
        None => host.join(names::to_os(text)),
    }
}

fn ended_early(error: tokio::task::JoinError) -> MicrosandboxError {
    MicrosandboxError::Runtime(format!("a file task ended early: {error}"))
}
