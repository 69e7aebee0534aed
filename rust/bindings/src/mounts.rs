//! A `MountConfig` as a mount of the model.

use microsandbox_core::model::{HostPermissions, Mount, MountOptions, MountPolicy, StatVirtualization};
use pyo3::prelude::*;

use crate::convert;

/// A mount of the model, or what of it no backend of this build has.
pub fn mount_of(guest: String, config: &Bound<'_, PyAny>) -> PyResult<Result<Mount, String>> {
    let get = |name: &str| config.call_method1("get", (name,));
    let text = |name: &str| -> PyResult<Option<String>> { get(name)?.extract() };
    let number = |name: &str| -> PyResult<Option<u64>> { get(name)?.extract() };
    let flag = |name: &str| -> PyResult<bool> { Ok(get(name)?.extract::<Option<bool>>()?.unwrap_or(false)) };
    let options = MountOptions {
        readonly: flag("readonly")?,
        noexec: flag("noexec")?,
        nosuid: flag("nosuid")?,
        nodev: flag("nodev")?,
    };
    let policy = MountPolicy {
        stat_virtualization: match text("stat_virtualization")?.as_deref() {
            Some("relaxed") => StatVirtualization::Relaxed,
            Some("off") => StatVirtualization::Off,
            _ => StatVirtualization::Strict,
        },
        host_permissions: match text("host_permissions")?.as_deref() {
            Some("mirror") => HostPermissions::Mirror,
            _ => HostPermissions::Private,
        },
        override_uid: get("override_uid")?.extract()?,
        override_gid: get("override_gid")?.extract()?,
    };
    let kind = text("kind")?.unwrap_or_default();
    Ok(match kind.as_str() {
        "bind" => Ok(Mount::Bind {
            host: here(text("bind")?.unwrap_or_default()),
            guest,
            options,
            policy,
            quota_mib: number("quota_mib")?,
        }),
        "named" if !matches!(text("named_mode")?.as_deref(), None | Some("existing")) => {
            Err("Volume.named(mode=)".into())
        }
        "named" if number("quota_mib")?.is_some() || number("size_mib")?.is_some() => {
            Err("Volume.named(size_mib=, quota_mib=)".into())
        }
        "named" => Ok(Mount::Named { name: text("named")?.unwrap_or_default(), guest, options, policy }),
        "tmpfs" => Ok(Mount::Tmpfs { guest, size_mib: number("size_mib")?, options }),
        "disk" => Ok(Mount::DiskImage {
            host: text("disk")?.unwrap_or_default(),
            guest,
            format: text("format")?.unwrap_or_else(|| "raw".into()),
            fstype: text("fstype")?,
            options,
        }),
        _ => Err("Volume.owned".into()),
    })
}

/// [`convert::from_here`], if the result is text.
fn here(path: String) -> String {
    convert::from_here((&path).into()).into_os_string().into_string().unwrap_or(path)
}
