//! Creating a sandbox: everything is checked, then the row, the directory and the boot.

use futures::FutureExt as _;
use microsandbox_core::backend::{CreateRequest, LiveRecord, PullProgressFn};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{
    BootTrace, ImageSource, Isolation, Patch, RegistryAccess, SandboxConfig, SandboxSpec, SandboxStatus,
    validate_sandbox_name,
};
use microsandbox_core::undo::{self, Cut};
use microsandbox_core::validate;
use microsandbox_home::lock::NameLock;
use microsandbox_home::{Home, blocking, headroom, tree};
use microsandbox_images as images;
use microsandbox_store::SandboxRow;

use super::LOCK_DEADLINE;
use super::bring_up::{Reserve, Unfinished, adopt, bring_up, take_back};
use crate::isolation::Fallback;
use crate::{boot, isolation, mounts, reconcile, root, strays};

/// A configuration that passed every check; nothing exists yet.
pub struct Prepared {
    pub config: SandboxConfig,
    owner: Option<String>,
    /// Keeps the image until the record of the sandbox does.
    lease: Option<images::Lease>,
    trace: BootTrace,
}

/// Checks everything and decides what is decided once, before anything is created or replaced.
pub async fn prepare(home: &Home, request: CreateRequest, fallback: &Fallback) -> MicrosandboxResult<Prepared> {
    let CreateRequest { mut config, owner, start: _, progress } = request;
    if owner.is_none() {
        // Only a server makes longer names, of shorter ones.
        validate_sandbox_name(&config.spec.name)?;
    }
    if let Some(option) = config.unsupported.first() {
        return Err(MicrosandboxError::unsupported(&option.feature, &option.available_when));
    }
    let mut trace = BootTrace::begin();
    config.patches.iter().try_for_each(Patch::check)?;
    let access = std::mem::take(&mut config.registry);
    let lease = prepare_spec(home, &mut config.spec, access, progress, fallback).await?;
    trace.finish("checks");
    Ok(Prepared { config, owner, lease, trace })
}

/// Creates and boots. A sandbox that is to be replaced is gone already. If the caller stops waiting, nothing is left.
pub async fn create(home: &Home, prepared: Prepared) -> MicrosandboxResult<LiveRecord> {
    let (home, for_undo) = (home.clone(), home.clone());
    let take_back = move |record| take_back(for_undo.clone(), record, None).boxed();
    undo::whole(|cut| async move { make(&home, prepared, &cut).await }, take_back).await
}

async fn make(home: &Home, prepared: Prepared, cut: &Cut) -> MicrosandboxResult<LiveRecord> {
    let Prepared { config, owner, lease, mut trace } = prepared;
    let spec = config.spec;
    let lock = NameLock::acquire_unless(home.path(), &spec.name, LOCK_DEADLINE, cut).await?;
    boot::step("locked", cut).await;
    let exists = match directory(home, &spec.name).await {
        Ok(exists) => exists,
        Err(error) => {
            lock.remove_file().await;
            return Err(error);
        }
    };
    let unfinished = match claim(home, owner.as_deref(), &spec, cut).await {
        Ok((row, reserve)) => Unfinished::new(home.clone(), row, lock, reserve, false),
        Err(error) => {
            lock.remove_file().await;
            return Err(error);
        }
    };
    boot::step("inserted", cut).await;
    let row_id = unfinished.row_id();
    let brought_up = async {
        if exists {
            // A directory without a row: what an earlier, killed removal left.
            tree::remove(home, &home.sandbox_dir(&spec.name)).await?;
        }
        bring_up(home, &spec, row_id, &config.patches, &mut trace, cut).await
    };
    let brought_up = brought_up.await;
    drop(lease);
    match brought_up {
        Ok(booted) => Ok(adopt(home, spec, row_id, booted, trace)),
        Err(error) => {
            unfinished.undo(cut).await;
            Err(error)
        }
    }
}

/// Whether the directory of a sandbox to be created exists. Refuses one whose sandbox runs without a record: to remove its
/// files would not end it.
async fn directory(home: &Home, name: &str) -> MicrosandboxResult<bool> {
    let dir = home.sandbox_dir(name);
    let (exists, runs) = blocking(move || Ok((dir.exists(), reconcile::read_live(&dir).is_some()))).await?;
    if runs && home.store().await?.sandbox(name).await?.is_none() {
        return Err(strays::in_the_way(name));
    }
    Ok(exists)
}

/// The row, and the descriptors to undo it with.
async fn claim(
    home: &Home,
    owner: Option<&str>,
    spec: &SandboxSpec,
    cut: &Cut,
) -> MicrosandboxResult<(SandboxRow, Reserve)> {
    cut.check()?;
    let reserve = Reserve::take()?;
    Ok((insert(home, owner, spec).await?, reserve))
}

/// Checks everything and settles everything that is decided once: isolation, image, identity.
async fn prepare_spec(
    home: &Home,
    spec: &mut SandboxSpec,
    access: RegistryAccess,
    progress: Option<PullProgressFn>,
    fallback: &Fallback,
) -> MicrosandboxResult<Option<images::Lease>> {
    validate::spec(spec, home.config())?;
    let (owned, name) = (home.clone(), spec.name.clone());
    blocking(move || has_room(&owned, "create", &name)).await?;
    // A home that cannot hold the database is refused before its lock directory exists.
    home.store().await?;
    if spec.isolation == Isolation::Auto {
        spec.isolation = home.config().isolation.unwrap_or_default();
    }
    if spec.isolation == Isolation::Microvm {
        // A demand that no host could meet is refused first.
        validate::microvm(spec)?;
    }
    spec.isolation_actual = Some(isolation::decide(home, spec.isolation, fallback).await?);
    mounts::exist(home, spec).await?;
    let (defaults, lease) = root::image_defaults(home, spec, access, progress).await?;
    spec.image_defaults = defaults;
    if spec.isolation_actual == Some(Isolation::Microvm) {
        validate::microvm(spec)?;
    }
    if !matches!(spec.image, ImageSource::Host { .. }) {
        let (home, image) = (home.clone(), spec.clone());
        blocking(move || root::startable(&home, &image)).await?;
    }
    spec.id = microsandbox_core::random::hex::<16>()?;
    Ok(lease)
}

/// Refuses to boot where the file system of the sandboxes has less free space than is left to the host.
pub(super) fn has_room(home: &Home, verb: &str, name: &str) -> MicrosandboxResult<()> {
    headroom::check(home, &home.sandboxes_dir(), || format!("{verb} sandbox {name}"))
}

async fn insert(home: &Home, owner: Option<&str>, spec: &SandboxSpec) -> MicrosandboxResult<SandboxRow> {
    let store = home.store().await?;
    match store.insert_sandbox_for(owner, spec, SandboxStatus::Starting).await {
        Err(MicrosandboxError::SandboxAlreadyExists(name)) => {
            // We hold the lock: a record still `Starting`, or one whose creation was cut off, has no owner.
            let Some((row, run)) = store.sandbox(&name).await? else {
                return store.insert_sandbox_for(owner, spec, SandboxStatus::Starting).await;
            };
            let interrupted =
                run.as_ref().is_none_or(|run| run.termination_detail.as_deref() == Some(reconcile::INTERRUPTED));
            let ownerless = row.status == SandboxStatus::Starting;
            if !(ownerless || row.status == SandboxStatus::Crashed && interrupted) {
                return Err(MicrosandboxError::SandboxAlreadyExists(name));
            }
            if ownerless {
                if !reconcile::end_ownerless(home, &row).await? {
                    return Err(MicrosandboxError::SandboxStillRunning(name));
                }
                reconcile::finish(home, &row, SandboxStatus::Crashed, Some(reconcile::INTERRUPTED)).await?;
            }
            reconcile::remove_all(home, &row).await?;
            store.insert_sandbox_for(owner, spec, SandboxStatus::Starting).await
        }
        other => other,
    }
}
