//! Layers whose files carry real host ids: host root attaches them through an id-mapped mount, so that their uid 0 is
//! the sandbox's uid 0 without touching a file.

use microsandbox_contract::{IdMap, LaunchSpec, Mechanism, MechanismName, MechanismState};
use microsandbox_rooted::make;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::{ids, mounts, pinned};
use microsandbox_contract::note::Failure;
use microsandbox_sys::process::{self, Cloned};

/// Attaches the layers marked `host_ids` beneath `runtime` in the working directory (the sandbox's), in a mount namespace
/// of this process alone. The result names the place of each one, relative to the sandbox directory; `None` means the plain
/// path is to be used.
pub fn attach_layers(spec: &LaunchSpec) -> Result<(Vec<Option<String>>, Option<Mechanism>), Failure> {
    let none = vec![None; spec.root.lowers.len()];
    let wanted = spec.root.lowers.iter().any(|lower| lower.host_ids);
    if !wanted || !rustix::process::geteuid().is_root() || !matches!(spec.ids, IdMap::Range { .. }) {
        return Ok((none, None));
    }
    let attempt = (|| {
        let owner = mapping(&spec.ids)?;
        process::unshare(libc::CLONE_NEWNS)?;
        mounts::make_private()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let runtime = fs::openat(CWD, "runtime", flags, Mode::empty())?;
        let mut places = none.clone();
        for (index, lower) in spec.root.lowers.iter().enumerate().filter(|(_, lower)| lower.host_ids) {
            let source = pinned::open(&lower.path, &spec.root.pinned, OFlags::DIRECTORY)?;
            let tree = mounts::copy_tree(&source)?;
            microsandbox_sys::mount::set_attributes(
                &tree,
                false,
                mounts::RDONLY,
                libc::MS_PRIVATE,
                Some(owner.as_fd()),
            )?;
            let name = format!("lower-{index}");
            mounts::attach(&tree, make::replace_with_dir(&runtime, &name)?)?;
            places[index] = Some(format!("runtime/{name}"));
        }
        Ok::<_, Errno>(places)
    })();
    match attempt {
        Ok(places) => Ok((places, None)),
        // The boot continues without id mapping; a missing directory is reported when the layer is opened.
        Err(error) => {
            let reason = format!(
                "id-mapped mounts are not available here ({error}): foreign ids of the root appear as the user nobody"
            );
            Ok((none, Some(Mechanism::new(MechanismName::IdMappedRoot, MechanismState::Off, reason))))
        }
    }
}

/// What mounts of host files are mapped through; none where ids are not a range of host root's.
pub fn owner(ids: &IdMap) -> Result<Option<OwnedFd>, Failure> {
    match ids {
        IdMap::Range { .. } => mapping(ids).map(Some).map_err(microsandbox_contract::note::failed(
            microsandbox_contract::Step::OpenLayers,
            "make the user namespace that maps the ids of mounts",
            "this kernel gives no user namespace; use named volumes",
        )),
        IdMap::Subordinate { .. } | IdMap::Single { .. } => Ok(None),
    }
}

/// What shows the files of one owner of this machine as those of one user inside, and no others.
pub fn shown_as(ids: &IdMap, owner: (u32, u32), inside: (u32, u32)) -> Result<OwnedFd, Errno> {
    let IdMap::Range { base, count } = *ids else { return Err(Errno::PERM) };
    if inside.0 >= count || inside.1 >= count {
        return Err(Errno::INVAL);
    }
    let lines = ids::Lines { uid: vec![(owner.0, base + inside.0, 1)], gid: vec![(owner.1, base + inside.1, 1)] };
    user_namespace(|pid| ids::write_lines(pid, &lines))
}

fn mapping(ids: &IdMap) -> Result<OwnedFd, Errno> {
    user_namespace(|pid| ids::write_maps(pid, ids))
}

/// A user namespace with a mapping and without processes.
fn user_namespace(write: impl FnOnce(i32) -> Result<(), String>) -> Result<OwnedFd, Errno> {
    let (wait, hold) = pipe_with(PipeFlags::CLOEXEC)?;
    let (pid, pidfd) = match process::clone_child(libc::CLONE_NEWUSER as u64, None)? {
        Cloned::Child => {
            drop(hold);
            let _ = rustix::io::read(&wait, &mut [0; 1]);
            process::exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let namespace = write(pid)
        .map_err(|_| Errno::PERM)
        .and_then(|()| fs::open(format!("/proc/{pid}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()));
    drop(hold);
    let exited = rustix::process::WaitIdOptions::EXITED;
    rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), exited)?;
    namespace
}
