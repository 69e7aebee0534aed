//! One lock file per name of a sandbox or volume: a task that changes what the name means holds the lock. The kernel
//! releases the lock when the holder dies.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::undo::Cut;

/// Held until dropped.
pub struct NameLock {
    file: File,
    path: PathBuf,
}

impl NameLock {
    /// Without waiting: `None` when another task or process holds it.
    pub async fn try_acquire(home: &Path, name: &str) -> MicrosandboxResult<Option<NameLock>> {
        let (home, name) = (home.to_owned(), name.to_owned());
        crate::blocking(move || NameLock::try_acquire_now(&home, &name)).await
    }

    fn try_acquire_now(home: &Path, name: &str) -> MicrosandboxResult<Option<NameLock>> {
        let directory = home.join("run").join("locks");
        crate::make_private_directory(&directory)?;
        let path = directory.join(file_name(name));
        loop {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(|e| MicrosandboxError::io("open", &path, e))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(MicrosandboxError::io("lock", &path, e.into())),
            }
            // The holder before us may have removed the file: then this lock guards nothing.
            let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| a.ino() == b.ino() && a.dev() == b.dev();
            match (file.metadata(), std::fs::metadata(&path)) {
                (Ok(ours), Ok(there)) if same(&ours, &there) => return Ok(Some(NameLock { file, path })),
                _ => continue,
            }
        }
    }

    /// Waits for it, at most `deadline`.
    pub async fn acquire(home: &Path, name: &str, deadline: Duration) -> MicrosandboxResult<NameLock> {
        NameLock::acquire_for(home, name, &format!("sandbox {name}"), deadline).await
    }

    /// The same for a caller who may be gone before it is free.
    pub async fn acquire_unless(
        home: &Path,
        name: &str,
        deadline: Duration,
        cut: &Cut,
    ) -> MicrosandboxResult<NameLock> {
        NameLock::wait_for(home, name, &format!("sandbox {name}"), deadline, Some(cut)).await
    }

    /// The same for `what`, which errors call by that name.
    pub async fn acquire_for(home: &Path, name: &str, what: &str, deadline: Duration) -> MicrosandboxResult<NameLock> {
        NameLock::wait_for(home, name, what, deadline, None).await
    }

    async fn wait_for(
        home: &Path,
        name: &str,
        what: &str,
        deadline: Duration,
        cut: Option<&Cut>,
    ) -> MicrosandboxResult<NameLock> {
        let begin = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(lock) = NameLock::try_acquire(home, name).await? {
                return Ok(lock);
            }
            if begin.elapsed() >= deadline {
                return Err(MicrosandboxError::InvalidState(format!(
                    "{what} is being created, started or removed by another task or process for over {} s",
                    deadline.as_secs()
                )));
            }
            cut.map_or(Ok(()), Cut::check)?;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(25));
        }
    }

    /// The name is free: the file goes while the lock is held.
    pub async fn remove_file(self) {
        // A file left behind is harmless: the next holder finds and uses it.
        let _ = crate::blocking(move || {
            let _ = std::fs::remove_file(&self.path);
            drop(self.file);
            Ok(())
        })
        .await;
    }
}

/// 32 hex digits, whatever the name's length.
fn file_name(name: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(name.as_bytes());
    format!("{}.lock", hex::encode(&digest[..16]))
}
