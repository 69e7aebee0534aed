//! Landlock for the supervisor: after the boot it reads frames that a hostile guest made, so from then on it can reach
//! nothing but its own sandbox directory, its control groups and `/proc`.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use microsandbox_contract::{Mechanism, MechanismName, MechanismState};
use rustix::fd::{AsFd, OwnedFd};

use super::caps;

/// Newest version of Landlock whose rights we name; older kernels enforce what they know of it.
const NEWEST: ABI = ABI::V6;

/// Confines this process for good and says how far that went.
pub fn confine_supervisor(sandbox_dir: &Path, cgroups: &[PathBuf]) -> Mechanism {
    let dropped = caps::drop_to_supervisor();
    match restrict(sandbox_dir, cgroups) {
        Ok(RulesetStatus::FullyEnforced) if dropped.is_ok() => Mechanism::new(
            MechanismName::Landlock,
            MechanismState::On,
            "the supervisor reaches its sandbox directory, its control groups and /proc only, and no network",
        ),
        Ok(RulesetStatus::NotEnforced) => Mechanism::new(
            MechanismName::Landlock,
            MechanismState::Off,
            "this kernel has no Landlock, or it is disabled",
        ),
        Ok(_) => Mechanism::new(
            MechanismName::Landlock,
            MechanismState::Degraded,
            "the supervisor is confined as far as this kernel's version of Landlock goes",
        ),
        Err(error) => Mechanism::new(MechanismName::Landlock, MechanismState::Off, error.to_string()),
    }
}

fn restrict(sandbox_dir: &Path, cgroups: &[PathBuf]) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST) & !AccessFs::Execute;
    let files = AccessFs::WriteFile
        | AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::RemoveFile
        | AccessFs::MakeReg
        | AccessFs::Truncate;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/proc")?, read))?
        .add_rule(PathBeneath::new(PathFd::new(sandbox_dir)?, files))?;
    for group in cgroups {
        let leaf = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::Truncate;
        rules = rules.add_rule(PathBeneath::new(PathFd::new(group)?, leaf))?;
        // Removing a directory is a right on the one that holds it.
        if let Some(parent) = group.parent() {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(parent)?, AccessFs::RemoveDir))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Confines a monitor to the four things in its root directory: the guest's files, the directory of the sockets, the
/// devices and its own entries of `/proc`. Older kernels enforce what they know of it; none at all is no failure, because the
/// root directory holds nothing else anyway.
pub fn confine_monitor(root: &str, sockets: &str, devices: &str) -> Result<(), Box<dyn std::error::Error>> {
    let all = AccessFs::from_all(NEWEST);
    // Without the right to move files between directories (Linux before 5.19) the guest could not rename.
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)
        .map(|rules| rules.set_compatibility(CompatLevel::BestEffort));
    let Ok(rules) = rules else { return Ok(()) };
    let file = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    rules
        .handle_access(all)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new(root)?, all & !AccessFs::Execute & !AccessFs::IoctlDev))?
        .add_rule(PathBeneath::new(PathFd::new(sockets)?, AccessFs::MakeSock | AccessFs::ReadDir))?
        .add_rule(PathBeneath::new(PathFd::new(devices)?, file))?
        .add_rule(PathBeneath::new(PathFd::new("/proc")?, AccessFs::ReadFile | AccessFs::ReadDir))?
        .restrict_self()?;
    Ok(())
}

/// Confines the unpacking of an archive to its target directories, and to reading the layers beneath them: no network, and no
/// process outside. Silent: it is a second barrier behind a writer that does not leave its root.
pub fn confine_writer(targets: &[&OwnedFd], beneath: &[&OwnedFd]) {
    let confine = || -> Result<(), Box<dyn std::error::Error>> {
        let all = AccessFs::from_all(NEWEST);
        // Without the right to link across directories (Linux before 5.19) hard links could not be unpacked.
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::Refer)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        for target in targets {
            rules = rules.add_rule(PathBeneath::new(target.as_fd(), all & !AccessFs::Execute))?;
        }
        for layer in beneath {
            rules = rules.add_rule(PathBeneath::new(layer.as_fd(), AccessFs::ReadFile | AccessFs::ReadDir))?;
        }
        rules.restrict_self()?;
        Ok(())
    };
    let _ = confine();
}
