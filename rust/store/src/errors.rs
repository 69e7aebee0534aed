//! From errors of SQLite to errors that say what the caller can do. No text contains SQL.

use std::path::Path;

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlxError};

use super::holder;
use microsandbox_core::error::MicrosandboxError;

/// Primary result codes (<https://www.sqlite.org/rescode.html>); the low byte of an extended code.
mod primary {
    pub const PERM: i32 = 3;
    pub const BUSY: i32 = 5;
    pub const LOCKED: i32 = 6;
    pub const NOMEM: i32 = 7;
    pub const READONLY: i32 = 8;
    pub const IOERR: i32 = 10;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const CANTOPEN: i32 = 14;
    pub const PROTOCOL: i32 = 15;
    pub const NOTADB: i32 = 26;
}

/// `SQLITE_BUSY_SNAPSHOT`: another connection wrote since this transaction began to read.
pub(super) const BUSY_SNAPSHOT: i32 = 517;
/// `SQLITE_IOERR_SHORT_READ`: the file ends where a page should be.
const IOERR_SHORT_READ: i32 = 522;
/// `SQLITE_READONLY_DBMOVED`.
const READONLY_DBMOVED: i32 = 1032;
/// `SQLITE_CONSTRAINT_UNIQUE` and `SQLITE_CONSTRAINT_PRIMARYKEY`.
const CONSTRAINT_UNIQUE: [i32; 2] = [2067, 1555];

/// The failure of one attempt, before it becomes an error of the caller.
#[derive(Debug)]
pub(super) enum Fault {
    Db(DbErr),
    /// The content contradicts itself.
    Corrupt(String),
    /// A finished error, returned unchanged.
    Refused(MicrosandboxError),
}

impl From<DbErr> for Fault {
    fn from(error: DbErr) -> Self {
        Fault::Db(error)
    }
}

impl Fault {
    pub fn corrupt(message: impl Into<String>) -> Self {
        Fault::Corrupt(message.into())
    }

    /// SQLite's extended result code.
    pub fn code(&self) -> Option<i32> {
        match self {
            Fault::Db(error) => sqlite_code(error),
            Fault::Corrupt(_) | Fault::Refused(_) => None,
        }
    }

    /// Another connection was in the way: the same attempt may succeed later.
    pub fn is_busy(&self) -> bool {
        self.code().is_some_and(|code| code == BUSY_SNAPSHOT || code & 0xff == primary::BUSY)
    }

    pub fn is_unique_violation(&self) -> bool {
        self.code().is_some_and(|code| CONSTRAINT_UNIQUE.contains(&code))
    }

    /// What the caller gets.
    pub fn into_error(self, path: &Path) -> MicrosandboxError {
        match self {
            Fault::Refused(error) => error,
            Fault::Corrupt(message) => corrupt(path, &message),
            Fault::Db(error) => match sqlite_code(&error) {
                Some(code) => by_code(code, &error, path),
                None => without_code(&error, path),
            },
        }
    }
}

fn sqlx_error(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(inner))
        | DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner)) => Some(inner),
        _ => None,
    }
}

fn sqlite_code(error: &DbErr) -> Option<i32> {
    sqlx_error(error)?.as_database_error()?.code()?.parse().ok()
}

/// The message of SQLite, which names tables and columns but never a statement or a value.
fn words(error: &DbErr) -> String {
    match sqlx_error(error) {
        Some(SqlxError::Database(inner)) => inner.message().to_owned(),
        Some(inner) => inner.to_string(),
        None => error.to_string(),
    }
}

fn by_code(code: i32, error: &DbErr, path: &Path) -> MicrosandboxError {
    let message = words(error);
    match (code, code & 0xff) {
        (READONLY_DBMOVED, _) => lost(path, "the file was moved or removed"),
        (IOERR_SHORT_READ, _) | (_, primary::CORRUPT | primary::NOTADB) => corrupt(path, &message),
        (_, primary::BUSY | primary::LOCKED | primary::PROTOCOL) => busy(path, &message),
        (_, primary::READONLY | primary::PERM) => read_only(path, &message),
        (_, primary::FULL) => exhausted("disk", path, "the disk is full; nothing was changed"),
        (_, primary::NOMEM) => exhausted("memory", path, &message),
        (_, primary::IOERR) if disk_is_full(path) => exhausted("disk", path, "the disk is full; nothing was changed"),
        (_, primary::CANTOPEN) => cannot_open(path, &message),
        _ if message.starts_with("no such table") || message.starts_with("no such column") => corrupt(path, &message),
        _ => MicrosandboxError::Database { path: path.to_owned(), message },
    }
}

fn without_code(error: &DbErr, path: &Path) -> MicrosandboxError {
    if matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) {
        return busy(path, "no connection became free in time");
    }
    match sqlx_error(error) {
        Some(SqlxError::PoolTimedOut) => busy(path, "no connection became free in time"),
        Some(SqlxError::Io(inner)) => MicrosandboxError::Database { path: path.to_owned(), message: inner.to_string() },
        Some(SqlxError::ColumnDecode { .. } | SqlxError::Decode(_)) => {
            corrupt(path, "a value is not of its column's type")
        }
        None if matches!(error, DbErr::Type(_) | DbErr::Json(_) | DbErr::TryIntoErr { .. }) => {
            corrupt(path, "a value is not of its column's type")
        }
        _ => MicrosandboxError::Database { path: path.to_owned(), message: words(error) },
    }
}

pub(super) fn busy(path: &Path, message: &str) -> MicrosandboxError {
    let holder = match holder::of_database(path) {
        Some(pid) if pid == std::process::id() => " (held by another operation of this process)".to_owned(),
        Some(pid) => format!(" (held by process {pid})"),
        None => String::new(),
    };
    MicrosandboxError::StateBusy { path: path.to_owned(), message: format!("{message}{holder}; try again") }
}

pub(super) fn corrupt(path: &Path, message: &str) -> MicrosandboxError {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    MicrosandboxError::StateCorrupt {
        path: path.to_owned(),
        message: format!(
            "{message}. Keep a copy of {name}, {name}-wal and {name}-shm, then either restore a backup or recover what is \
             readable with `sqlite3 {name} .recover`; if all three files are moved away, the next start makes an empty database. \
             Directories of sandboxes and images are not touched"
        ),
    }
}

pub(super) fn read_only(path: &Path, message: &str) -> MicrosandboxError {
    MicrosandboxError::StateReadOnly {
        path: path.to_owned(),
        message: format!("{message}; reading works, changes need write permission on the file and its directory"),
    }
}

pub(super) fn lost(path: &Path, message: &str) -> MicrosandboxError {
    MicrosandboxError::StateLost {
        path: path.to_owned(),
        message: format!("{message}; what was written since may be lost. Open the backend anew"),
    }
}

fn exhausted(resource: &str, path: &Path, message: &str) -> MicrosandboxError {
    MicrosandboxError::ResourceExhausted {
        resource: resource.to_owned(),
        message: format!("{message} (state database {})", path.display()),
    }
}

/// One code of SQLite for several causes that call for different actions.
fn cannot_open(path: &Path, message: &str) -> MicrosandboxError {
    if let Err(error) = std::fs::File::open("/dev/null")
        && matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
    {
        return exhausted("fds", path, "no file descriptor is free");
    }
    if disk_is_full(path) {
        return exhausted("disk", path, "the disk is full; nothing was changed");
    }
    match path.metadata() {
        Ok(meta) if !meta.is_file() => {
            MicrosandboxError::Database { path: path.to_owned(), message: "it is not a regular file".to_owned() }
        }
        _ => MicrosandboxError::Database { path: path.to_owned(), message: message.to_owned() },
    }
}

fn disk_is_full(path: &Path) -> bool {
    path.parent()
        .and_then(|dir| rustix::fs::statvfs(dir).ok())
        .is_some_and(|stat| stat.f_bavail == 0 || stat.f_favail == 0 && stat.f_files > 0)
}
