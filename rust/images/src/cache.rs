//! Unpacked layers on disk: `<cache>/layers/<chain id hex>/`, complete or absent.
//!
//! | name in `layers/` | what |
//! |---|---|
//! | `<hex>` | the tree of a layer on the layers beneath it (its chain id); complete if its marker is there too |
//! | `<hex>.json` | the marker: what is known about it; first on the way in and first on the way out |
//! | `.tmp-*` | trees being unpacked, with a lock file whose holder is alive |
//! | `.gone-*` | trees being deleted |
//! | `.lock` | shared while a lease is written, exclusive while it is marked what goes; for moments |
//! | `.sweep` | held for a moment while a `.tmp-*` is made or looked for |

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use microsandbox_contract::IdMap;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::document::Sha256Digest;
use super::failure::{Failure, io};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_home::Home;
use microsandbox_home::layer_tree::{Owner, sync_dir};
use microsandbox_home::{make_private_directory, tree};

const TEMPORARY: &str = ".tmp-";
const GONE: &str = ".gone-";
/// How long one waits for the holder of the lock, who needs it for moments.
const LOCK_DEADLINE: Duration = Duration::from_secs(30);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What `<hex>.json` says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Unpacked size.
    pub bytes: u64,
    pub entries: u64,
}

#[derive(Debug, Clone)]
pub struct LayerCache {
    root: PathBuf,
    ids: IdMap,
}

/// Released when dropped.
#[derive(Debug)]
pub struct CacheLock(#[expect(dead_code, reason = "held for its lock")] File);

impl LayerCache {
    /// The cache of this home; its directory is made if need be.
    pub fn open(home: &Home) -> MicrosandboxResult<LayerCache> {
        let root = directory(home);
        make_private_directory(&root)?;
        Ok(LayerCache { root, ids: home.id_map()? })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn layer_dir(&self, chain_id: &Sha256Digest) -> PathBuf {
        self.root.join(chain_id.hex())
    }

    /// What is known of a layer that is there.
    pub fn facts(&self, chain_id: &Sha256Digest) -> Option<LayerFacts> {
        if !self.layer_dir(chain_id).is_dir() {
            return None;
        }
        // Without a marker it is what an interrupted deletion left.
        let text = match fs::read(self.marker(chain_id)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            read => read.ok(),
        };
        // A marker that cannot be read costs a size in a table, no more.
        Some(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
    }

    /// What the marker occupies.
    pub fn marker_use(&self, chain_id: &Sha256Digest) -> u64 {
        fs::symlink_metadata(self.marker(chain_id)).map_or(0, |meta| meta.blocks() * 512)
    }

    fn marker(&self, chain_id: &Sha256Digest) -> PathBuf {
        self.root.join(format!("{}.json", chain_id.hex()))
    }

    /// Held while a lease is written, so that whoever deletes afterwards sees it.
    pub async fn lock_shared(&self) -> MicrosandboxResult<CacheLock> {
        self.lock(FlockOperation::NonBlockingLockShared).await
    }

    /// Held while it is marked what goes: every lease was taken before or is taken afterwards.
    pub async fn lock_exclusive(&self) -> MicrosandboxResult<CacheLock> {
        self.lock(FlockOperation::NonBlockingLockExclusive).await
    }

    async fn lock(&self, operation: FlockOperation) -> MicrosandboxResult<CacheLock> {
        let path = self.root.join(".lock");
        let file = lock_file(&path)?;
        let begin = Instant::now();
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(CacheLock(file)),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(MicrosandboxError::io("lock", &path, error.into())),
            }
            if begin.elapsed() >= LOCK_DEADLINE {
                return Err(MicrosandboxError::InvalidState(format!(
                    "{} has been locked by another process for {} s; end that process or try again",
                    path.display(),
                    LOCK_DEADLINE.as_secs()
                )));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    /// A place for `count` layers to be unpacked into.
    pub fn temporary(&self, count: usize) -> MicrosandboxResult<Temporary> {
        let _sweep = self.sweep_lock()?;
        let directory = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&self.root)
            .map_err(|e| MicrosandboxError::io("create a directory in", &self.root, e))?;
        let lock = lock_file(&directory.path().join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| MicrosandboxError::io("lock", directory.path(), e.into()))?;
        let owner = Owner::of(&self.ids);
        for number in 0..count {
            let path = directory.path().join(number.to_string());
            DirBuilder::new()
                .mode(0o755)
                .create(&path)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
                .map_err(|e| MicrosandboxError::io("create", &path, e))?;
            owner.give(&path, 0)?;
        }
        Ok(Temporary { directory: directory.keep(), _lock: lock })
    }

    /// Makes layer `number` of `temporary` visible. A layer that another process published first stays.
    pub fn publish(
        &self,
        temporary: &Temporary,
        number: usize,
        chain_id: &Sha256Digest,
        facts: &LayerFacts,
    ) -> Result<(), Failure> {
        let target = self.layer_dir(chain_id);
        let marker = self.marker(chain_id);
        self.clear(&target, &marker)?;
        let text = serde_json::to_vec(facts).map_err(|e| MicrosandboxError::json("layer facts", e))?;
        let mut file = tempfile::NamedTempFile::new_in(&temporary.directory).map_err(|e| io("write", &marker, e))?;
        std::io::Write::write_all(&mut file, &text).map_err(|e| io("write", &marker, e))?;
        file.as_file().sync_all().map_err(|e| io("sync", &marker, e))?;
        file.persist(&marker).map_err(|e| io("write", &marker, e.error))?;
        match fs::rename(temporary.target(number), &target) {
            Ok(()) => {}
            Err(_) if target.is_dir() => {}
            Err(error) => return Err(io("publish", &target, error)),
        }
        Ok(sync_dir(&self.root)?)
    }

    /// Moves away what an interrupted deletion left in the place of a layer.
    fn clear(&self, target: &Path, marker: &Path) -> Result<(), Failure> {
        if marker.exists() || !target.exists() {
            return Ok(());
        }
        let _alone = self.sweep_lock()?;
        // Another import may have published the layer by now.
        if marker.exists() || !target.exists() {
            return Ok(());
        }
        let grave = self.root.join(format!("{GONE}{}", microsandbox_core::random::hex::<16>()?));
        fs::rename(target, &grave).map_err(|e| io("move away", target, e))
    }

    /// Removes what killed imports and deletions left behind.
    pub async fn sweep(&self, home: &Home) -> MicrosandboxResult<()> {
        for (path, _lock) in self.abandoned()? {
            tree::remove(home, &path).await?;
        }
        for name in self.names()?.into_iter().filter(|name| name.starts_with(GONE)) {
            tree::remove(home, &self.root.join(name)).await?;
        }
        Ok(())
    }

    /// Temporary directories whose owner is gone, locked by us now.
    fn abandoned(&self) -> MicrosandboxResult<Vec<(PathBuf, File)>> {
        let _sweep = self.sweep_lock()?;
        let mut found = Vec::new();
        for name in self.names()?.into_iter().filter(|name| name.starts_with(TEMPORARY)) {
            let path = self.root.join(name);
            // The lock file is gone: the import that owned the directory has just finished.
            let Ok(lock) = lock_file(&path.join("lock")) else { continue };
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                found.push((path, lock));
            }
        }
        Ok(found)
    }

    fn sweep_lock(&self) -> MicrosandboxResult<File> {
        let path = self.root.join(".sweep");
        let file = lock_file(&path)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
            .map_err(|e| MicrosandboxError::io("lock", &path, e.into()))?;
        Ok(file)
    }

    fn names(&self) -> MicrosandboxResult<Vec<String>> {
        let entries = fs::read_dir(&self.root).map_err(|e| MicrosandboxError::io("list", &self.root, e))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// The layers that are on disk.
    pub fn layers(&self) -> MicrosandboxResult<Vec<Sha256Digest>> {
        let names = self.names()?;
        Ok(names.iter().filter_map(|name| Sha256Digest::parse(&format!("sha256:{name}")).ok()).collect())
    }

    /// Takes a layer out of sight. The caller holds the exclusive lock and nothing needs the layer.
    pub fn hide(&self, chain_id: &Sha256Digest) -> MicrosandboxResult<Out> {
        let (tree, marker) = (self.layer_dir(chain_id), self.marker(chain_id));
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(MicrosandboxError::io("remove", &marker, error));
            }
            _ => {}
        }
        let grave = self.root.join(format!("{GONE}{}", microsandbox_core::random::hex::<16>()?));
        match fs::rename(&tree, &grave) {
            Ok(()) => Ok(Out::Moved(grave)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Out::Absent),
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                Ok(Out::Stuck(tree))
            }
            Err(error) => Err(MicrosandboxError::io("remove", &tree, error)),
        }
    }
}

/// Where the tree of a layer is that was taken out of sight.
#[derive(Debug)]
pub enum Out {
    Absent,
    Moved(PathBuf),
    /// Under its old name, without its marker: the directory has no room for another name.
    Stuck(PathBuf),
}

/// Where the cache of this home is, made or not.
pub fn directory(home: &Home) -> PathBuf {
    home.cache_dir().join("layers")
}

/// Directories being filled. Dropped, they go as far as this process may remove them; the rest goes with the next sweep.
pub struct Temporary {
    directory: PathBuf,
    _lock: File,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = microsandbox_rooted::remove::tree(&self.directory);
    }
}

impl Temporary {
    /// Where layer `number` is unpacked.
    pub fn target(&self, number: usize) -> PathBuf {
        self.directory.join(number.to_string())
    }

    /// Removes what is left, files of mapped ids included.
    pub async fn discard(self, home: &Home) -> MicrosandboxResult<()> {
        tree::remove(home, &self.directory).await
    }
}

fn lock_file(path: &Path) -> MicrosandboxResult<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| MicrosandboxError::io("open", path, e))
}
