//! A tar archive that is unpacked while it arrives. The archive's reader pulls and the client pushes, so a thread of its
//! own is between them; it ends with the transfer.

use std::path::Component;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use microsandbox_protocol::message::FsAttrs;
use microsandbox_protocol::names::to_text;
use microsandbox_rooted::tar::{self, Entry, Kind, Source};

use super::error::{FsError, check_path};
use super::names;
use super::root::Root;
use super::writer::Writer;
use super::{attributes, entries};

/// Pieces between the client and the thread.
const QUEUE: usize = 4;
/// The archive's reader keeps a header and a name.
const STACK: usize = 256 << 10;
/// Bytes of an extended header: names, times and attributes of one entry.
const LONGEST_EXTENSION: u64 = 1 << 20;

type Unpacking = JoinHandle<Result<(), FsError>>;

/// The transfer. What was unpacked before an error stays.
pub struct Unpack {
    path: String,
    thread: Option<(SyncSender<Bytes>, Unpacking)>,
    /// Bytes taken so far.
    pub written: u64,
}

impl Unpack {
    pub fn new(path: String) -> Unpack {
        Unpack { path, thread: None, written: 0 }
    }

    pub fn write(&mut self, root: &Arc<Root>, input: Vec<Bytes>) -> Result<(), FsError> {
        if self.thread.is_none() {
            self.begin(root)?;
        }
        for data in input {
            self.written += data.len() as u64;
            let sent = self.thread.as_ref().is_some_and(|(sender, _)| sender.send(data).is_ok());
            if !sent {
                // The thread gave up and says why.
                return Err(self.join().err().unwrap_or_else(FsError::cancelled));
            }
        }
        Ok(())
    }

    fn begin(&mut self, root: &Arc<Root>) -> Result<(), FsError> {
        check_path(&self.path)?;
        names::mkdir(root, &self.path, None)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let (root, base) = (Arc::clone(root), self.path.trim_end_matches('/').to_owned());
        let thread = std::thread::Builder::new()
            .name("untar".into())
            .stack_size(STACK)
            .spawn(move || unpack(&root, &base, Feed { receiver, piece: Bytes::new(), at: 0 }))
            .map_err(|error| FsError::new("EAGAIN", format!("cannot start unpacking {}: {error}", self.path)))?;
        self.thread = Some((sender, thread));
        Ok(())
    }

    /// All of the archive is here: waits until it is unpacked.
    pub fn finish(mut self) -> Result<(), FsError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), FsError> {
        let Some((sender, thread)) = self.thread.take() else { return Ok(()) };
        drop(sender);
        thread.join().unwrap_or_else(|_| Err(FsError::new("EIO", "unpacking ended early")))
    }
}

/// The client's data as a reader. A client that left looks like the end, which makes an unfinished archive an error.
struct Feed {
    receiver: Receiver<Bytes>,
    piece: Bytes,
    /// What was taken of the piece.
    at: usize,
}

impl Source for Feed {
    fn next(&mut self, most: u64) -> &[u8] {
        if self.at == self.piece.len() {
            self.piece = self.receiver.recv().unwrap_or_default();
            self.at = 0;
        }
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.piece.len() - self.at);
        let start = self.at;
        self.at += count;
        &self.piece[start..start + count]
    }
}

fn unpack(root: &Root, base: &str, mut feed: Feed) -> Result<(), FsError> {
    let bad = |error: tar::Error| FsError::new("InvalidArchive", format!("the archive cannot be read: {error}"));
    // A directory's times and modes come last: what is put into it would change or forbid them.
    let mut directories = Vec::new();
    while let Some(entry) = tar::next_entry(&mut feed, LONGEST_EXTENSION).map_err(bad)? {
        let target = beneath(base, &entry.path)?;
        let attrs = attributes_of(&entry);
        if entry.kind == Kind::Dir {
            names::mkdir(root, &target, None)?;
            directories.push((target, attrs));
        } else if place(root, base, &target, &entry, &mut feed)? {
            settle(root, &target, attrs)?;
        }
        tar::skip_padding(&mut feed, entry.size).map_err(bad)?;
    }
    // What follows the end mark is padding; the client still sends it.
    while !feed.next(u64::MAX).is_empty() {}
    directories.into_iter().rev().try_for_each(|(path, attrs)| settle(root, &path, attrs))
}

/// Where an entry goes: below the base, whatever its name says.
fn beneath(base: &str, name: &[u8]) -> Result<String, FsError> {
    let text = to_text(name);
    let mut target = base.to_owned();
    for part in std::path::Path::new(&*text).components() {
        match part {
            Component::Normal(part) => {
                target.push('/');
                target.push_str(&part.to_string_lossy());
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(FsError::invalid(&text, "in the archive leads out of it"));
            }
        }
    }
    Ok(if target.is_empty() { "/".to_owned() } else { target })
}

fn attributes_of(entry: &Entry) -> FsAttrs {
    FsAttrs {
        uid: Some(entry.uid),
        gid: Some(entry.gid),
        mode: Some(entry.mode),
        mtime: Some(entry.mtime.0),
        ..FsAttrs::default()
    }
}

/// Everything but a directory. False for a hard link, which shares its attributes.
fn place(root: &Root, base: &str, target: &str, entry: &Entry, feed: &mut Feed) -> Result<bool, FsError> {
    if matches!(entry.kind, Kind::Fifo | Kind::Device) {
        let text = format!("{target}: entries of the type {:?} cannot be unpacked", entry.kind);
        return Err(FsError::new("InvalidArchive", text));
    }
    if let Some((parent, _)) = target.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        names::mkdir(root, parent, None)?;
    }
    clear(root, target)?;
    match entry.kind {
        Kind::Symlink => names::symlink(root, &to_text(&entry.link), target).map(|()| true),
        Kind::Hardlink => names::link(root, &beneath(base, &entry.link)?, target).map(|()| false),
        _ => pour(root, target, entry.size, feed).map(|()| true),
    }
}

/// Removes the entry at the name of a new file, as tar(1) does; a directory is not removed.
fn clear(root: &Root, target: &str) -> Result<(), FsError> {
    match names::remove(root, target) {
        Err(error) if error.errno == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn pour(root: &Root, target: &str, size: u64, feed: &mut Feed) -> Result<(), FsError> {
    let mut writer = Writer::of_path(target.to_owned(), None, false);
    writer.open(root)?;
    let mut left = size;
    while left > 0 {
        let piece = feed.next(left);
        if piece.is_empty() {
            return Err(FsError::new("InvalidArchive", format!("the archive ends in {target}")));
        }
        left -= piece.len() as u64;
        writer.write(piece)?;
    }
    writer.finish()
}

/// Owner, mode and time. An owner that this sandbox does not know leaves the file to root, a set-id bit that it may not set
/// is left out: such a program would be nothing more here anyway.
fn settle(root: &Root, target: &str, attrs: FsAttrs) -> Result<(), FsError> {
    let is_link = entries::stat(root, target, false)?.kind == "symlink";
    let attrs = FsAttrs { mode: attrs.mode.filter(|_| !is_link), ..attrs };
    let unowned = FsAttrs { uid: None, gid: None, ..attrs };
    let harmless = FsAttrs { mode: unowned.mode.map(|mode| mode & 0o1777), ..unowned };
    let mut done = attributes::set(root, target, false, &attrs);
    for less in [unowned, harmless] {
        match done {
            Err(ref error) if matches!(error.errno, Some(libc::EPERM | libc::EINVAL)) => {
                done = attributes::set(root, target, false, &less);
            }
            other => return other,
        }
    }
    done
}
