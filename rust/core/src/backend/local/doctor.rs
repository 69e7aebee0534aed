//! What isolation this machine can give, found out by doing: a probe run of the runtime, and facts about the host.
//!
//! Nothing is remembered: a probe takes milliseconds, and a host changes (groups, sysctls, mounts) without telling.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use microsandbox_protocol::launch::{IdMap, Job, LAUNCH_VERSION, ProbeSpec, Report};

use super::LocalBackend;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{DoctorCheck, DoctorReport, Isolation, IsolationReport, Mechanism, MechanismState};

const KVM: &str = "/dev/kvm";
const GIB: u64 = 1 << 30;
/// File systems that an overlay cannot write to, by their magic number (`statfs(2)`), and some that it can.
const FILE_SYSTEMS: [(i64, &str, bool); 10] = [
    (0x6969, "nfs", false),
    (0xff53_4d42, "cifs", false),
    (0x6573_5546, "fuse", false),
    (0x794c_7630, "overlay", false),
    (0x0102_1997, "9p", false),
    (0x5346_544e, "ntfs", false),
    (0xef53, "ext4", true),
    (0x5846_5342, "xfs", true),
    (0x9123_683e, "btrfs", true),
    (0x0102_1994, "tmpfs", true),
];

/// `recheck` is accepted for callers that expect remembered results; every call checks anew.
pub async fn doctor(backend: &LocalBackend, _recheck: bool) -> MicrosandboxResult<DoctorReport> {
    let home = backend.config().home.clone();
    super::make_private_directory(&home)?;
    let ids = backend.id_map()?;
    let probed = probe(backend, &ids, &home).await;
    let mut checks = vec![kvm(Path::new(KVM)), microvm_driver()];
    match &probed {
        Ok(report) => checks.extend(report.mechanisms.iter().map(mechanism)),
        Err(error) => {
            checks.push(check("container", MechanismState::Off, error.to_string(), Some(USER_NAMESPACE_HINT)))
        }
    }
    checks.extend([identities(&ids), file_system(&home), disk_space(&home)]);
    let (reason, hint) = verdict(&probed, &checks[0]);
    Ok(DoctorReport { isolation: Isolation::Container, reason: Some(reason), hint: Some(hint), checks })
}

const USER_NAMESPACE_HINT: &str = "user namespaces must be allowed: sysctl user.max_user_namespaces above 0, \
     kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0 where these exist; in a \
     container, its seccomp profile must allow clone, unshare and mount";

async fn probe(backend: &LocalBackend, ids: &IdMap, scratch: &Path) -> MicrosandboxResult<IsolationReport> {
    let spec = ProbeSpec { version: LAUNCH_VERSION, ids: ids.clone(), scratch: scratch.to_owned() };
    let mut found = None;
    backend
        .run_job(&Job::Probe(spec), None, &mut |report| match report {
            Report::Probed(report) => found = Some(Ok(report)),
            Report::Failed(error) => {
                found = Some(Err(MicrosandboxError::Runtime(format!("{}; {}", error.message, error.hint))));
            }
            _ => {}
        })
        .await?;
    found.unwrap_or_else(|| Err(MicrosandboxError::Runtime("the probe ended without a result".into())))
}

/// Why `auto` gives what it gives, and what can be done.
fn verdict(probed: &MicrosandboxResult<IsolationReport>, kvm: &DoctorCheck) -> (String, String) {
    if let Err(error) = probed {
        return (format!("no sandbox can start on this machine: {error}"), USER_NAMESPACE_HINT.into());
    }
    let reason =
        format!("this version has no microVM driver yet, so sandboxes share the host's kernel ({})", kvm.detail);
    (
        reason,
        "update when the microVM driver is released; until then run code that may attack the kernel elsewhere".into(),
    )
}

fn check(name: &str, state: MechanismState, detail: impl Into<String>, hint: Option<&str>) -> DoctorCheck {
    DoctorCheck { name: name.into(), state, detail: detail.into(), hint: hint.map(str::to_owned) }
}

fn microvm_driver() -> DoctorCheck {
    check("microvm_driver", MechanismState::Off, "not part of this version", None)
}

fn mechanism(mechanism: &Mechanism) -> DoctorCheck {
    let detail = mechanism.reason.clone().unwrap_or_else(|| "works".into());
    let hint = match (mechanism.state, mechanism.name.as_str()) {
        (MechanismState::On, _) => None,
        (_, "memory_limit" | "cpu_limit" | "pids_limit") => Some(
            "run as root, or in a session with delegated control groups (systemd: Delegate=yes for the user's slice)",
        ),
        (_, "user_namespace") => Some(USER_NAMESPACE_HINT),
        (_, "id_range") => Some(ID_HINT),
        (_, "landlock") => Some("a kernel with Landlock enabled (CONFIG_SECURITY_LANDLOCK and in the lsm= list)"),
        _ => None,
    };
    check(&mechanism.name, mechanism.state, detail, hint)
}

/// Whether the device is there and may be opened. That a virtual machine would run is not claimed.
fn kvm(path: &Path) -> DoctorCheck {
    let name = "kvm";
    match File::options().read(true).write(true).open(path) {
        Ok(_) => check(name, MechanismState::On, format!("{} opens", path.display()), None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let group = fs::metadata(path).ok().map(|meta| group_name(meta.gid(), Path::new("/etc/group")));
            let group = group.unwrap_or_else(|| "its owner".into());
            DoctorCheck {
                name: name.into(),
                state: MechanismState::Off,
                detail: format!("permission: {} may only be opened by root and group {group}", path.display()),
                hint: Some(format!("add yourself to group {group} (usermod -aG {group} USER) and log in again")),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            check(name, MechanismState::Off, format!("there is no {}", path.display()), Some(NO_KVM_HINT))
        }
        Err(error) => {
            check(name, MechanismState::Off, format!("{} does not open: {error}", path.display()), Some(NO_KVM_HINT))
        }
    }
}

const NO_KVM_HINT: &str = "switch on virtualisation in the firmware (or nested virtualisation in the hypervisor) and \
     load the kvm module";

fn group_name(id: u32, file: &Path) -> String {
    let listed = fs::read_to_string(file).unwrap_or_default();
    let name = listed.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| id.to_string())
}

const ID_HINT: &str = "install newuidmap and newgidmap (package uidmap or shadow-utils) and give this user a range in \
     /etc/subuid and /etc/subgid (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER)";

/// Which ids exist inside.
fn identities(ids: &IdMap) -> DoctorCheck {
    let name = "identities";
    match ids {
        IdMap::Range { base, count } => {
            check(name, MechanismState::On, format!("host root: a private range of {count} ids from {base}"), None)
        }
        IdMap::Subordinate { count, sub_uid, .. } => {
            check(name, MechanismState::On, format!("this user and {count} subordinate ids from {sub_uid}"), None)
        }
        IdMap::Single { .. } => {
            let detail = "a single id: inside, everything belongs to root, and chown or su to other users cannot work";
            check(name, MechanismState::Degraded, detail, Some(ID_HINT))
        }
    }
}

/// Whether an overlay can be written on the file system of the product home.
fn file_system(home: &Path) -> DoctorCheck {
    let name = "file_system";
    match rustix::fs::statfs(home) {
        Ok(stat) => file_system_of(home, i64::from(stat.f_type as u32)),
        Err(error) => {
            check(name, MechanismState::Degraded, format!("cannot inspect {}: {error}", home.display()), None)
        }
    }
}

fn file_system_of(home: &Path, magic: i64) -> DoctorCheck {
    let place = home.display();
    let hint = "put the microsandbox home on a local disk (MSB_HOME)";
    let (state, detail, hint) = match FILE_SYSTEMS.iter().find(|(known, ..)| *known == magic) {
        Some((_, name, true)) => (MechanismState::On, format!("{place} lies on {name}"), None),
        Some((_, name, false)) => {
            (MechanismState::Off, format!("{place} lies on {name}, where an overlay cannot be written"), Some(hint))
        }
        None => (MechanismState::Degraded, format!("{place} lies on an unknown file system ({magic:#x})"), Some(hint)),
    };
    check("file_system", state, detail, hint)
}

/// Free space, against the headroom that is kept.
fn disk_space(home: &Path) -> DoctorCheck {
    let name = "disk_space";
    match rustix::fs::statvfs(home) {
        Ok(stat) => {
            let block = if stat.f_frsize > 0 { stat.f_frsize } else { stat.f_bsize };
            let (free, total) = (stat.f_bavail.saturating_mul(block), stat.f_blocks.saturating_mul(block));
            let enough = free > GIB.max(total / 50);
            let state = if enough { MechanismState::On } else { MechanismState::Degraded };
            let detail = format!("{:.1} of {:.1} GiB free", free as f64 / GIB as f64, total as f64 / GIB as f64);
            check(name, state, detail, (!enough).then_some("free some space, or remove images and sandboxes"))
        }
        Err(error) => {
            check(name, MechanismState::Degraded, format!("cannot inspect {}: {error}", home.display()), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_not_called_a_permission() {
        let dir = tempfile::tempdir().unwrap();
        let missing = kvm(&dir.path().join("kvm"));
        assert_eq!(missing.state, MechanismState::Off);
        assert!(missing.detail.starts_with("there is no "), "{}", missing.detail);
    }

    #[test]
    fn a_group_is_named_where_it_has_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("group");
        fs::write(&file, "root:x:0:\nkvm:x:107:joe\n").unwrap();
        assert_eq!(group_name(107, &file), "kvm");
        assert_eq!(group_name(108, &file), "108");
    }

    #[test]
    fn file_systems_that_hold_no_overlay_are_told() {
        assert_eq!(file_system_of(Path::new("/h"), 0xef53).state, MechanismState::On);
        assert_eq!(file_system_of(Path::new("/h"), 0x6969).state, MechanismState::Off);
        assert_eq!(file_system_of(Path::new("/h"), 0x1234).state, MechanismState::Degraded);
    }

    #[test]
    fn a_single_id_is_no_full_identity() {
        assert_eq!(identities(&IdMap::Single { uid: 1, gid: 1 }).state, MechanismState::Degraded);
        assert_eq!(identities(&IdMap::Range { base: 1 << 28, count: 65_536 }).state, MechanismState::On);
    }

    #[test]
    fn no_promise_of_a_driver_that_is_not_there() {
        let opens = check("kvm", MechanismState::On, "/dev/kvm opens", None);
        let (reason, _) = verdict(&Ok(IsolationReport::default()), &opens);
        assert!(reason.contains("no microVM driver yet"), "{reason}");
        let failed = Err(MicrosandboxError::Runtime("no user namespaces".into()));
        assert!(verdict(&failed, &opens).0.starts_with("no sandbox can start"));
    }
}
