//! Mounts that show files with other ids than they carry: host root makes them, detached, before the sandbox exists, and its
//! first process attaches them in its own mount namespace.
//!
//! Files of this machine (a directory as root, a bind) carry real host ids: their uid 0 becomes the sandbox's uid 0. Files of the
//! home carry the ids of the home, and the processes of a run have ids of that run alone: the one become the other.

use microsandbox_contract::note::Failure;
use microsandbox_contract::{IdMap, LaunchSpec, Lower, Mechanism, MechanismName, MechanismState};
use microsandbox_sys::process::{self, Creator};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::{ids, mounts, pinned};

/// One entry for each layer: the mount to use in its place.
pub type Layers = Vec<Option<OwnedFd>>;

/// The files of the home that a sandbox is made of, with the ids of its run.
pub struct HomeMounts {
    /// The sandbox directory.
    pub own: OwnedFd,
    pub layers: Layers,
    /// One entry for each bind: those of the home.
    pub binds: Vec<Option<OwnedFd>>,
}

impl HomeMounts {
    /// `own` is the sandbox directory, `stored` are the ids of the home, `spec.ids` those of the run. An error if one of the file
    /// systems cannot do it.
    pub fn make(spec: &LaunchSpec, own: &OwnedFd, stored: &IdMap, creator: Creator) -> Result<HomeMounts, Errno> {
        let (IdMap::Range { base: from, count }, IdMap::Range { base: to, .. }) = (stored, &spec.ids) else {
            return Err(Errno::INVAL);
        };
        // What is root's stays root's: that is the directories above, which the first process passes before it changes its
        // ids. Inside there is no such id.
        let lines = vec![(0, 0, 1), (*from, *to, *count)];
        let lines = ids::Lines { uid: lines.clone(), gid: lines };
        let owner = user_namespace(creator, |pid| ids::write_lines(pid, &lines))?;
        let layers = layers(spec, |lower| !lower.host_ids, &owner)?;
        let binds = spec.root.binds.iter().map(|bind| match bind.home_ids {
            true => mapped(&pinned::open(&bind.source, &spec.root.pinned, OFlags::empty())?, 0, &owner).map(Some),
            false => Ok(None),
        });
        let binds = binds.collect::<Result<_, Errno>>()?;
        Ok(HomeMounts { own: mapped(own, 0, &owner)?, layers, binds })
    }
}

/// The layers that are `wanted`.
fn layers(spec: &LaunchSpec, wanted: impl Fn(&Lower) -> bool, owner: &OwnedFd) -> Result<Layers, Errno> {
    let layer = |lower: &Lower| {
        let source = pinned::open(&lower.path, &spec.root.pinned, OFlags::DIRECTORY)?;
        mapped(&source, mounts::RDONLY, owner)
    };
    spec.root.lowers.iter().map(|lower| wanted(lower).then(|| layer(lower)).transpose()).collect()
}

/// A detached mount of this directory, with ids as `owner` maps them.
fn mapped(source: &OwnedFd, attributes: u64, owner: &OwnedFd) -> Result<OwnedFd, Errno> {
    let tree = mounts::copy_tree(source)?;
    microsandbox_sys::mount::set_attributes(&tree, false, attributes, libc::MS_PRIVATE, Some(owner.as_fd()))?;
    Ok(tree)
}

/// The layers marked `host_ids`, with the ids of this machine mapped.
pub fn host_layers(spec: &LaunchSpec, creator: Creator) -> (Layers, Option<Mechanism>) {
    let none = || spec.root.lowers.iter().map(|_| None).collect();
    let wanted = spec.root.lowers.iter().any(|lower| lower.host_ids);
    if !wanted || !rustix::process::geteuid().is_root() || !matches!(spec.ids, IdMap::Range { .. }) {
        return (none(), None);
    }
    match mapping(&spec.ids, creator).and_then(|owner| layers(spec, |lower| lower.host_ids, &owner)) {
        Ok(layers) => (layers, None),
        // The boot continues without id mapping; a missing directory is reported when the layer is opened.
        Err(error) => {
            let reason = format!(
                "id-mapped mounts are not available here ({error}): foreign ids of the root appear as the user nobody"
            );
            (none(), Some(Mechanism::new(MechanismName::IdMappedRoot, MechanismState::Off, reason)))
        }
    }
}

/// What mounts of host files are mapped through; none where ids are not a range of host root's.
pub fn owner(ids: &IdMap, creator: Creator) -> Result<Option<OwnedFd>, Failure> {
    match ids {
        IdMap::Range { .. } => mapping(ids, creator).map(Some).map_err(microsandbox_contract::note::failed(
            microsandbox_contract::Step::OpenLayers,
            "make the user namespace that maps the ids of mounts",
            "this kernel gives no user namespace; use named volumes",
        )),
        IdMap::Subordinate { .. } | IdMap::Single { .. } => Ok(None),
    }
}

/// What shows the files of one owner of this machine as those of one user inside, and no others.
pub fn shown_as(ids: &IdMap, owner: (u32, u32), inside: (u32, u32), creator: Creator) -> Result<OwnedFd, Errno> {
    let IdMap::Range { base, count } = *ids else { return Err(Errno::PERM) };
    if inside.0 >= count || inside.1 >= count {
        return Err(Errno::INVAL);
    }
    let lines = ids::Lines { uid: vec![(owner.0, base + inside.0, 1)], gid: vec![(owner.1, base + inside.1, 1)] };
    user_namespace(creator, |pid| ids::write_lines(pid, &lines))
}

fn mapping(ids: &IdMap, creator: Creator) -> Result<OwnedFd, Errno> {
    user_namespace(creator, |pid| ids::write_maps(pid, ids))
}

/// A user namespace with a mapping and without processes.
fn user_namespace(creator: Creator, write: impl FnOnce(i32) -> Result<(), String>) -> Result<OwnedFd, Errno> {
    process::with_user_namespace(creator, |pid| {
        write(pid).map_err(|_| Errno::PERM)?;
        fs::open(format!("/proc/{pid}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    })?
}
