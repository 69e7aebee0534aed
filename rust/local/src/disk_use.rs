//! What sandboxes and volumes use of the disk.

use std::path::PathBuf;

use microsandbox_core::error::MicrosandboxResult;
use microsandbox_home::disk_use::COUNTED;
pub use microsandbox_home::disk_use::{Count, count, open};
use microsandbox_home::{Home, blocking};

/// Blocks on the disk and files, of every kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUse {
    pub bytes: u64,
    pub inodes: u64,
}

/// Together: the upper layers and logs of these sandboxes, and the files of these volumes. What cannot be read counts as nothing.
pub async fn measure(home: &Home, sandboxes: Vec<String>, volumes: Vec<String>) -> MicrosandboxResult<DiskUse> {
    let home = home.clone();
    blocking(move || {
        let sandboxes = sandboxes.iter().map(|name| home.sandbox_dir(name));
        let volumes = volumes.iter().map(|name| home.config().volume_path(name));
        let mut used = DiskUse::default();
        for place in sandboxes.chain(volumes).collect::<Vec<PathBuf>>() {
            if let Ok(count) = open(&place).and_then(|top| count(top, COUNTED)) {
                used.bytes = used.bytes.saturating_add(count.allocated());
                used.inodes = used.inodes.saturating_add(count.files());
            }
        }
        Ok(used)
    })
    .await
}
