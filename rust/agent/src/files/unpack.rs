//! A tar archive that is unpacked while it arrives. The archive's reader pulls and the client pushes, so a thread of its
//! own is between them; it ends with the transfer.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use microsandbox_protocol::names::to_text;
use microsandbox_rooted::open::Rule;
use microsandbox_rooted::tar::{Archive, LONGEST_EXTENSION, Pieces, Source};
use microsandbox_rooted::unpack::{Failure, Rules, Unpack as Unpacking};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{FsError, check_path};
use super::names;
use super::root::Root;

/// Pieces between the client and the thread.
const QUEUE: usize = 4;
/// The archive's reader keeps a header and a name.
const STACK: usize = 256 << 10;

type Thread = JoinHandle<Result<(), FsError>>;

/// The transfer. What was unpacked before an error stays.
pub struct Unpack {
    path: String,
    thread: Option<(SyncSender<Bytes>, Thread)>,
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
        let (root, base) = (Arc::clone(root), self.path.clone());
        let thread = std::thread::Builder::new()
            .name("untar".into())
            .stack_size(STACK)
            .spawn(move || unpack(&root, &base, Pieces::new(|| receiver.recv().unwrap_or_default())))
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

/// `feed`: the client's data. A client that left looks like the end, which makes an unfinished archive an error.
fn unpack(root: &Root, path: &str, feed: impl Source) -> Result<(), FsError> {
    let failed = |error| FsError::at(error, "cannot unpack into", path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = root.open(path, flags, Mode::empty()).map_err(failed)?;
    // At the root nothing leads out; links there are absolute as well.
    let identity = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let is_root = identity(base.as_fd()).map_err(failed)? == identity(root.fd()).map_err(failed)?;
    let rules = Rules {
        parents: if is_root { Rule::INSIDE } else { Rule::BENEATH },
        keeps_owners: true,
        file_mode: 0o7777,
        directory_mode: 0o7777,
        makes_fifos: true,
        sets_top: true,
    };
    let mut unpacking = Unpacking::new(base, rules);
    let mut archive = Archive::new(feed, LONGEST_EXTENSION);
    let failed = |failure| refused(failure, path);
    while let Some(entry) = archive.next_entry().map_err(|error| failed(Failure::Archive(error)))? {
        unpacking.apply(&entry, &mut archive).map_err(failed)?;
    }
    // What follows the end mark is padding; the client still sends it.
    while !archive.source().next(u64::MAX).is_empty() {}
    unpacking.finish().map_err(failed)
}

fn refused(failure: Failure, base: &str) -> FsError {
    let text = failure.to_string();
    match failure {
        Failure::Archive(_) | Failure::Refused { .. } => FsError::new("InvalidArchive", text),
        Failure::LeadsOut { .. } => FsError::new("InvalidPath", text),
        Failure::Io { path, action, errno } => {
            let path = format!("{}/{}", base.trim_end_matches('/'), to_text(&path).trim_start_matches('/'));
            // What the resolver answers where a link leads out of the directory.
            if matches!(errno, Errno::XDEV | Errno::LOOP) {
                let text = format!("cannot {action} {path}: a link on the way leads out of {base}");
                return FsError { kind: "PathEscapes", errno: Some(errno.raw_os_error()), message: text };
            }
            FsError::at(errno, &format!("cannot {action}"), &path)
        }
    }
}
