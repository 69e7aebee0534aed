//! The lock file beside the database: shared while opening, exclusive while creating or migrating.
//!
//! It is also the witness that the database was complete once. SQLite takes an empty file for a new database; with this
//! witness, a database that was emptied is an error instead of a silent new beginning.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::holder;
use super::identity::sibling;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

const WITNESS: &[u8] = b"complete\n";
const POLL: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Exclusive,
}

/// Released when dropped, or by the kernel when its process ends.
pub(super) struct MigrationLock {
    file: File,
    path: PathBuf,
}

impl MigrationLock {
    /// None: the lock file can neither be made nor opened, because the home is read-only here.
    pub async fn acquire(database: &Path, mode: Mode, deadline: Instant) -> MicrosandboxResult<Option<MigrationLock>> {
        let path = sibling(database, ".migration.lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_read_only(&error) => return Ok(None),
            Err(error) => return Err(MicrosandboxError::io("open", &path, error)),
        };
        let lock = MigrationLock { file, path };
        lock.wait(database, mode, deadline).await?;
        Ok(Some(lock))
    }

    /// Polls, because a blocking `flock` has no deadline and would hold a thread.
    async fn wait(&self, database: &Path, mode: Mode, deadline: Instant) -> MicrosandboxResult<()> {
        let operation = match mode {
            Mode::Shared => FlockOperation::NonBlockingLockShared,
            Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            match rustix::fs::flock(self.file.as_fd(), operation) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                Err(Errno::WOULDBLOCK | Errno::INTR) => return Err(self.timed_out(database)),
                // A mount without locks: SQLite has none either and says so itself.
                Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => return Ok(()),
                Err(errno) => return Err(MicrosandboxError::io("lock", &self.path, errno.into())),
            }
        }
    }

    fn timed_out(&self, database: &Path) -> MicrosandboxError {
        let holder = holder::of_lock_file(&self.path).map(|pid| format!(" by process {pid}")).unwrap_or_default();
        MicrosandboxError::StateBusy {
            path: database.to_owned(),
            message: format!("it is being created or migrated{holder} (lock file {}); try again", self.path.display()),
        }
    }

    /// Whether the database was complete at some time.
    pub fn has_witness(&self) -> bool {
        let mut content = Vec::new();
        (&self.file).take(64).read_to_end(&mut content).is_ok() && content.starts_with(WITNESS)
    }

    pub fn leave_witness(&self) -> MicrosandboxResult<()> {
        if self.file.metadata().is_ok_and(|meta| meta.len() > 0) {
            return Ok(());
        }
        (&self.file).write_all(WITNESS).map_err(|error| MicrosandboxError::io("write", &self.path, error))
    }
}

/// Read-only file system, missing permission, or an immutable directory.
pub(super) fn is_read_only(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM))
}
