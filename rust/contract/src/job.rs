//! The job of one `msb-runtime` process.
//!
//! The runtime is executed from a sealed memory file with an empty environment. Everything it needs arrives on
//! inherited descriptors (see [`fd`]); every other descriptor is closed. The job is one JSON document on [`fd::SPEC`],
//! reports are JSON lines on [`fd::REPORT`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::headroom::Headroom;
use crate::launch::{HostIds, IdMap, LaunchSpec};

/// Version of this contract. Both sides are embedded in one extension module, so it only guards against a mix-up.
pub const LAUNCH_VERSION: u32 = 1;

/// Numbers of the inherited descriptors.
pub mod fd {
    /// The [`super::Job`] as JSON; a sealed memory file, read to its end.
    pub const SPEC: i32 = 3;
    /// [`crate::Report`]s as JSON lines; a pipe. Closed after `Ready` or `BootError` of a launch.
    pub const REPORT: i32 = 4;
    /// The lifeline: end of file ends the sandbox; one byte `d` detaches it for good. The creator of a detached
    /// sandbox sends it once it has recorded the run, so that no sandbox runs without a record.
    pub const LIFELINE: i32 = 5;
    /// A pidfd of the creator; readable when it is gone. Same meaning as end of file on the lifeline, but a forked
    /// child of the creator cannot keep it alive.
    pub const OWNER: i32 = 6;
    /// Launch: the agent, a sealed memory file.
    pub const PAYLOAD: i32 = 7;
    /// Launch of a microVM: the virtual machine monitor, a sealed memory file.
    pub const VMM: i32 = 8;
    /// Launch of a microVM: the libkrunfw library that holds the guest kernel, opened for reading.
    pub const KERNEL: i32 = 9;
    /// Unpack: the first of [`super::UnpackSpec::sources`] files to read, one number after the other.
    pub const SOURCES: i32 = 10;
}

impl Job {
    /// How many files were handed over from [`fd::SOURCES`] on.
    pub fn sources(&self) -> usize {
        match self {
            Job::Unpack(spec) => spec.sources.min(MAX_SOURCES),
            Job::Launch(_) | Job::RemoveTree(_) | Job::Probe(_) => 0,
        }
    }
}

/// One run of `msb-runtime`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub enum Job {
    /// Boot a sandbox and supervise it to its end.
    Launch(Box<LaunchSpec>),
    /// Unpack image layers beneath a directory, inside the sandbox's id mapping.
    Unpack(UnpackSpec),
    /// Remove a tree that holds files of mapped ids which the caller may not remove itself.
    RemoveTree(RemoveTreeSpec),
    /// Find out by doing which mechanisms this machine gives; creates nothing that stays.
    Probe(ProbeSpec),
}

/// Most files of one job.
pub const MAX_SOURCES: usize = 512;

/// One layer: a file of its own, or a part of an archive that holds several.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerSource {
    /// Which of the descriptors from [`fd::SOURCES`] on holds the blob.
    pub source: usize,
    /// Where the blob begins in that file.
    pub offset: u64,
    pub length: u64,
    pub compression: Compression,
    /// `sha256:<hex>` of the blob as stored; checked while reading.
    pub blob_digest: String,
    /// `sha256:<hex>` of the uncompressed tar; checked before the layer counts.
    pub diff_id: String,
    /// Where to unpack: an empty directory, owned by the inside root.
    pub target: PathBuf,
    /// Directories of the layers beneath this one in its image, bottom first (of this job: their targets). Asked where the
    /// layer names a parent or a link target that it does not hold itself: a directory that is a symlink further down
    /// (merged `/usr`), attributes of directories it does not describe.
    #[serde(default)]
    pub beneath: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnpackSpec {
    pub version: u32,
    pub ids: IdMap,
    /// Files that were handed over from [`fd::SOURCES`] on.
    pub sources: usize,
    pub layers: Vec<LayerSource>,
    pub limits: ImageLimits,
    /// What stays free of the file system of the layers.
    #[serde(default)]
    pub headroom: Headroom,
}

/// Bounds of unpacking; each is named in the error that it causes (`image.entries` …).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLimits {
    pub layer_bytes: u64,
    pub file_bytes: u64,
    pub total_bytes: u64,
    pub entries: u64,
    pub path_depth: u32,
    /// Unpacked : packed, beyond the first 64 MiB.
    pub ratio: u64,
    pub pax_bytes: u64,
    pub zstd_window_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        ImageLimits {
            layer_bytes: 10 << 30,
            file_bytes: 5 << 30,
            total_bytes: 40 << 30,
            entries: 1_000_000,
            path_depth: 128,
            ratio: 200,
            pax_bytes: 1 << 20,
            zstd_window_bytes: 128 << 20,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveTreeSpec {
    pub version: u32,
    pub ids: IdMap,
    /// Removed with everything beneath it; other file systems mounted inside are not entered.
    pub path: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProbeSpec {
    pub version: u32,
    pub ids: IdMap,
    /// As in [`crate::LaunchSpec`].
    #[serde(default)]
    pub private_ids: Vec<HostIds>,
    /// A directory on the file system that will hold sandboxes; a temporary one is made and removed beneath it.
    pub scratch: PathBuf,
}
