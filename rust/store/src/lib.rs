//! The state database: SQLite through sea-orm, owned by one `LocalBackend`, no globals.
//!
//! It records intent and facts; the process is the truth. Callers reconcile what they read (see `rust/local`).
//!
//! | module | holds |
//! |---|---|
//! | [`pools`] | opening: permission, creation, the write and the read side |
//! | [`lock`] | the lock file for creation and migration |
//! | [`migration`] | the schema's history and the check of it |
//! | [`entity`] | the tables |
//! | [`sandboxes`], [`images`], [`volumes`] | the statements |
//! | [`reserve`] | space kept for cleaning up when the disk is full |
//! | [`identity`] | whether the open file is still the one at its path |
//! | [`retry`], [`errors`], [`holder`] | contention: retries, errors, and the process that holds the lock |
//!
//! **Durability.** WAL with `synchronous=NORMAL`: an acknowledged write survives the death of any process, SIGKILL included.
//! After a power failure or a kernel crash the last writes may be missing, never a part of one, and the file is
//! consistent. A row that is missing then is reconciled with the directory beside it like any other.

pub mod entity;
mod errors;
mod holder;
mod identity;
mod images;
mod lock;
pub mod migration;
mod pools;
mod reserve;
mod retry;
mod sandboxes;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use microsandbox_core::config::DatabaseConfig;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{ImageConfigDetail, ImageDetail, ImageInfo, Owners, SandboxSpec, SandboxStatus};

use errors::Fault;
use pools::Pools;

/// Rows of sandboxes that are read at a time where all are needed.
const SANDBOX_PAGE: u32 = 100;

/// The database of one `LocalBackend`. Calls may be dropped at any await: a transaction that was not committed is rolled back.
pub struct Store {
    pools: Arc<Pools>,
}

/// A row of `sandbox`.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRow {
    pub id: i32,
    pub name: String,
    pub status: SandboxStatus,
    pub config_json: String,
    /// The client of a server for whom it was made.
    pub owner: Option<String>,
    pub ephemeral: bool,
    pub created_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
}

/// A row of `run`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunRow {
    pub id: i32,
    pub sandbox_id: i32,
    pub pid: Option<i32>,
    /// `Running` or `Terminated`.
    pub active: bool,
    pub exit_code: Option<i32>,
    pub exit_signal: Option<i32>,
    pub termination_reason: Option<String>,
    pub termination_detail: Option<String>,
    pub started_at: Option<DateTime<Utc>>,
    pub terminated_at: Option<DateTime<Utc>>,
}

/// A row of `volume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRow {
    pub id: i32,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// The client of a server for whom it was made.
    pub owner: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunEnd {
    pub exit_code: Option<i32>,
    pub exit_signal: Option<i32>,
    pub reason: Option<microsandbox_contract::ExitReason>,
    pub detail: Option<String>,
    pub signals_sent: Option<String>,
}

/// A page of `list`, newest first.
#[derive(Debug, Clone)]
pub struct SandboxRows {
    pub rows: Vec<(SandboxRow, Option<RunRow>)>,
    /// The id to continue below, if there is more.
    pub next: Option<i32>,
}

/// What an import stores, in one transaction.
#[derive(Debug, Clone)]
pub struct ImageRecord {
    pub references: Vec<String>,
    pub digest: String,
    pub media_type: Option<String>,
    pub architecture: Option<String>,
    pub os: Option<String>,
    pub variant: Option<String>,
    pub config: ImageConfigDetail,
    /// Bottom first.
    pub layers: Vec<LayerRecord>,
}

#[derive(Debug, Clone)]
pub struct LayerRecord {
    pub diff_id: String,
    pub blob_digest: String,
    pub media_type: Option<String>,
    pub compressed_size: u64,
    pub unpacked_size: u64,
}

impl Store {
    /// Opens (creating directory and file), migrates, and keeps a read and a write side.
    pub async fn open(path: &Path, config: &DatabaseConfig) -> MicrosandboxResult<Store> {
        let store = Store { pools: Arc::new(Pools::open(path, config).await?) };
        reserve::keep(path);
        Ok(store)
    }
    /// Refuses a path that SQLite cannot open, before anything is made for it.
    pub fn check_path(path: &Path) -> MicrosandboxResult<()> {
        pools::check_length(path)
    }
    /// Runs a write that ends or removes something. On a full disk it frees the reserve first: cleaning up must work without
    /// free space.
    async fn tidy<T, F: Future<Output = MicrosandboxResult<T>>>(&self, write: impl Fn() -> F) -> MicrosandboxResult<T> {
        match write().await {
            Err(MicrosandboxError::ResourceExhausted { .. }) if reserve::give_up(&self.pools.path) => write().await,
            other => other,
        }
    }
    /// A new row in `status` together with its labels, made on this machine. A taken name is `SandboxAlreadyExists`.
    pub async fn insert_sandbox(&self, spec: &SandboxSpec, status: SandboxStatus) -> MicrosandboxResult<SandboxRow> {
        self.insert_sandbox_for(None, spec, status).await
    }
    /// As [`Store::insert_sandbox`], for a client of a server.
    pub async fn insert_sandbox_for(
        &self,
        owner: Option<&str>,
        spec: &SandboxSpec,
        status: SandboxStatus,
    ) -> MicrosandboxResult<SandboxRow> {
        self.explained(self.pools.write(|db| sandboxes::insert(db, owner, spec, status)).await)
    }
    /// The row and its newest run.
    pub async fn sandbox(&self, name: &str) -> MicrosandboxResult<Option<(SandboxRow, Option<RunRow>)>> {
        self.explained(sandboxes::by_name(self.pools.read()?, name).await)
    }
    /// As [`Store::sandbox`], by the identity in the stored configuration, among those of `owners`.
    pub async fn sandbox_by_id(
        &self,
        id: &str,
        owners: &Owners,
    ) -> MicrosandboxResult<Option<(SandboxRow, Option<RunRow>)>> {
        self.explained(sandboxes::by_id(self.pools.read()?, id, owners).await)
    }
    /// How many rows there are, whatever their status.
    pub async fn count_sandboxes(&self) -> MicrosandboxResult<u64> {
        self.explained(sandboxes::count(self.pools.read()?).await)
    }
    /// Rows with an id below `below`, all of `labels`, at most `limit`, each with its newest run.
    pub async fn sandboxes(
        &self,
        below: Option<i32>,
        limit: u32,
        labels: &BTreeMap<String, String>,
    ) -> MicrosandboxResult<SandboxRows> {
        self.sandboxes_of(&Owners::All, below, limit, labels).await
    }
    /// Calls `each` with every row, newest first, a page at a time.
    pub async fn each_sandbox(
        &self,
        mut each: impl FnMut(SandboxRow) -> MicrosandboxResult<()> + Send,
    ) -> MicrosandboxResult<()> {
        let mut below = None;
        loop {
            let page = self.sandboxes(below, SANDBOX_PAGE, &BTreeMap::new()).await?;
            page.rows.into_iter().try_for_each(|(row, _)| each(row))?;
            match page.next {
                Some(next) => below = Some(next),
                None => return Ok(()),
            }
        }
    }
    /// As [`Store::sandboxes`], among those of `owners`.
    pub async fn sandboxes_of(
        &self,
        owners: &Owners,
        below: Option<i32>,
        limit: u32,
        labels: &BTreeMap<String, String>,
    ) -> MicrosandboxResult<SandboxRows> {
        self.explained(sandboxes::page(self.pools.read()?, owners, below, limit, labels).await)
    }
    /// Compare and set: only if the row still has one of `expected` (any, when empty). False: it has another one, or is deleted.
    pub async fn set_status(
        &self,
        id: i32,
        expected: &[SandboxStatus],
        status: SandboxStatus,
    ) -> MicrosandboxResult<bool> {
        self.tidy(|| async {
            self.explained(self.pools.write(|db| sandboxes::set_status(db, id, expected, status)).await)
        })
        .await
    }
    /// Replaces the stored configuration.
    pub async fn update_spec(&self, id: i32, spec: &SandboxSpec) -> MicrosandboxResult<()> {
        self.explained(self.pools.write(|db| sandboxes::update_spec(db, id, spec)).await)
    }
    /// A run of `pid` begins and the sandbox has `status`, in one transaction.
    pub async fn begin_run(&self, sandbox_id: i32, pid: i32, status: SandboxStatus) -> MicrosandboxResult<i32> {
        self.explained(self.pools.write(|db| sandboxes::begin_run(db, sandbox_id, pid, status)).await)
    }
    /// Ends every active run of the sandbox and sets its status, in one transaction.
    pub async fn end_run(&self, sandbox_id: i32, end: RunEnd, status: SandboxStatus) -> MicrosandboxResult<()> {
        let end = &end;
        self.tidy(|| async {
            self.explained(self.pools.write(|db| sandboxes::end_run(db, sandbox_id, end, status)).await)
        })
        .await
    }
    /// Deletes the row and the rows that refer to it. False: it was deleted before.
    pub async fn delete_sandbox(&self, id: i32) -> MicrosandboxResult<bool> {
        self.tidy(|| async { self.explained(self.pools.write(|db| sandboxes::delete(db, id)).await) }).await
    }
    /// Pins the sandbox's root file system to a manifest (row of `sandbox_rootfs`); `mode` is `erofs` for image layers,
    /// `bind` for directories and the host image.
    pub async fn set_rootfs(
        &self,
        sandbox_id: i32,
        manifest_digest: Option<&str>,
        mode: &str,
    ) -> MicrosandboxResult<()> {
        self.explained(self.pools.write(|db| sandboxes::set_rootfs(db, sandbox_id, manifest_digest, mode)).await)
    }
    /// Stores an imported image, moving the references to it.
    pub async fn upsert_image(&self, image: &ImageRecord) -> MicrosandboxResult<Vec<ImageInfo>> {
        self.explained(self.pools.write(|db| images::upsert(db, image)).await)
    }
    pub async fn images(&self) -> MicrosandboxResult<Vec<ImageInfo>> {
        self.explained(images::list(self.pools.read()?).await)
    }
    pub async fn image(&self, reference: &str) -> MicrosandboxResult<Option<ImageDetail>> {
        self.explained(images::detail(self.pools.read()?, reference).await)
    }
    /// Names of sandboxes whose root file system is pinned to this manifest.
    pub async fn image_users(&self, manifest_digest: &str) -> MicrosandboxResult<Vec<String>> {
        self.explained(images::users(self.pools.read()?, manifest_digest).await)
    }
    /// Names of snapshots that were made of this manifest.
    pub async fn image_snapshots(&self, manifest_digest: &str) -> MicrosandboxResult<Vec<String>> {
        self.explained(images::snapshots(self.pools.read()?, manifest_digest).await)
    }
    /// Removes references and nothing else.
    pub async fn remove_image_names(&self, references: &[String]) -> MicrosandboxResult<()> {
        self.explained(self.pools.write(|db| images::remove_names(db, references)).await)
    }
    /// Removes references; manifests and layers that nothing needs any more go with them, except the manifests that are
    /// `kept`. The diff ids of those layers, whose directories are the caller's.
    pub async fn remove_images(
        &self,
        references: &[String],
        kept: &BTreeSet<String>,
    ) -> MicrosandboxResult<Vec<String>> {
        self.tidy(|| async { self.explained(self.pools.write(|db| images::remove(db, references, kept)).await) }).await
    }

    /// A taken name is `VolumeAlreadyExists`.
    pub async fn insert_volume(
        &self,
        owner: Option<&str>,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> MicrosandboxResult<VolumeRow> {
        self.explained(self.pools.write(|db| volumes::insert(db, owner, name, labels)).await)
    }
    pub async fn volume(&self, name: &str) -> MicrosandboxResult<Option<VolumeRow>> {
        self.explained(volumes::by_name(self.pools.read()?, name).await)
    }
    /// Of `owners`, by name; with `name` only that one.
    pub async fn volumes(&self, owners: &Owners, name: Option<&str>) -> MicrosandboxResult<Vec<VolumeRow>> {
        self.explained(volumes::list(self.pools.read()?, owners, name).await)
    }
    /// Sandboxes that mount it and have not ended, according to their rows.
    pub async fn volume_holders(&self, name: &str) -> MicrosandboxResult<Vec<String>> {
        self.explained(volumes::holders(self.pools.read()?, name).await)
    }
    /// Deletes the row, in one transaction with the check that no sandbox mounts it and with `put_aside`, which may be called
    /// again. False: it was deleted before.
    pub async fn delete_volume(
        &self,
        name: &str,
        put_aside: &(dyn Fn() -> MicrosandboxResult<()> + Send + Sync),
    ) -> MicrosandboxResult<bool> {
        self.tidy(|| async { self.explained(self.pools.write(|db| volumes::delete(db, name, put_aside)).await) }).await
    }
    /// What a run mounts, read-only or not; replaces what an earlier run of the sandbox left.
    pub async fn attach_volumes(
        &self,
        sandbox_id: i32,
        pid: i32,
        volumes: &[(String, bool)],
    ) -> MicrosandboxResult<()> {
        self.explained(self.pools.write(|db| volumes::attach(db, sandbox_id, pid, volumes)).await)
    }

    fn explained<T>(&self, result: Result<T, Fault>) -> MicrosandboxResult<T> {
        result.map_err(|fault| fault.into_error(&self.pools.path))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The connections' threads exist only in the parent; closing them here would wait for them, and closing their
        // files would drop the parent's locks. The child leaks them instead.
        if self.pools.is_forked() {
            std::mem::forget(self.pools.clone());
        }
    }
}
