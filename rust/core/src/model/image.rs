//! Where a root file system comes from, and what the image store knows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The source of a root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ImageSource {
    /// This machine's own system directories, read-only, under a private overlay. `prefixes`: further directories to
    /// show read-only at their own path (the running interpreter's).
    Host {
        #[serde(default)]
        prefixes: Vec<PathBuf>,
    },
    /// An image of the store, by reference.
    Oci { reference: String },
    /// A directory, copied on write: never modified.
    Bind { path: PathBuf },
    /// A disk image (microVM only).
    DiskImage {
        path: PathBuf,
        #[serde(default)]
        format: Option<String>,
        #[serde(default)]
        fstype: Option<String>,
    },
}

impl Default for ImageSource {
    fn default() -> Self {
        ImageSource::Oci { reference: String::new() }
    }
}

impl ImageSource {
    /// Whether text that names an image is a path: by its spelling alone. A directory `./python` of the caller does not change
    /// what the image `python` is.
    pub fn is_path(text: &str) -> bool {
        text == "." || text == ".." || ["/", "./", "../"].iter().any(|start| text.starts_with(start))
    }

    /// One word or path for tables.
    pub fn describe(&self) -> String {
        match self {
            ImageSource::Host { .. } => "host".into(),
            ImageSource::Oci { reference } => reference.clone(),
            ImageSource::Bind { path } | ImageSource::DiskImage { path, .. } => path.display().to_string(),
        }
    }
}

/// A row of the image store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    pub reference: String,
    pub manifest_digest: Option<String>,
    pub architecture: Option<String>,
    pub os: Option<String>,
    pub layer_count: u32,
    pub size_bytes: Option<u64>,
    pub created_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageDetail {
    pub handle: ImageInfo,
    pub config: Option<ImageConfigDetail>,
    /// Bottom first.
    pub layers: Vec<ImageLayerDetail>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ImageConfigDetail {
    pub digest: String,
    pub env: Vec<String>,
    pub cmd: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub stop_signal: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageLayerDetail {
    pub diff_id: String,
    pub blob_digest: String,
    pub media_type: Option<String>,
    pub compressed_size_bytes: Option<u64>,
    /// Unpacked size; the field name is the reference's.
    pub erofs_size_bytes: Option<u64>,
    pub position: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ImagePruneReport {
    pub image_refs_removed: u64,
    pub manifests_removed: u64,
    pub layers_removed: u64,
    pub skipped_in_use: u64,
    pub bytes_reclaimed: Option<u64>,
}

/// How far an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageProgress {
    /// `verify`, `unpack`.
    pub phase: &'static str,
    pub layer_index: usize,
    pub layer_count: usize,
    pub completed_bytes: u64,
    pub total_bytes: u64,
}
