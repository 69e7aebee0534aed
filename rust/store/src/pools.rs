//! The two sides of the database: one connection that writes, and a few that read, made when first needed.
//!
//! Every connection is a thread of the SQLite driver, so they are kept few and idle readers end. None survives a fork: the
//! process that opened is recorded, and a child gets an error instead of a hang or a damaged file. What a child opens itself
//! has nothing in common with its parent's.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Access, FileType, Mode};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions, query};
use sea_orm::{DatabaseConnection, DbErr, RuntimeErr, SqlxSqliteConnector};
use sea_orm_migration::MigratorTrait;

use super::errors::{self, Fault};
use super::identity::{Identity, sibling};
use super::lock::{self, MigrationLock, is_read_only};
use super::migration::{self, Migrator, SchemaState};
use super::retry::Retry;
use microsandbox_core::config::DatabaseConfig;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

/// `MAX_PATHNAME` of SQLite's unix files, less its longest suffix (`-journal`).
const PATH_MAX: usize = 512 - 8;
/// Mode of the database: configurations hold environment variables, which may be secrets.
const PRIVATE: u32 = 0o600;
/// An idle reader ends after this.
const READER_IDLE: Duration = Duration::from_secs(10);

/// Both sides, and the identity of the file.
pub(super) struct Pools {
    pub path: PathBuf,
    pid: u32,
    read: DatabaseConnection,
    /// Absent when the home is read-only here.
    writer: Option<Writer>,
    busy: Duration,
}

/// The write side.
struct Writer {
    connection: DatabaseConnection,
    identity: Arc<Identity>,
}

impl Pools {
    /// Opens, creates or migrates, whichever is needed; a current schema costs a few small reads.
    pub async fn open(path: &Path, config: &DatabaseConfig) -> MicrosandboxResult<Pools> {
        let deadline = Instant::now() + connect_timeout(config);
        microsandbox_sys::sqlite::separate_from_parent();
        make_directory(path)?;
        if !is_writable(path) {
            return open_read_only(path, config).await;
        }
        let Some(lock) = MigrationLock::acquire(path, lock::Mode::Shared, deadline).await? else {
            return open_read_only(path, config).await;
        };
        if path.exists() {
            keep_private(path);
            let writer = connect_writer(path, config, false).await.map_err(|fault| fault.into_error(path))?;
            let state = migration::inspect(&writer.connection, path).await.map_err(|fault| fault.into_error(path))?;
            if state == SchemaState::Current {
                return Ok(Pools::assemble(path, config, writer));
            }
            if state == SchemaState::Empty && lock.has_witness() {
                return Err(errors::corrupt(path, "the file is empty, though it held a complete database"));
            }
        }
        drop(lock);
        Pools::migrate(path, config, deadline).await
    }

    async fn migrate(path: &Path, config: &DatabaseConfig, deadline: Instant) -> MicrosandboxResult<Pools> {
        let Some(lock) = MigrationLock::acquire(path, lock::Mode::Exclusive, deadline).await? else {
            return Err(errors::read_only(path, "its schema is not current and cannot be brought up to date"));
        };
        let to_error = |fault: Fault| fault.into_error(path);
        make_private(path)?;
        let writer = connect_writer(path, config, true).await.map_err(to_error)?;
        let mut retry = Retry::within(deadline.saturating_duration_since(Instant::now()));
        loop {
            match bring_up_to_date(&writer.connection, path).await {
                Ok(()) => break,
                Err(fault) if retry.again(&fault).await => {}
                Err(fault) => return Err(to_error(fault)),
            }
        }
        lock.leave_witness()?;
        Ok(Pools::assemble(path, config, writer))
    }

    fn assemble(path: &Path, config: &DatabaseConfig, writer: Writer) -> Pools {
        Pools {
            path: path.to_owned(),
            pid: std::process::id(),
            read: readers(config, options(path, config).read_only(true)),
            writer: Some(writer),
            busy: Duration::from_secs(config.busy_timeout_secs),
        }
    }

    /// True in a child made by fork.
    pub fn is_forked(&self) -> bool {
        self.pid != std::process::id()
    }

    pub fn read(&self) -> MicrosandboxResult<&DatabaseConnection> {
        self.refuse_fork()?;
        Ok(&self.read)
    }

    /// Runs one write, as often as the busy rules allow, and acknowledges it only if the file it went to is the one at the
    /// path.
    pub async fn write<'a, T, F>(&'a self, attempt: impl Fn(&'a DatabaseConnection) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.refuse_fork().map_err(Fault::Refused)?;
        let Some(writer) = &self.writer else {
            return Err(Fault::Refused(errors::read_only(&self.path, "it is opened for reading only")));
        };
        let lost = |what| Fault::Refused(errors::lost(&self.path, what));
        writer.identity.check().map_err(lost)?;
        let mut retry = Retry::within(self.busy);
        let result = loop {
            match attempt(&writer.connection).await {
                Err(fault) if retry.again(&fault).await => {}
                result => break result,
            }
        };
        writer.identity.check().map_err(lost)?;
        result
    }

    fn refuse_fork(&self) -> MicrosandboxResult<()> {
        if !self.is_forked() {
            return Ok(());
        }
        Err(MicrosandboxError::InvalidState(format!(
            "the state database {} was opened by process {}; after a fork, make a new backend in the child",
            self.path.display(),
            self.pid
        )))
    }
}

async fn bring_up_to_date(pool: &DatabaseConnection, path: &Path) -> Result<(), Fault> {
    if migration::inspect(pool, path).await? != SchemaState::Current {
        Migrator::up(pool, None).await?;
        migration::add_own(pool).await?;
        if migration::inspect(pool, path).await? != SchemaState::Current {
            return Err(Fault::corrupt("the schema is not complete after all its steps"));
        }
    }
    Ok(())
}

/// For a path that is too long SQLite reports only "unable to open".
pub(super) fn check_length(path: &Path) -> MicrosandboxResult<()> {
    let length = path.as_os_str().len();
    if length <= PATH_MAX {
        return Ok(());
    }
    Err(MicrosandboxError::InvalidConfig(format!(
        "the path of the state database is {length} bytes long and SQLite takes {PATH_MAX}: choose a shorter MSB_HOME ({})",
        path.display()
    )))
}

/// Private to its owner: configurations hold environment variables of sandboxes.
fn make_directory(path: &Path) -> MicrosandboxResult<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(error) if is_read_only(&error) => {
            Err(errors::read_only(path, &format!("its directory cannot be made: {error}")))
        }
        Err(error) => Err(MicrosandboxError::io("create directory", dir, error)),
    }
}

/// The database as an empty file that only its owner can read: SQLite gives log and index the mode of the database. A file that
/// exists is not opened, because to close it would drop SQLite's locks on it.
fn make_private(path: &Path) -> MicrosandboxResult<()> {
    match File::options().write(true).create_new(true).mode(PRIVATE).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(MicrosandboxError::io("create", path, error)),
    }
}

/// Takes the rights of others from a database that another version made. One of another owner stays as it is.
fn keep_private(path: &Path) {
    let is_shared = rustix::fs::lstat(path)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o077 != 0);
    if !is_shared {
        return;
    }
    for file in [path.to_owned(), sibling(path, "-wal"), sibling(path, "-shm")] {
        // Its owner can always do it; no other user may.
        let _ = rustix::fs::chmod(&file, Mode::from_raw_mode(PRIVATE));
    }
}

/// A file that is there but must not be written, or whose directory must not. Asked with `access`: to open and close the
/// file ourselves would drop SQLite's locks on it.
fn is_writable(path: &Path) -> bool {
    let denied = |result: rustix::io::Result<()>| result.is_err_and(|errno| is_read_only(&errno.into()));
    let dir = path.parent().unwrap_or(Path::new("."));
    !denied(rustix::fs::access(path, Access::WRITE_OK)) && !denied(rustix::fs::access(dir, Access::WRITE_OK))
}

fn options(path: &Path, config: &DatabaseConfig) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(config.busy_timeout_secs))
        .thread_name(|n| format!("msb-sqlite-{n}"))
        .disable_statement_logging()
}

/// Zero would refuse even a free connection.
fn connect_timeout(config: &DatabaseConfig) -> Duration {
    Duration::from_secs(config.connect_timeout_secs.max(1))
}

async fn connect_writer(path: &Path, config: &DatabaseConfig, create: bool) -> Result<Writer, Fault> {
    let options = options(path, config).create_if_missing(create).journal_mode(SqliteJournalMode::Wal);
    let identity = Arc::new(Identity::of(path));
    let seen = identity.clone();
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(connect_timeout(config))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let seen = seen.clone();
            Box::pin(async move {
                // Opens log and index. What is wrong is reported by the first statement that needs it.
                let has_read = query("SELECT 1 FROM sqlite_schema LIMIT 1").execute(&mut *connection).await.is_ok();
                let mark = seen.opened(has_read);
                // The driver drops the hook right before it closes the connection, whatever the reason; there is no other
                // notice of the close. The hook itself has nothing to do.
                connection.lock_handle().await?.set_rollback_hook(move || {
                    let _held_while_open = &mark;
                });
                Ok(())
            })
        })
        .connect_with(options)
        .await
        .map_err(connection_error)?;
    Ok(Writer { connection: SqlxSqliteConnector::from_sqlx_sqlite_pool(pool), identity })
}

fn readers(config: &DatabaseConfig, options: SqliteConnectOptions) -> DatabaseConnection {
    let pool = SqlitePoolOptions::new()
        .max_connections(config.max_connections.max(1))
        .min_connections(0)
        .acquire_timeout(connect_timeout(config))
        .idle_timeout(READER_IDLE)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(options);
    SqlxSqliteConnector::from_sqlx_sqlite_pool(pool)
}

/// A home on a read-only medium or of another user: what is there can be read.
async fn open_read_only(path: &Path, config: &DatabaseConfig) -> MicrosandboxResult<Pools> {
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Err(errors::read_only(path, "it does not exist and cannot be made here")),
        Err(error) => return Err(errors::read_only(path, &error.to_string())),
    }
    // Without a log, and where none can be made, the file alone is the whole state; SQLite otherwise insists on a -shm file.
    let has_log = sibling(path, "-wal").metadata().is_ok_and(|meta| meta.len() > 0);
    let read = readers(config, options(path, config).read_only(true).immutable(!has_log));
    match migration::inspect(&read, path).await.map_err(|fault| fault.into_error(path))? {
        SchemaState::Current | SchemaState::Unindexed => {}
        _ => return Err(errors::read_only(path, "its schema is not current and cannot be brought up to date")),
    }
    Ok(Pools {
        path: path.to_owned(),
        pid: std::process::id(),
        read,
        writer: None,
        busy: Duration::from_secs(config.busy_timeout_secs),
    })
}

fn connection_error(error: sea_orm::SqlxError) -> Fault {
    Fault::Db(DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))))
}
