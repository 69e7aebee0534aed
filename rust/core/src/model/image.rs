//! Where a root file system comes from, and what the image store knows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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

/// How references of images begin that come from this machine, not from a registry.
pub const LOCAL_SOURCES: [&str; 4] = ["docker-archive:", "oci-archive:", "oci:", "docker-daemon:"];

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

    /// Whether text that names an image names a file, a directory or a daemon of this machine by one of the
    /// [`LOCAL_SOURCES`].
    pub fn is_local_source(text: &str) -> bool {
        LOCAL_SOURCES.iter().any(|start| text.starts_with(start))
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

/// What `prune` may remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImagePruneRequest {
    /// Reports only; nothing is written.
    pub dry_run: bool,
    /// Only images that were not used for this long.
    pub older_than: Option<Duration>,
    /// Also the compressed layers of images that stay: they are needed to save an image.
    pub blobs: bool,
    /// No image that has a name, only what no image needs.
    pub dangling: bool,
}

/// The form of an archive of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageArchiveFormat {
    /// As `docker save` writes it: an image layout and a `manifest.json`.
    #[default]
    Docker,
    /// An OCI image layout.
    Oci,
}

/// Images to write to an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSaveRequest {
    pub references: Vec<String>,
    /// `-` is standard output.
    pub output: PathBuf,
    pub format: ImageArchiveFormat,
}

/// An image that stays because something needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageHolder {
    pub reference: String,
    /// The name of a sandbox, or what else uses it.
    pub holder: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ImagePruneReport {
    pub dry_run: bool,
    pub image_refs_removed: u64,
    pub manifests_removed: u64,
    pub layers_removed: u64,
    pub blobs_removed: u64,
    /// Interrupted downloads.
    pub parts_removed: u64,
    pub skipped_in_use: u64,
    pub bytes_reclaimed: Option<u64>,
    /// The references that were removed.
    pub removed: Vec<String>,
    pub in_use: Vec<ImageHolder>,
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
