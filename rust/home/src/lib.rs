//! The ground floor of the local backend: one home directory, what it holds, and the programs that work on it.
//!
//! | module | holds |
//! |---|---|
//! | this file | [`Home`]: configuration, paths, database, ids |
//! | [`disk_use`] | what a tree uses of the disk |
//! | [`failpoint`] | named steps at which a test kills or holds this process |
//! | [`headroom`] | the free space that is left to the host |
//! | [`ids`] | which host ids the ids of a sandbox become |
//! | [`lock`] | one lock file per name of a sandbox or volume |
//! | [`process`] | identity of a process: pid, start time and boot id |
//! | [`label`] | finding the runtime of a sandbox among the processes of the machine |
//! | [`embedded`] | the embedded programs `msb-runtime`, `msb-vmm` and `msb-agent` |
//! | [`runtime_process`] | starting `msb-runtime` and reading its reports |
//! | [`tree`] | removing a directory with files of mapped ids |
//! | [`layer_tree`] | building a read-only layer: complete or absent |
//! | `blocking()` | file work away from the event loop |

pub mod disk_use;
pub mod embedded;
pub mod failpoint;
pub mod headroom;
pub mod ids;
pub mod label;
pub mod layer_tree;
pub mod lock;
pub mod process;
pub mod runtime_process;
pub mod tree;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use microsandbox_contract::{HostIds, IdMap, Job, Report};
use microsandbox_core::agent::AgentAddress;
use microsandbox_core::config::LocalConfig;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::validate_stored_name;
use microsandbox_core::private;
use microsandbox_store::Store;
use tokio::sync::OnceCell;

/// One home: its configuration, paths, database and ids. Clones share everything.
#[derive(Clone)]
pub struct Home {
    inner: Arc<Inner>,
}

struct Inner {
    config: LocalConfig,
    store: OnceCell<Store>,
    ids: OnceLock<IdMap>,
    run_ids: OnceLock<Vec<HostIds>>,
    /// Why the configuration file could not be read; every operation then fails with this reason.
    broken: Option<String>,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home").field("path", &self.inner.config.home).finish_non_exhaustive()
    }
}

impl Home {
    /// The home that this configuration describes. Opens nothing.
    pub fn new(config: LocalConfig) -> Home {
        Home::with(config, None)
    }

    /// A home whose configuration could not be read: every operation fails with `reason`.
    pub fn broken(reason: String) -> Home {
        Home::with(LocalConfig::default(), Some(reason))
    }

    fn with(config: LocalConfig, broken: Option<String>) -> Home {
        Home {
            inner: Arc::new(Inner {
                config,
                store: OnceCell::new(),
                ids: OnceLock::new(),
                run_ids: OnceLock::new(),
                broken,
            }),
        }
    }

    pub fn config(&self) -> &LocalConfig {
        &self.inner.config
    }

    /// The directory of all state.
    pub fn path(&self) -> &Path {
        &self.inner.config.home
    }

    /// The state database, opened and migrated on first use; a failure is not kept, the next call tries again.
    pub async fn store(&self) -> MicrosandboxResult<&Store> {
        if let Some(reason) = &self.inner.broken {
            return Err(MicrosandboxError::InvalidConfig(reason.clone()));
        }
        self.inner
            .store
            .get_or_try_init(|| async {
                let path = self.path().join("db").join("msb.db");
                let (home, database) = (self.clone(), path.clone());
                blocking(move || {
                    Store::check_path(&database)?;
                    check_home(home.path())?;
                    make_private_directory(home.path())
                })
                .await?;
                Store::open(&path, &self.config().database).await
            })
            .await
    }

    pub fn sandboxes_dir(&self) -> PathBuf {
        self.config().sandboxes_dir()
    }
    pub fn volumes_dir(&self) -> PathBuf {
        self.config().volumes_dir()
    }
    pub fn cache_dir(&self) -> PathBuf {
        self.config().cache_dir()
    }
    /// `<sandboxes>/<name>`.
    pub fn sandbox_dir(&self, name: &str) -> PathBuf {
        self.sandboxes_dir().join(name)
    }

    /// Where the agent of this sandbox listens while it runs.
    pub fn agent_socket(&self, name: &str) -> PathBuf {
        self.sandbox_dir(name).join("runtime/agent.sock")
    }

    /// Where the agent of a running sandbox listens, and the token that it expects.
    pub async fn agent_address(&self, name: &str) -> MicrosandboxResult<AgentAddress> {
        validate_stored_name("sandbox", name)?;
        let (name, socket) = (name.to_owned(), self.agent_socket(name));
        blocking(move || AgentAddress::read(&name, socket)).await
    }

    /// How ids inside sandboxes of this home map to host ids.
    pub fn id_map(&self) -> MicrosandboxResult<IdMap> {
        if let Some(ids) = self.inner.ids.get() {
            return Ok(ids.clone());
        }
        check_home(self.path())?;
        let ids = ids::resolve(self.path())?;
        Ok(self.inner.ids.get_or_init(|| ids).clone())
    }

    /// Of which host ids a run may have a range of its own.
    pub fn run_ids(&self) -> MicrosandboxResult<Vec<HostIds>> {
        if let Some(ids) = self.inner.run_ids.get() {
            return Ok(ids.clone());
        }
        let ids = ids::for_runs(&self.id_map()?)?;
        Ok(self.inner.run_ids.get_or_init(|| ids).clone())
    }

    /// Runs `msb-runtime` for a job that ends on its own. A [`Report::Failed`] reaches `on_report`; the result is an error
    /// only when the process could not run or died.
    pub async fn run_job(
        &self,
        job: &Job,
        files: &[BorrowedFd<'_>],
        on_report: &mut (dyn FnMut(Report) + Send),
    ) -> MicrosandboxResult<()> {
        runtime_process::run_job(job, files, on_report).await
    }
}

fn check_home(home: &Path) -> MicrosandboxResult<()> {
    private::check_owner(home, "home", "use another home (MSB_HOME)")
}

/// Creates a directory of mode 0700, with its parents: state belongs to its owner alone.
pub fn make_private_directory(path: &Path) -> MicrosandboxResult<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| MicrosandboxError::io("create", path, e))
}

/// Runs blocking file work away from the event loop: the one way in which asynchronous code of this machine's backend
/// touches files, because a slow disk or a network file system under the home must not stop other calls. One call costs a
/// hop to another thread, so small operations that belong together share one.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> MicrosandboxResult<T> + Send + 'static,
) -> MicrosandboxResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(MicrosandboxError::Runtime(format!("file work did not finish: {error}"))),
    }
}
