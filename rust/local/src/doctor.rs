//! What isolation this machine can give, found out by doing: a probe run of the runtime, real calls to KVM, the canary's
//! verdict, and facts about the host.
//!
//! Only the canary's verdict is remembered ([`super::isolation`]): everything else takes milliseconds, and a host changes
//! (groups, sysctls, mounts) without telling.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use microsandbox_contract::{Headroom, IdMap, Job, LAUNCH_VERSION, MechanismName as Name, ProbeSpec, Report, Shortage};

use super::isolation::{self, Finding, Host, kvm};
use crate::guest_kernel::{self, Found, Rung, RungReport};
use microsandbox_core::error::{Lack, MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{
    DoctorCheck, DoctorReport, Isolation, IsolationReport, LibraryRung, Mechanism, MechanismState,
};
use microsandbox_home::label::Labelled;
use microsandbox_home::{Home, headroom};

use crate::strays;

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

/// Looks. `recheck` forgets the verdict on microVMs and boots a test machine again.
pub async fn doctor(home: &Home, recheck: bool) -> MicrosandboxResult<DoctorReport> {
    doctor_of(home, isolation::host(home), recheck).await
}

/// As [`doctor`], with a stated idea of what machines do here.
pub async fn doctor_of(home: &Home, host: Arc<dyn Host>, recheck: bool) -> MicrosandboxResult<DoctorReport> {
    let path = home.path();
    microsandbox_home::make_private_directory(path)?;
    let ids = home.id_map();
    let config = home.config().clone();
    let (ladder, kvm) = microsandbox_home::blocking(move || {
        Ok((guest_kernel::ladder(&config), kvm::makes_machines(Path::new(kvm::DEVICE))))
    })
    .await?;
    let finding = isolation::judge(host, recheck).await?;
    let probed = match &ids {
        Ok(ids) => probe(home, ids, path).await,
        Err(error) => Err(MicrosandboxError::Runtime(error.to_string())),
    };
    let mut checks = vec![kvm_check(&kvm), library(&ladder), microvm(&finding)];
    match &probed {
        Ok(report) => checks.extend(report.mechanisms.iter().map(mechanism)),
        Err(error) => {
            checks.push(check("container", MechanismState::Off, error.to_string(), Some(USER_NAMESPACE_HINT)))
        }
    }
    checks.extend([identities(ids.as_ref()), file_system(path), disk_space(path, headroom::of(&home.config().disk))]);
    checks.push(strays(&strays::find(home).await));
    let (isolation, lack) = verdict(&probed, &finding);
    let (reason, hint) = lack.map_or((None, None), |lack| (Some(lack.reason), Some(lack.hint)));
    Ok(DoctorReport { isolation, reason, hint, checks, libkrunfw: ladder.into_iter().map(rung).collect() })
}

const USER_NAMESPACE_HINT: &str = "user namespaces must be allowed: sysctl user.max_user_namespaces above 0, \
     kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0 where these exist; in a \
     container, its seccomp profile must allow clone, unshare and mount";

async fn probe(home: &Home, ids: &IdMap, scratch: &Path) -> MicrosandboxResult<IsolationReport> {
    let spec = ProbeSpec {
        version: LAUNCH_VERSION,
        ids: ids.clone(),
        private_ids: home.run_ids()?,
        scratch: scratch.to_owned(),
    };
    let mut found = None;
    home.run_job(&Job::Probe(spec), &[], &mut |report| match report {
        Report::Probed(report) => found = Some(Ok(report)),
        Report::Failed(error) => {
            found = Some(Err(MicrosandboxError::Runtime(format!("{}; {}", error.message, error.hint))));
        }
        _ => {}
    })
    .await?;
    found.unwrap_or_else(|| Err(MicrosandboxError::Runtime("the probe ended without a result".into())))
}

/// What `auto` gives, and why not more.
fn verdict(probed: &MicrosandboxResult<IsolationReport>, finding: &Finding) -> (Isolation, Option<Lack>) {
    match (finding.lack(), probed) {
        (None, _) => (Isolation::Microvm, None),
        (Some(lack), Ok(_)) => (Isolation::Container, Some(lack.clone())),
        (Some(lack), Err(error)) => {
            let reason =
                format!("no sandbox can start on this machine: no container ({error}), no microVM ({})", lack.reason);
            (Isolation::Container, Some(Lack::new(reason, USER_NAMESPACE_HINT)))
        }
    }
}

fn check(name: &str, state: MechanismState, detail: impl Into<String>, hint: Option<&str>) -> DoctorCheck {
    DoctorCheck { name: name.into(), state, detail: detail.into(), hint: hint.map(str::to_owned) }
}

fn kvm_check(kvm: &Result<(), Lack>) -> DoctorCheck {
    let name = "kvm";
    match kvm {
        Ok(()) => check(name, MechanismState::On, format!("{} opens and makes machines", kvm::DEVICE), None),
        Err(lack) => check(name, MechanismState::Off, &lack.reason, Some(&lack.hint)),
    }
}

/// The guest kernel that was found, or why there is none.
fn library(ladder: &[RungReport]) -> DoctorCheck {
    let name = "libkrunfw";
    let taken = ladder.iter().find_map(|rung| match &rung.found {
        Found::Taken { digest } => Some((rung, digest)),
        _ => None,
    });
    if let Some((rung, digest)) = taken {
        let path = rung.path.as_deref().unwrap_or(Path::new("")).display();
        let detail = format!("{path} ({}, {})", rung.rung.as_str(), short(digest));
        return check(name, MechanismState::On, detail, None);
    }
    let unusable = ladder.iter().find_map(|rung| match &rung.found {
        Found::Unusable(lack) => Some((rung, lack)),
        _ => None,
    });
    match unusable {
        Some((RungReport { rung: Rung::System | Rung::Home, path, .. }, lack)) => {
            let path = path.as_deref().unwrap_or(Path::new("")).display();
            check(name, MechanismState::Off, format!("{path}, {}", lack.reason), Some(&lack.hint))
        }
        Some((_, lack)) => check(name, MechanismState::Off, &lack.reason, Some(&lack.hint)),
        None => {
            let detail = format!("there is no {} in any of the places below", guest_kernel::FILE_NAME);
            check(name, MechanismState::Off, detail, Some(guest_kernel::INSTALL_HINT))
        }
    }
}

/// `sha256:` and twelve digits.
fn short(digest: &str) -> &str {
    digest.get(.."sha256:".len() + 12).unwrap_or(digest)
}

fn rung(report: RungReport) -> LibraryRung {
    let (found, detail) = match report.found {
        Found::Unset => ("unset", None),
        Found::Absent => ("absent", None),
        Found::Unusable(lack) => ("unusable", Some(lack.reason)),
        Found::Taken { digest } => ("taken", Some(digest)),
        Found::PassedOver => ("passed over", None),
    };
    LibraryRung { rung: report.rung.as_str().into(), path: report.path, found: found.into(), detail }
}

/// Whether machines boot here.
fn microvm(finding: &Finding) -> DoctorCheck {
    let name = "microvm";
    match finding {
        Finding::Judged(verdict) => {
            let when = ago(verdict.age());
            match (&verdict.lack, verdict.took_ms) {
                (Some(lack), _) => {
                    check(name, MechanismState::Off, format!("{} (tried {when})", lack.reason), Some(&lack.hint))
                }
                (None, took) => {
                    let secs = took.unwrap_or(0) as f64 / 1000.0;
                    check(
                        name,
                        MechanismState::On,
                        format!("a test machine booted in {secs:.2} s (tried {when})"),
                        None,
                    )
                }
            }
        }
        Finding::Missing(lack) => {
            check(name, MechanismState::Off, format!("not tried: {}", lack.reason), Some(&lack.hint))
        }
        Finding::Undecided(lack) => check(name, MechanismState::Off, &lack.reason, Some(&lack.hint)),
    }
}

/// The age of a verdict.
fn ago(age: Duration) -> String {
    match age.as_secs() {
        0..10 => "just now".into(),
        secs @ 10..120 => format!("{secs} s ago; --recheck tries again"),
        secs @ 120..7200 => format!("{} min ago; --recheck tries again", secs / 60),
        secs => format!("{} h ago; --recheck tries again", secs / 3600),
    }
}

fn mechanism(mechanism: &Mechanism) -> DoctorCheck {
    let detail = mechanism.reason.clone().unwrap_or_else(|| "works".into());
    let hint = match (mechanism.state, mechanism.name) {
        (MechanismState::On, _) => None,
        (_, Name::MemoryLimit | Name::CpuLimit | Name::PidsLimit) => Some(
            "run as root, or in a session with delegated control groups (systemd: Delegate=yes for the user's slice)",
        ),
        (_, Name::DiskLimit) => {
            Some("put MSB_HOME on a file system of its own, of the size that all sandboxes may use")
        }
        (_, Name::UserNamespace) => Some(USER_NAMESPACE_HINT),
        (_, Name::IdRange) => Some(ID_HINT),
        (_, Name::Landlock) => Some("a kernel with Landlock enabled (CONFIG_SECURITY_LANDLOCK and in the lsm= list)"),
        _ => None,
    };
    check(mechanism.name.as_str(), mechanism.state, detail, hint)
}

const ID_HINT: &str = "root gives each sandbox ids of its own; as an ordinary user install newuidmap and newgidmap (package uidmap or shadow-utils) and give this user a range in \
     /etc/subuid and /etc/subgid (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER)";

/// Which ids exist inside.
fn identities(ids: Result<&IdMap, &MicrosandboxError>) -> DoctorCheck {
    let name = "identities";
    let ids = match ids {
        Ok(ids) => ids,
        Err(error) => return check(name, MechanismState::Off, error.to_string(), Some(ID_HINT)),
    };
    match ids {
        IdMap::Range { base, count } if ids.is_shared() => {
            let detail = format!(
                "the user namespace of this process maps {count} ids from {base}, which its other users have as well: a \
                 sandbox can use files of theirs that it is shown"
            );
            check(name, MechanismState::Degraded, detail, Some(ID_HINT))
        }
        IdMap::Range { base, count } if *count < microsandbox_home::ids::RANGE => {
            let detail = format!(
                "the user namespace of this process maps {count} ids from {base}: users beyond are unknown inside"
            );
            check(name, MechanismState::Degraded, detail, Some(ID_HINT))
        }
        IdMap::Range { base, count } => {
            check(name, MechanismState::On, format!("host root: files of this home have {count} ids from {base}"), None)
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
fn disk_space(home: &Path, headroom: Headroom) -> DoctorCheck {
    let name = "disk_space";
    match rustix::fs::statvfs(home) {
        Ok(stat) => {
            let block = if stat.f_frsize > 0 { stat.f_frsize } else { stat.f_bsize };
            let (free, total) = (stat.f_bavail.saturating_mul(block), stat.f_blocks.saturating_mul(block));
            let gib = |bytes: u64| bytes as f64 / GIB as f64;
            let (free_gib, total_gib, kept) = (gib(free), gib(total), gib(headroom.bytes(total)));
            let detail = format!("{free_gib:.1} of {total_gib:.1} GiB free; {kept:.1} GiB are left to the host");
            match headroom.check(&stat) {
                Ok(()) => check(name, MechanismState::On, detail, None),
                Err(shortage) => {
                    let hint = "free some space, or remove images and sandboxes (disk.host_headroom_mib is the limit)";
                    let detail = match shortage {
                        Shortage::Bytes { .. } => format!("{detail}: nothing is created or loaded any more"),
                        Shortage::Inodes { free, kept } => {
                            format!(
                                "{free} inodes free, {kept} are left to the host: nothing is created or loaded any more"
                            )
                        }
                    };
                    check(name, MechanismState::Degraded, detail, Some(hint))
                }
            }
        }
        Err(error) => {
            check(name, MechanismState::Degraded, format!("cannot inspect {}: {error}", home.display()), None)
        }
    }
}

/// Sandboxes of this home that run without a record.
fn strays(found: &MicrosandboxResult<Vec<Labelled>>) -> DoctorCheck {
    let name = strays::CHECK;
    match found {
        Ok(none) if none.is_empty() => check(name, MechanismState::On, "every sandbox that runs has a record", None),
        Ok(found) => {
            let pids: Vec<String> = found.iter().map(|stray| stray.runtime.pid.to_string()).collect();
            let detail = format!("{} run without a record (msb-runtime, pid {})", found.len(), pids.join(", "));
            check(name, MechanismState::Degraded, detail, Some(strays::HINT))
        }
        Err(error) => check(name, MechanismState::Degraded, format!("the records cannot be read: {error}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::isolation::verdict::{Subject, Verdict};
    use super::*;

    #[test]
    fn file_systems_that_hold_no_overlay_are_reported() {
        assert_eq!(file_system_of(Path::new("/h"), 0xef53).state, MechanismState::On);
        assert_eq!(file_system_of(Path::new("/h"), 0x6969).state, MechanismState::Off);
        assert_eq!(file_system_of(Path::new("/h"), 0x1234).state, MechanismState::Degraded);
    }

    #[test]
    fn a_single_id_is_no_full_identity() {
        assert_eq!(identities(Ok(&IdMap::Single { uid: 1, gid: 1 })).state, MechanismState::Degraded);
        assert_eq!(identities(Ok(&IdMap::Range { base: 1 << 28, count: 65_536 })).state, MechanismState::On);
    }

    #[test]
    fn auto_is_what_the_canary_says() {
        let lack = Lack::new("it hung", "nothing helps");
        let works = Ok(IsolationReport::default());
        let none: MicrosandboxResult<IsolationReport> = Err(MicrosandboxError::Runtime("no user namespaces".into()));
        let booted = Verdict::now(Subject::here("sha256:aa"), Duration::from_secs(5), Ok(Duration::from_millis(250)));
        let booted = Finding::Judged(booted);
        assert_eq!(verdict(&works, &booted), (Isolation::Microvm, None));
        assert_eq!(microvm(&booted).detail, "a test machine booted in 0.25 s (tried just now)");
        let refused = Verdict::now(Subject::here("sha256:aa"), Duration::from_secs(5), Err(lack.clone()));
        for finding in [Finding::Judged(refused), Finding::Missing(lack.clone()), Finding::Undecided(lack.clone())] {
            assert_eq!(verdict(&works, &finding), (Isolation::Container, Some(lack.clone())));
            let (given, why) = verdict(&none, &finding);
            assert!(given == Isolation::Container && why.unwrap().reason.starts_with("no sandbox can start"));
            let check = microvm(&finding);
            assert!(check.state == MechanismState::Off && check.detail.contains("it hung"), "{check:?}");
            assert_eq!(check.hint.as_deref(), Some("nothing helps"));
        }
    }

    #[test]
    fn the_age_of_a_verdict_is_reported() {
        assert_eq!(ago(Duration::from_secs(3)), "just now");
        assert!(ago(Duration::from_secs(90)).starts_with("90 s ago"));
        assert!(ago(Duration::from_secs(600)).starts_with("10 min ago"));
        assert!(ago(Duration::from_secs(86_400)).starts_with("24 h ago"));
    }

    #[test]
    fn the_library_that_is_taken_or_faulty_is_named() {
        let rung = |rung, found| RungReport { rung, path: Some("/x/libkrunfw.so.5".into()), found };
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let taken = library(&[rung(Rung::System, Found::Absent), rung(Rung::Home, Found::Taken { digest })]);
        assert_eq!(taken.detail, "/x/libkrunfw.so.5 (home, sha256:0123456789ab)");
        let faulty = Found::Unusable(Lack::new("which is not an ELF file", "bring another"));
        let faulty = library(&[rung(Rung::System, faulty), rung(Rung::Home, Found::Absent)]);
        assert_eq!(faulty.detail, "/x/libkrunfw.so.5, which is not an ELF file");
        let none = library(&[rung(Rung::Home, Found::Absent)]);
        assert!(none.state == MechanismState::Off && none.hint.unwrap().contains("msb install libkrunfw"));
    }
}
