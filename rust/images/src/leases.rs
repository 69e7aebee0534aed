//! Leases: what an operation is about to use, so that no removal deletes it: `<cache>/leases/<random>.json`.
//!
//! A lease is written under the shared lock of the cache and read under its exclusive lock, so whoever deletes sees every
//! lease that was taken before. Its owner holds a `flock` on the file: a lease ends with its process, whatever the reason.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::cache::{CacheLock, LayerCache};
use super::document::Sha256Digest;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_home::{Home, make_private_directory};

/// Longest file of a lease: every layer of an archive of 1,024 images.
const MAX_BYTES: u64 = 128 << 20;

/// Held while an operation looks for, adds and uses blobs, layers and manifests. Dropped, it ends.
#[derive(Debug)]
pub struct Lease {
    file: File,
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Content {
    /// "load", "create sandbox web": for the person who asks why an image stays.
    operation: String,
    pid: u32,
    /// Manifests, blobs and chain ids alike.
    digests: BTreeSet<String>,
}

impl Lease {
    /// Takes a lease on manifests, blobs and chain ids, before their presence is looked up.
    pub async fn take(
        home: &Home,
        operation: impl Into<String>,
        digests: impl IntoIterator<Item = Sha256Digest>,
    ) -> MicrosandboxResult<Lease> {
        let cache = LayerCache::open(home)?;
        let lock = cache.lock_shared().await?;
        Lease::under(home, &lock, operation, digests)
    }

    /// As [`Lease::take`], for a caller that has looked under the shared lock and still holds it.
    pub fn under(
        home: &Home,
        _shared: &CacheLock,
        operation: impl Into<String>,
        digests: impl IntoIterator<Item = Sha256Digest>,
    ) -> MicrosandboxResult<Lease> {
        let directory = directory(home);
        make_private_directory(&directory)?;
        let path = directory.join(format!("{}.json", microsandbox_core::random::hex::<16>()?));
        let file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| MicrosandboxError::io("create the lease", &path, e))?;
        let digests = digests.into_iter().map(|digest| digest.as_str().to_owned()).collect();
        let content = Content { operation: operation.into(), pid: std::process::id(), digests };
        let lease = Lease { file, path, content };
        rustix::fs::flock(&lease.file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| MicrosandboxError::io("lock", &lease.path, e.into()))?;
        lease.write()?;
        Ok(lease)
    }

    /// Leaves out what the operation does not use any more.
    pub async fn give_up(&mut self, home: &Home, digests: &[Sha256Digest]) -> MicrosandboxResult<()> {
        let cache = LayerCache::open(home)?;
        let _shared = cache.lock_shared().await?;
        for digest in digests {
            self.content.digests.remove(digest.as_str());
        }
        self.write()
    }

    fn write(&self) -> MicrosandboxResult<()> {
        let text = serde_json::to_vec(&self.content).map_err(|e| MicrosandboxError::json("a lease", e))?;
        // No reader sees it half written: readers hold the exclusive lock of the cache.
        let written = self.file.write_all_at(&text, 0).and_then(|()| self.file.set_len(text.len() as u64));
        written.map_err(|e| MicrosandboxError::io("write the lease", &self.path, e))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Before the lock goes: a process that was forked off meanwhile keeps that one.
        let _ = fs::remove_file(&self.path);
    }
}

/// What one running operation uses.
#[derive(Debug)]
pub struct Leased {
    /// "load (process 4711)".
    pub holder: String,
    digests: BTreeSet<String>,
}

/// The leases of running operations.
#[derive(Debug, Default)]
pub struct Leases(Vec<Leased>);

impl Leases {
    /// Reads every lease whose owner lives; with `clear` the others are removed. The caller holds the exclusive lock of the cache.
    pub fn read(home: &Home, _exclusive: &CacheLock, clear: bool) -> MicrosandboxResult<Leases> {
        let directory = directory(home);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Leases::default()),
            Err(error) => return Err(MicrosandboxError::io("list", &directory, error)),
        };
        let mut live = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| MicrosandboxError::io("list", &directory, e))?.path();
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(MicrosandboxError::io("open the lease", &path, error)),
            };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => {
                    if clear {
                        let _ = fs::remove_file(&path);
                    }
                    continue;
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(MicrosandboxError::io("lock", &path, error.into())),
            }
            let mut text = Vec::new();
            file.take(MAX_BYTES).read_to_end(&mut text).map_err(|e| MicrosandboxError::io("read", &path, e))?;
            // What a running operation uses must be known before anything is deleted.
            let content: Content = serde_json::from_slice(&text)
                .map_err(|e| MicrosandboxError::json(format!("lease {}", path.display()), e))?;
            let holder = format!("{} (process {})", content.operation, content.pid);
            live.push(Leased { holder, digests: content.digests });
        }
        Ok(Leases(live))
    }

    /// All of them together.
    pub fn digests(&self) -> BTreeSet<String> {
        self.0.iter().flat_map(|lease| lease.digests.iter().cloned()).collect()
    }

    /// The operation that uses this manifest, blob or chain id.
    pub fn holder(&self, digest: &str) -> Option<&str> {
        self.0.iter().find(|lease| lease.digests.contains(digest)).map(|lease| lease.holder.as_str())
    }
}

fn directory(home: &Home) -> PathBuf {
    home.cache_dir().join("leases")
}

#[cfg(test)]
mod tests {
    use microsandbox_core::config::LocalConfig;

    use super::*;

    async fn held(home: &Home, digest: &Sha256Digest) -> Option<String> {
        let exclusive = LayerCache::open(home).unwrap().lock_exclusive().await.unwrap();
        Leases::read(home, &exclusive, true).unwrap().holder(digest.as_str()).map(str::to_owned)
    }

    #[tokio::test]
    async fn a_lease_is_seen_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(LocalConfig::default_for_home(dir.path()));
        let (one, two) = (Sha256Digest::of(b"one"), Sha256Digest::of(b"two"));
        let lease = Lease::take(&home, "load", [one.clone()]).await.unwrap();
        assert_eq!(held(&home, &one).await.unwrap(), format!("load (process {})", std::process::id()));
        assert!(held(&home, &two).await.is_none());
        let other = Lease::take(&home, "pull", [one.clone(), two.clone()]).await.unwrap();
        assert!(held(&home, &two).await.is_some());
        drop(lease);
        lease_of_one(&home, other, &one, &two).await;
        assert_eq!(fs::read_dir(directory(&home)).unwrap().count(), 0);
    }

    async fn lease_of_one(home: &Home, mut lease: Lease, one: &Sha256Digest, two: &Sha256Digest) {
        lease.give_up(home, std::slice::from_ref(two)).await.unwrap();
        assert!(held(home, two).await.is_none() && held(home, one).await.is_some());
        drop(lease);
        assert!(held(home, one).await.is_none());
    }

    #[tokio::test]
    async fn a_lease_of_a_dead_process_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(LocalConfig::default_for_home(dir.path()));
        let one = Sha256Digest::of(b"one");
        let lease = Lease::take(&home, "load", [one.clone()]).await.unwrap();
        // As a kill leaves it: the file without its lock.
        fs::copy(&lease.path, directory(&home).join("dead.json")).unwrap();
        drop(lease);
        assert!(held(&home, &one).await.is_none());
        assert_eq!(fs::read_dir(directory(&home)).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn no_lease_is_taken_while_layers_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(LocalConfig::default_for_home(dir.path()));
        let exclusive = LayerCache::open(&home).unwrap().lock_exclusive().await.unwrap();
        let (other, one) = (home.clone(), Sha256Digest::of(b"one"));
        let lease = tokio::spawn(async move { Lease::take(&other, "load", [one]).await });
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        assert!(!lease.is_finished());
        drop(exclusive);
        lease.await.unwrap().unwrap();
    }
}
