//! What a sandbox mounts besides its image, turned into binds and temporary file systems.
//!
//! Read-only is a flag of the mount on the host's side, which root inside cannot remove. Devices and setuid bits of a
//! mount have no effect. A read-only directory of the host is shown as a view in a container: an overlay, through which no socket,
//! FIFO, lock or watch reaches the host. A volume is not: its names must be up to date for every sandbox that shares it.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use crate::volume_dir::Volumes;
use microsandbox_contract::{BindSpec, Pinned, RootSpec, TmpfsSpec};
use microsandbox_core::backend::available_when;
use microsandbox_core::config::LocalConfig;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::guest_dirs::GuestDirs;
use microsandbox_core::model::{HostPermissions, Isolation, Mount, MountOptions, SandboxSpec};
use microsandbox_core::validate::mounts::{checked, normalised, source};
use microsandbox_home::{Home, blocking};
use microsandbox_rooted::named::Named;
use rustix::fs::FileType;

const MIB: u64 = 1 << 20;
/// Entries of a writable directory that are looked at for sockets.
const MAX_LOOKED_AT: usize = 1000;
/// A temporary file system without a size: half of the memory.
const HALF: u64 = 2;

fn invalid<T>(text: String) -> MicrosandboxResult<T> {
    Err(MicrosandboxError::InvalidConfig(text))
}

/// Volumes by name, and whether read-only.
pub fn volumes(spec: &SandboxSpec) -> Vec<(String, bool)> {
    let named = spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Named { name, options, .. } => Some((name.clone(), options.readonly)),
        _ => None,
    });
    named.collect()
}

/// Checks, before anything is created, that every volume has a row and that the driver can stack the mounts.
pub async fn exist(home: &Home, spec: &SandboxSpec) -> MicrosandboxResult<()> {
    if spec.isolation_actual == Some(Isolation::Microvm) {
        let noexec = |mount: &&Mount| mount.policy().is_some() && mount.options().noexec;
        if let Some(mount) = spec.mounts.iter().find(noexec) {
            // The guest's kernel does not see this flag of a host mount; that kernel mounts each tmpfs, with the flag.
            let feature = format!("noexec of the mount at {}, of a microVM", mount.guest());
            return Err(MicrosandboxError::unsupported(feature, "with isolation=container"));
        }
        // A guest mounts its tmpfs last, over whatever the host shares beneath that path.
        let is_tmpfs = |mount: &&Mount| matches!(mount, Mount::Tmpfs { .. });
        let covers: Vec<String> =
            spec.mounts.iter().filter(is_tmpfs).filter_map(|mount| normalised(mount.guest()).ok()).collect();
        for mount in spec.mounts.iter().filter(|mount| !is_tmpfs(mount)) {
            let target = normalised(mount.guest()).unwrap_or_default();
            if let Some(cover) = covers.iter().find(|cover| is_within(&target, cover)) {
                let feature = format!("a mount at {target}, within the tmpfs {cover}, of a microVM");
                return Err(MicrosandboxError::unsupported(feature, "with isolation=container; mount it elsewhere"));
            }
        }
    }
    if spec.mounts.len() > 1 {
        let (mounts, config) = (spec.mounts.clone(), home.config().clone());
        blocking(move || have_places(&mounts, &config)).await?;
    }
    for (name, _) in volumes(spec) {
        if home.store().await?.volume(&name).await?.is_none() {
            return Err(MicrosandboxError::VolumeNotFound(name));
        }
    }
    Ok(())
}

/// Refuses a mount within a directory of the user's in which its place is missing: nothing is made in what the user binds.
fn have_places(mounts: &[Mount], config: &LocalConfig) -> MicrosandboxResult<()> {
    let targets: Vec<(String, &Mount)> =
        mounts.iter().filter_map(|mount| Some((normalised(mount.guest()).ok()?, mount))).collect();
    let mut guests: Option<GuestDirs> = None;
    for (target, _) in &targets {
        let outer = targets.iter().filter(|(outer, _)| is_within(target, outer)).max_by_key(|(outer, _)| outer.len());
        let Some((outer, Mount::Bind { host, .. })) = outer else { continue };
        let known = match &guests {
            Some(known) => known,
            None => &*guests.insert(GuestDirs::of(&config.home)?),
        };
        let host = source(Path::new(host), config, known)?.path;
        if !host.join(&target[outer.len() + 1..]).exists() {
            return invalid(format!(
                "the mount at {target} is within the mount at {outer}, and {} has no {}: make it there first, or mount it \
                 elsewhere",
                host.display(),
                &target[outer.len() + 1..]
            ));
        }
    }
    Ok(())
}

fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// What of the `host` image is shown beside the mounts of the user: a part whose place is within a directory of the user's is
/// shown only where the place exists already. Otherwise the user's mount covers it, as it covers what an image has there.
pub fn shown_beside(of_host: Vec<BindSpec>, mounted: &[BindSpec]) -> Vec<BindSpec> {
    let is_shown = |bind: &BindSpec| {
        let outer = mounted.iter().filter(|mount| is_within(&bind.target, &mount.target));
        // In a volume the place is made: its files are the product's.
        let outer = outer.max_by_key(|mount| mount.target.len()).filter(|mount| mount.host_ids);
        let Some(outer) = outer else { return true };
        let has_place = outer.source.join(&bind.target[outer.target.len() + 1..]).exists();
        if !has_place {
            tracing::warn!(
                hidden = bind.target,
                mount = outer.target,
                "a part of the host image is not shown: the mount covers its place"
            );
        }
        has_place
    };
    of_host.into_iter().filter(is_shown).collect()
}

/// What the runtime opens of a path that was resolved here.
pub fn pinned(named: Named) -> Pinned {
    Pinned { path: named.path, device: named.stat.st_dev, inode: named.stat.st_ino }
}

/// A guest can use the sockets and FIFOs of a writable directory: their other ends are programs of this machine.
fn warn_of_sockets(source: &Path, target: &str) {
    if let Some(name) = socket_in(source) {
        tracing::warn!(
            name,
            source = %source.display(),
            mount = target,
            "a socket or FIFO of this machine is within reach of the sandbox: mount the directory with readonly=True, or another one"
        );
    }
}

/// The first socket or FIFO among the entries of the directory itself.
fn socket_in(directory: &Path) -> Option<String> {
    let entries = std::fs::read_dir(directory).ok()?.take(MAX_LOOKED_AT).flatten();
    let is_end = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_socket() || kind.is_fifo());
    entries.filter(is_end).map(|entry| entry.file_name().to_string_lossy().into_owned()).next()
}

/// Checks the mounts, and resolves the directories of the user among them, in their order.
async fn pin_all(home: &Home, spec: &SandboxSpec) -> MicrosandboxResult<Vec<Pinned>> {
    let (mounts, config) = (spec.mounts.clone(), home.config().clone());
    let work = move || {
        let mut guests = checked(&mounts, &config)?;
        let mut pins = Vec::new();
        for mount in &mounts {
            let Mount::Bind { host, .. } = mount else { continue };
            let named = source(Path::new(host), &config, &guests)?;
            if !mount.options().readonly && FileType::from_raw_mode(named.stat.st_mode) == FileType::Directory {
                guests.note(&named)?;
                warn_of_sockets(&named.path, mount.guest());
            }
            pins.push(pinned(named));
        }
        Ok(pins)
    };
    // Without mounts there is nothing to look at.
    if spec.mounts.is_empty() { Ok(Vec::new()) } else { blocking(work).await }
}

/// Adds the mounts to the root file system.
pub async fn add(home: &Home, spec: &SandboxSpec, root: &mut RootSpec) -> MicrosandboxResult<()> {
    let mut pins = pin_all(home, spec).await?.into_iter();
    for mount in &spec.mounts {
        let options = mount.options();
        let target = match normalised(mount.guest()) {
            Ok(target) => target,
            Err(why) => return invalid(format!("mount target {:?} {why}", mount.guest())),
        };
        let bind = |source, host_ids, set_ids| BindSpec {
            source,
            target: target.clone(),
            readonly: options.readonly,
            view: host_ids,
            noexec: options.noexec,
            host_ids,
            home_ids: !host_ids,
            optional: false,
            shown_as: mount.policy().and_then(|policy| policy.override_uid.zip(policy.override_gid)),
            set_ids,
        };
        match mount {
            Mount::Named { name, .. } => {
                // Made here if a crash kept it from being made.
                Volumes { home }.root(name).await?;
                root.binds.push(bind(home.config().volume_path(name), false, true));
            }
            Mount::Bind { host, policy, .. } => {
                let mirrors = policy.host_permissions == HostPermissions::Mirror;
                let Some(pin) = pins.next() else { return invalid(format!("mount source {host} was not looked at")) };
                root.binds.push(bind(pin.path.clone(), true, mirrors));
                root.pinned.push(pin);
            }
            Mount::Tmpfs { size_mib, .. } => {
                let memory = u64::from(spec.resources.memory_mib) * MIB;
                let size_bytes = size_mib.map_or(memory / HALF, |mib| mib.saturating_mul(MIB));
                let MountOptions { readonly, noexec, .. } = options;
                root.tmpfs.push(TmpfsSpec { target, size_bytes, mode: 0o1777, readonly, noexec });
            }
            Mount::DiskImage { .. } => {
                return Err(MicrosandboxError::unsupported("Volume.disk", available_when::DISK_IMAGES));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_fifos_of_a_directory_are_noticed() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("file"), "").unwrap();
        std::fs::create_dir(scratch.path().join("directory")).unwrap();
        assert_eq!(socket_in(scratch.path()), None);
        assert_eq!(socket_in(&scratch.path().join("file")), None);
        let _listener = std::os::unix::net::UnixListener::bind(scratch.path().join("agent")).unwrap();
        assert_eq!(socket_in(scratch.path()), Some("agent".into()));
    }
}
