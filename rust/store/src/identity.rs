//! Whether the files a connection has open are still the ones at their path. SQLite itself continues to write to a removed
//! file; such a write would be acknowledged and lost.
//!
//! SQLite removes log and index when the last connection to a database closes, and the pool may close its connection at any
//! time (it does when the runtime that returns the connection to the pool ends). So log and index are compared only while the
//! connection that had them open is open.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Device and inode; absent when there is no such file.
type FileId = Option<(u64, u64)>;

/// The database, its log and its index at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Files {
    database: FileId,
    log: FileId,
    index: FileId,
}

impl Files {
    fn now(path: &Path) -> Files {
        Files { database: id(path), log: id(&sibling(path, "-wal")), index: id(&sibling(path, "-shm")) }
    }
}

/// One connection of the write side.
#[derive(Debug, Default)]
struct Opened {
    /// Unknown if the connection could not read when it was made: then not all three files existed.
    files: Option<Files>,
    closed: AtomicBool,
}

/// Lives as long as a connection: to be dropped right before the connection closes its files.
#[derive(Debug)]
pub(super) struct OpenMark(Arc<Opened>);

impl Drop for OpenMark {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

/// What the write side had open when its first connection was made, and what the newest one has.
#[derive(Debug)]
pub(super) struct Identity {
    path: PathBuf,
    database: OnceLock<FileId>,
    newest: Mutex<Arc<Opened>>,
}

impl Identity {
    pub fn of(path: &Path) -> Identity {
        Identity { path: path.to_owned(), database: OnceLock::new(), newest: Mutex::default() }
    }

    /// A connection was made; `has_read`: it has its log and index open. The pool has at most one connection, so all earlier
    /// ones are closed or closing.
    pub fn opened(&self, has_read: bool) -> OpenMark {
        let files = Files::now(&self.path);
        self.database.get_or_init(|| files.database);
        let opened = Arc::new(Opened { files: has_read.then_some(files), closed: AtomicBool::new(false) });
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = opened.clone();
        OpenMark(opened)
    }

    /// What is not as it was.
    pub fn check(&self) -> Result<(), &'static str> {
        let opened = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = Files::now(&self.path);
        if self.database.get().is_some_and(|database| now.database != *database) {
            return Err(match now.database {
                Some(_) => "another file has taken its place",
                None => "the file was removed",
            });
        }
        // In this order: a connection that is open after the files were looked at had no part in their removal.
        if opened.files.is_some_and(|files| now != files) && !opened.closed.load(Ordering::Acquire) {
            return Err("its -wal or -shm file was removed or replaced");
        }
        Ok(())
    }
}

fn id(path: &Path) -> FileId {
    path.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// `msb.db` and `-wal` give `msb.db-wal`.
pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
