//! What may be mounted into a sandbox: checked before anything is made.

use std::path::{Path, PathBuf};

use microsandbox_rooted::named::Named;
use rustix::fs::FileType;

use crate::backend::available_when;
use crate::config::LocalConfig;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::guest_dirs::GuestDirs;
use crate::model::{Mount, MountPolicy, StatVirtualization, validate_stored_name};

use super::{ID_RANGE, invalid};

/// Of one sandbox.
const MOST: usize = 64;
const TARGET_MAX: usize = 1024;
/// Places that the sandbox itself is made of.
const OURS: [&str; 4] = ["/.msb", "/proc", "/sys", "/dev"];

/// An absolute path without `.`, `..` and doubled slashes.
pub fn normalised(target: &str) -> Result<String, &'static str> {
    if !target.starts_with('/') {
        return Err("must be absolute");
    }
    if target.len() > TARGET_MAX {
        return Err("is too long");
    }
    if target.contains([':', ';', ',', '\0', '\n']) {
        return Err("must not hold any of : ; , or a line break");
    }
    let mut parts = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("must not hold .."),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err("must not be the root itself");
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Whatever can be said without looking at the database.
pub fn check(mounts: &[Mount], config: &LocalConfig) -> MicrosandboxResult<()> {
    checked(mounts, config).map(drop)
}

/// As [`check`]; the list of the directories of guests that it was done with. Without a directory of the user's it is not read.
pub fn checked(mounts: &[Mount], config: &LocalConfig) -> MicrosandboxResult<GuestDirs> {
    let guests = match mounts.iter().any(|mount| matches!(mount, Mount::Bind { .. })) {
        true => GuestDirs::of(&config.home)?,
        false => GuestDirs::default(),
    };
    if mounts.len() > MOST {
        return invalid(format!("a sandbox has at most {MOST} mounts: got {}", mounts.len()));
    }
    let mut targets: Vec<String> = Vec::new();
    for mount in mounts {
        let guest = mount.guest();
        let target = match normalised(guest) {
            Ok(target) => target,
            Err(why) => return invalid(format!("mount target {guest:?} {why}")),
        };
        if let Some(ours) = OURS.iter().find(|ours| target == **ours || target.starts_with(&format!("{ours}/"))) {
            return invalid(format!("mount target {guest:?}: {ours} belongs to the sandbox itself"));
        }
        if targets.contains(&target) {
            return invalid(format!("mount target {guest:?} is given twice"));
        }
        targets.push(target);
        one(mount, config, &guests)?;
    }
    Ok(guests)
}

fn one(mount: &Mount, config: &LocalConfig, guests: &GuestDirs) -> MicrosandboxResult<()> {
    match mount {
        Mount::Named { name, policy, .. } => {
            validate_stored_name("volume", name)?;
            check_policy(policy)
        }
        Mount::Bind { host, policy, quota_mib, .. } => {
            if quota_mib.is_some() {
                return Err(MicrosandboxError::unsupported("Volume.bind(quota_mib=)", available_when::QUOTAS));
            }
            check_policy(policy)?;
            source(Path::new(host), config, guests).map(drop)
        }
        Mount::Tmpfs { size_mib: Some(0), guest, .. } => {
            invalid(format!("the size of the tmpfs at {guest} must not be 0"))
        }
        Mount::Tmpfs { .. } => Ok(()),
        Mount::DiskImage { .. } => Err(MicrosandboxError::unsupported("Volume.disk", available_when::DISK_IMAGES)),
    }
}

/// Owners are mapped by the kernel: root inside is who runs the sandbox. That is the strict policy, and the relaxed one where it
/// can be had. Modes are those of the file; whether set-id bits are among them says `host_permissions`.
fn check_policy(policy: &MountPolicy) -> MicrosandboxResult<()> {
    let later = |feature| Err(MicrosandboxError::unsupported(feature, available_when::MOUNT_POLICIES));
    if policy.stat_virtualization == StatVirtualization::Off {
        return later("stat_virtualization=off of a mount");
    }
    match (policy.override_uid, policy.override_gid) {
        (None, None) => Ok(()),
        (Some(uid), Some(gid)) if uid < ID_RANGE && gid < ID_RANGE => match rustix::process::geteuid().is_root() {
            true => Ok(()),
            // The kernel lets only host root map the ids of a mount.
            false => Err(MicrosandboxError::unsupported("uid and gid of a mount", "where root runs the sandboxes")),
        },
        (Some(uid), Some(gid)) => {
            invalid(format!("uid and gid of a mount must be 0 to {}: got {uid} and {gid}", ID_RANGE - 1))
        }
        _ => invalid("uid and gid of a mount go together".into()),
    }
}

/// A directory or file of this machine that may be shown. It is resolved once: what is checked here is what is mounted.
pub fn source(path: &Path, config: &LocalConfig, guests: &GuestDirs) -> MicrosandboxResult<Named> {
    if !path.is_absolute() {
        return invalid(format!("mount source {} must be absolute", path.display()));
    }
    let named = guests.resolve("mount source", path)?;
    match FileType::from_raw_mode(named.stat.st_mode) {
        FileType::Directory | FileType::RegularFile => {}
        _ => return invalid(format!("mount source {} is neither a directory nor a regular file", path.display())),
    }
    if let Some(state) = overlapping_state(&named, config) {
        return invalid(format!(
            "mount source {} contains, or is inside, the state directory {}; mount another directory",
            path.display(),
            state.display()
        ));
    }
    Ok(named)
}

/// The state directory that contains what was named, or is inside it: a sandbox that could write to one would control every sandbox,
/// itself included.
pub(super) fn overlapping_state(named: &Named, config: &LocalConfig) -> Option<PathBuf> {
    let mut real = config.state_dirs().map(|state| state.canonicalize().unwrap_or(state));
    real.find(|state| state.starts_with(&named.path) || named.path.starts_with(state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MountOptions;
    use crate::validate::directory_root;

    fn tmpfs(guest: &str) -> Mount {
        Mount::Tmpfs { guest: guest.into(), size_mib: None, options: MountOptions::default() }
    }

    #[test]
    fn targets_are_checked_after_they_are_normalised() {
        assert_eq!(normalised("//data/./x/").as_deref(), Ok("/data/x"));
        let config = LocalConfig::default_for_home("/nonexistent");
        for bad in ["", "data", "/", "/.", "/a/../b", "/a:b", "/a,b", "/proc", "/proc/x", "/dev/shm", "/.msb/scripts"] {
            assert!(check(&[tmpfs(bad)], &config).is_err(), "{bad}");
        }
        assert!(check(&[tmpfs("/a"), tmpfs("/a/")], &config).unwrap_err().to_string().contains("twice"));
        assert!(check(&[tmpfs("/a"), tmpfs("/a/b"), tmpfs("/process")], &config).is_ok());
    }

    #[test]
    fn a_source_never_holds_the_products_own_state() {
        let (home, volumes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut config = LocalConfig::default_for_home(home.path());
        config.paths.volumes = Some(volumes.path().to_owned());
        let (inner, volume) = (home.path().join("sandboxes"), volumes.path().join("data"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::create_dir(&volume).unwrap();
        let (parent, guests) = (home.path().parent().unwrap(), GuestDirs::default());
        for bad in [home.path(), &inner, parent, Path::new("/"), Path::new("/dev/null"), volumes.path(), &volume] {
            assert!(source(bad, &config, &guests).is_err(), "{}", bad.display());
            assert!(directory_root(bad, &config).is_err(), "{} as root", bad.display());
        }
        let other = tempfile::tempdir().unwrap();
        assert!(source(&other.path().join("absent"), &config, &guests).is_err());
        // What is mounted is what was looked at, whatever a link says later.
        let link = other.path().join("link");
        let (one, real) = (other.path().join("one"), other.path().canonicalize().unwrap().join("one"));
        std::fs::create_dir(&one).unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        assert_eq!(source(&link, &config, &guests).unwrap().path, real);
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&volume, &link).unwrap();
        assert!(source(&link, &config, &guests).is_err());
    }
}
