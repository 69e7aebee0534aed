//! Named volumes, and what a sandbox mounts.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Owners;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum VolumeKind {
    #[default]
    #[serde(rename = "dir")]
    Directory,
    #[serde(rename = "disk")]
    Disk,
}

impl VolumeKind {
    /// The database's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            VolumeKind::Directory => "dir",
            VolumeKind::Disk => "disk",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeConfig {
    pub name: String,
    pub kind: VolumeKind,
    pub quota_mib: Option<u64>,
    pub capacity_mib: Option<u64>,
    pub labels: BTreeMap<String, String>,
    /// Of what a server makes for one of its clients.
    pub owner: Option<String>,
}

/// Which volumes `list` returns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeQuery {
    /// Only the one of this name.
    pub name: Option<String>,
    pub owners: Owners,
    /// Leave `used_bytes` out: to measure a volume costs a look at each of its files.
    pub unmeasured: bool,
}

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeInfo {
    /// Empty for the account's default volume.
    pub name: String,
    /// The service's identity; none on this machine.
    pub id: Option<String>,
    pub is_default: bool,
    pub kind: VolumeKind,
    pub quota_mib: Option<u64>,
    pub used_bytes: u64,
    /// Disks, and what a service bounds.
    pub capacity_bytes: Option<u64>,
    pub disk_format: Option<String>,
    pub disk_fstype: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Of what a server made for one of its clients.
    pub owner: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
}

impl VolumeInfo {
    /// Whether both describe one volume, and not one after the other of the same name.
    pub fn is_same(&self, other: &VolumeInfo) -> bool {
        (&self.name, &self.id, self.created_at) == (&other.name, &other.id, other.created_at)
    }
}

/// Something made visible inside a sandbox. The serialised form is that of the wire's create request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Mount {
    /// A host file or directory, live both ways.
    Bind {
        host: String,
        guest: String,
        #[serde(default)]
        options: MountOptions,
        #[serde(flatten)]
        policy: MountPolicy,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quota_mib: Option<u64>,
    },
    /// A volume of this backend.
    Named {
        name: String,
        guest: String,
        #[serde(default)]
        options: MountOptions,
        #[serde(flatten)]
        policy: MountPolicy,
    },
    /// Memory; gone with the run.
    Tmpfs {
        guest: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_mib: Option<u64>,
        #[serde(default)]
        options: MountOptions,
    },
    DiskImage {
        host: String,
        guest: String,
        format: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fstype: Option<String>,
        #[serde(default)]
        options: MountOptions,
    },
}

impl Mount {
    /// Where it appears: an absolute path inside.
    pub fn guest(&self) -> &str {
        match self {
            Mount::Bind { guest, .. }
            | Mount::Named { guest, .. }
            | Mount::Tmpfs { guest, .. }
            | Mount::DiskImage { guest, .. } => guest,
        }
    }

    pub fn options(&self) -> MountOptions {
        match self {
            Mount::Bind { options, .. }
            | Mount::Named { options, .. }
            | Mount::Tmpfs { options, .. }
            | Mount::DiskImage { options, .. } => *options,
        }
    }

    /// Of what has files of this machine.
    pub fn policy(&self) -> Option<&MountPolicy> {
        match self {
            Mount::Bind { policy, .. } | Mount::Named { policy, .. } => Some(policy),
            Mount::Tmpfs { .. } | Mount::DiskImage { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MountOptions {
    pub readonly: bool,
    pub noexec: bool,
    pub nosuid: bool,
    pub nodev: bool,
}

/// How owners and modes of files in a mounted directory are shown and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MountPolicy {
    pub stat_virtualization: StatVirtualization,
    pub host_permissions: HostPermissions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub override_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub override_gid: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatVirtualization {
    #[default]
    Strict,
    Relaxed,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPermissions {
    #[default]
    Private,
    Mirror,
}
