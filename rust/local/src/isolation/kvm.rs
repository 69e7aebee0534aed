//! Whether this process may make virtual machines: found out by making one, not by looking at processor flags.
//!
//! That a machine can be made does not mean that a guest runs in it; the canary finds that out.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use microsandbox_sys::kvm;

use microsandbox_core::error::Lack;

pub const DEVICE: &str = "/dev/kvm";
/// The only version there has been since Linux 2.6.22.
const API_VERSION: i32 = 12;

const NO_KVM_HINT: &str = "switch on virtualisation in the firmware (or nested virtualisation in the hypervisor) and \
     load the kvm module; in a container, pass /dev/kvm in";
const BROKEN_HINT: &str = "what answers here is no working KVM: see the kernel's log (dmesg), and whether a hypervisor \
     around this machine allows nested virtualisation";

/// Opens `device` and asks its version: cheap enough for every creation of a sandbox.
pub fn answers(device: &Path) -> Result<File, Lack> {
    let file = open(device)?;
    let place = device.display();
    let version = kvm::api_version(&file).map_err(|error| {
        let error = std::io::Error::from(error);
        Lack::new(format!("{place} does not answer KVM_GET_API_VERSION: {error}"), BROKEN_HINT)
    })?;
    if version != API_VERSION {
        let reason = format!("{place} has KVM API version {version} instead of {API_VERSION}");
        return Err(Lack::new(reason, BROKEN_HINT));
    }
    Ok(file)
}

/// As [`answers`], and also creates a virtual machine, which is closed immediately.
pub fn makes_machines(device: &Path) -> Result<(), Lack> {
    let file = answers(device)?;
    kvm::create_machine(&file).map(drop).map_err(|error| {
        let error = std::io::Error::from(error);
        Lack::new(format!("{} cannot make a machine (KVM_CREATE_VM): {error}", device.display()), BROKEN_HINT)
    })
}

fn open(device: &Path) -> Result<File, Lack> {
    let place = device.display();
    File::options().read(true).write(true).open(device).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Lack::new(format!("there is no {place}"), NO_KVM_HINT),
        ErrorKind::PermissionDenied => forbidden(device),
        _ => Lack::new(format!("{place} does not open: {error}"), NO_KVM_HINT),
    })
}

fn forbidden(device: &Path) -> Lack {
    let place = device.display();
    match fs::metadata(device) {
        // Only the owner may open it: joining a group would not help.
        Ok(meta) if meta.mode() & 0o060 != 0o060 => {
            let hint = format!(
                "give a group access (chgrp kvm {place}; chmod 660 {place}; a udev rule keeps it) and join it: \
                 usermod -aG kvm USER"
            );
            Lack::new(
                format!("permission: {place} may only be opened by its owner (mode {:03o})", meta.mode() & 0o777),
                hint,
            )
        }
        Ok(meta) => {
            let group = group_name(meta.gid(), Path::new("/etc/group"));
            Lack::new(
                format!("permission: {place} may only be opened by root and group {group}"),
                format!("add yourself to group {group} (usermod -aG {group} USER) and log in again"),
            )
        }
        Err(error) => Lack::new(format!("permission: {place} may not be opened: {error}"), NO_KVM_HINT),
    }
}

fn group_name(id: u32, file: &Path) -> String {
    let listed = fs::read_to_string(file).unwrap_or_default();
    let name = listed.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_missing_device_is_not_called_a_permission() {
        let dir = tempfile::tempdir().unwrap();
        let lack = makes_machines(&dir.path().join("kvm")).unwrap_err();
        assert!(lack.reason.starts_with("there is no "), "{lack:?}");
    }

    #[test]
    fn a_file_that_is_no_kvm_is_found_out_by_asking_it() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("kvm");
        fs::write(&device, "").unwrap();
        let lack = makes_machines(&device).unwrap_err();
        assert!(lack.reason.contains("KVM_GET_API_VERSION"), "{lack:?}");
        assert!(!lack.hint.is_empty());
    }

    #[test]
    fn what_would_give_permission_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("kvm");
        fs::write(&device, "").unwrap();
        fs::set_permissions(&device, fs::Permissions::from_mode(0o660)).unwrap();
        let group = group_name(fs::metadata(&device).unwrap().gid(), Path::new("/etc/group"));
        let lack = forbidden(&device);
        assert!(lack.reason.starts_with("permission: ") && lack.reason.contains(&group), "{lack:?}");
        assert!(lack.hint.contains(&format!("usermod -aG {group}")), "{lack:?}");
        fs::set_permissions(&device, fs::Permissions::from_mode(0o600)).unwrap();
        let lack = forbidden(&device);
        assert!(lack.reason.contains("only be opened by its owner (mode 600)"), "{lack:?}");
        assert!(lack.hint.contains("group kvm") || lack.hint.contains("chgrp kvm"), "{lack:?}");
    }

    #[test]
    fn a_group_is_named_where_it_has_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("group");
        fs::write(&file, "root:x:0:\nkvm:x:107:joe\n").unwrap();
        assert_eq!(group_name(107, &file), "kvm");
        assert_eq!(group_name(108, &file), "108");
    }
}
