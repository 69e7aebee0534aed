//! Named volumes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum VolumeKind {
    #[default]
    #[serde(rename = "dir")]
    Directory,
    #[serde(rename = "disk")]
    Disk,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeConfig {
    pub name: String,
    pub kind: VolumeKind,
    pub quota_mib: Option<u64>,
    pub capacity_mib: Option<u64>,
    pub labels: BTreeMap<String, String>,
}

/// A row of the volume table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    pub name: String,
    pub kind: VolumeKind,
    pub quota_mib: Option<u64>,
    pub labels: BTreeMap<String, String>,
}
