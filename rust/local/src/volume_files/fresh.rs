//! Writing a file of a volume: it appears, or is replaced, as a whole.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use futures::future::BoxFuture;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::Mutex;

use super::{Room, Tree, failed, kind_of, split};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{FsEntryKind, FsWriter};
use microsandbox_core::writing::Writing;
use microsandbox_home::blocking;

/// A file in the making: a temporary sibling that is renamed into place, or removed.
pub struct Fresh {
    operation: &'static str,
    path: String,
    parent: OwnedFd,
    name: OsString,
    temporary: OsString,
    file: File,
    length: u64,
    room: Room,
    published: bool,
}

/// Bytes written between two looks at the free space.
const LOOK_EVERY: u64 = 16 << 20;

impl Fresh {
    pub fn create(tree: &Tree, operation: &'static str, path: &str, mode: Option<u32>) -> MicrosandboxResult<Fresh> {
        let fail = |errno| failed(operation, path, errno);
        tree.room.check(&*tree.root)?;
        let (parent, name) = split(operation, path)?;
        let parent = tree.directory(parent).map_err(fail)?;
        let old = match rustix::fs::statat(&parent, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if kind_of(&stat) == FsEntryKind::Directory => return Err(fail(Errno::ISDIR)),
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(fail(error)),
        };
        // A replaced regular file keeps its permissions.
        let kept = old.filter(|stat| kind_of(stat) == FsEntryKind::File).map(|stat| stat.st_mode & 0o777);
        let mode = mode.or(kept).unwrap_or(0o644);
        let temporary = OsString::from(format!(".msb-{:016x}", RandomState::new().build_hasher().finish()));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, &temporary, flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
        let fresh = Fresh {
            operation,
            path: path.into(),
            parent,
            name: name.into_owned(),
            temporary,
            file: File::from(file),
            length: 0,
            room: tree.room.clone(),
            published: false,
        };
        tree.give(&fresh.file).map_err(fail)?;
        rustix::fs::fchmod(&fresh.file, Mode::from_raw_mode(mode)).map_err(fail)?;
        Ok(fresh)
    }

    fn failed(&self, error: &std::io::Error) -> MicrosandboxError {
        let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        failed(self.operation, &self.path, errno)
    }

    pub fn write(&mut self, data: &[u8]) -> MicrosandboxResult<()> {
        let after = self.length + data.len() as u64;
        if after / LOOK_EVERY != self.length / LOOK_EVERY {
            self.room.check(&self.file)?;
        }
        self.file.write_all_at(data, self.length).map_err(|error| self.failed(&error))?;
        self.length += data.len() as u64;
        Ok(())
    }

    pub fn publish(mut self) -> MicrosandboxResult<()> {
        self.file.sync_data().map_err(|error| self.failed(&error))?;
        rustix::fs::renameat(&self.parent, &self.temporary, &self.parent, &self.name)
            .map_err(|errno| failed(self.operation, &self.path, errno))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.published {
            let _ = rustix::fs::unlinkat(&self.parent, &self.temporary, AtFlags::empty());
        }
    }
}

pub struct Sink {
    file: Mutex<Writing<Fresh>>,
}

impl Sink {
    pub fn new(fresh: Fresh) -> Self {
        Sink { file: Mutex::new(Writing::Open(fresh)) }
    }
}

impl FsWriter for Sink {
    fn write(&self, data: Bytes) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            let mut file = self.file.lock().await;
            let mut fresh = file.step()?;
            let fresh = blocking(move || fresh.write(&data).map(|()| fresh)).await?;
            file.resume(fresh);
            Ok(())
        })
    }
    fn close(&self) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            let mut file = self.file.lock().await;
            if let Some(fresh) = file.last_step()? {
                blocking(move || fresh.publish()).await?;
                file.finish();
            }
            Ok(())
        })
    }
}
