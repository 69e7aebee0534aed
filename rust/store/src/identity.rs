//! Whether the files a connection has open are still the ones at their path. SQLite itself continues to write to a removed
//! file; such a write would be acknowledged and lost.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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

/// What the write connection had open when it was made.
#[derive(Debug)]
pub(super) struct Identity {
    path: PathBuf,
    known: Mutex<(Files, u64)>,
}

impl Identity {
    /// Call while the write connection, the `generation`th, is open and has read once: only then all three files exist.
    pub fn record(path: &Path, generation: u64) -> Identity {
        Identity { path: path.to_owned(), known: Mutex::new((Files::now(path), generation)) }
    }

    /// What is not as it was. The pool may have replaced the connection (a later `generation`): log and index may then be
    /// new ones, the database may not.
    pub fn check(&self, generation: u64) -> Result<(), &'static str> {
        let now = Files::now(&self.path);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if now.database != known.0.database {
            return Err(match now.database {
                Some(_) => "another file has taken its place",
                None => "the file was removed",
            });
        }
        if generation != known.1 {
            *known = (now, generation);
        }
        if now == known.0 { Ok(()) } else { Err("its -wal or -shm file was removed or replaced") }
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
