//! What a sandbox mounts.

use microsandbox_core::model::{self, Mount, MountOptions, MountPolicy};
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString};

use crate::arguments::{dataclass, from_here, newtype, refuse};
use crate::enums::{DiskImageFormat, Member, MountKind, NamedVolumeMode, PythonEnum};

newtype!(
    /// Guest path to mount: the mounts, and what of them no backend of this build has.
    Mounts((Vec<Mount>, Vec<String>)) = |object| {
        let Ok(mapping) = object.cast::<PyMapping>() else { return refuse(object, "a mapping of str to MountConfig") };
        let (mut mounts, mut refused) = (Vec::new(), Vec::new());
        for item in mapping.items()?.iter() {
            let (path, mount): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            if !path.is_instance_of::<PyString>() {
                return refuse(&path, "a mapping of str to MountConfig; a key");
            }
            dataclass(&mount, "MountConfig")?;
            match mount.extract::<MountConfig>()?.mount(path.extract()?) {
                Ok(mount) => mounts.push(mount),
                Err(feature) => refused.push(feature.into()),
            }
        }
        // Parents before children.
        mounts.sort_by_key(|mount| mount.guest().split('/').filter(|part| !part.is_empty()).count());
        Ok((mounts, refused))
    }
);

/// The dataclass of this name, which has checked its fields.
#[derive(FromPyObject)]
struct MountConfig {
    kind: Member<MountKind>,
    bind: Option<String>,
    named: Option<String>,
    named_mode: Option<Member<NamedVolumeMode>>,
    quota_mib: Option<u64>,
    size_mib: Option<u64>,
    readonly: bool,
    noexec: bool,
    nosuid: bool,
    nodev: bool,
    disk: Option<String>,
    format: Option<Member<DiskImageFormat>>,
    fstype: Option<String>,
    stat_virtualization: Option<Member<model::StatVirtualization>>,
    host_permissions: Option<Member<model::HostPermissions>>,
    override_uid: Option<u32>,
    override_gid: Option<u32>,
}

impl MountConfig {
    /// A mount of the model, or what of it no backend of this build has.
    fn mount(self, guest: String) -> Result<Mount, &'static str> {
        let (quota_mib, size_mib) = (self.quota_mib, self.size_mib);
        let options =
            MountOptions { readonly: self.readonly, noexec: self.noexec, nosuid: self.nosuid, nodev: self.nodev };
        let policy = MountPolicy {
            stat_virtualization: self.stat_virtualization.map(|member| member.0).unwrap_or_default(),
            host_permissions: self.host_permissions.map(|member| member.0).unwrap_or_default(),
            override_uid: self.override_uid,
            override_gid: self.override_gid,
        };
        match self.kind.0 {
            MountKind::Bind => {
                Ok(Mount::Bind { host: here(self.bind.unwrap_or_default()), guest, options, policy, quota_mib })
            }
            MountKind::Named => match self.named_mode {
                Some(Member(NamedVolumeMode::Create | NamedVolumeMode::EnsureExists)) => Err("Volume.named(mode=)"),
                None | Some(Member(NamedVolumeMode::Existing)) if quota_mib.is_some() || size_mib.is_some() => {
                    Err("Volume.named(size_mib=, quota_mib=)")
                }
                None | Some(Member(NamedVolumeMode::Existing)) => {
                    Ok(Mount::Named { name: self.named.unwrap_or_default(), guest, options, policy })
                }
            },
            MountKind::Tmpfs => Ok(Mount::Tmpfs { guest, size_mib, options }),
            MountKind::Disk => {
                let format = self.format.map_or(DiskImageFormat::Raw, |member| member.0).value().into();
                let host = self.disk.unwrap_or_default();
                Ok(Mount::DiskImage { host, guest, format, fstype: self.fstype, options })
            }
            MountKind::Owned => Err("Volume.owned"),
        }
    }
}

/// [`from_here`], if the result is text.
fn here(path: String) -> String {
    from_here((&path).into()).into_os_string().into_string().unwrap_or(path)
}
