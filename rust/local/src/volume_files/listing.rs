//! A directory of a volume, page by page.

use std::os::fd::OwnedFd;

use microsandbox_core::error::MicrosandboxResult;
use microsandbox_core::model::FsEntry;
use microsandbox_protocol::names;
use rustix::fs::{AtFlags, Dir, OFlags};

use super::{Tree, failed, kind_of, millis, relative};

/// Entries of one page.
const PAGE: usize = 1000;

pub struct Listing {
    directory: OwnedFd,
    entries: Dir,
    path: String,
    /// In front of a name; empty for the root.
    prefix: String,
}

impl Listing {
    pub fn open(tree: &Tree, path: String) -> MicrosandboxResult<Listing> {
        let fail = |errno| failed("list", &path, errno);
        let name = relative("list", &path)?;
        let directory = tree.open(name, OFlags::RDONLY | OFlags::DIRECTORY).map_err(fail)?;
        let entries = Dir::read_from(&directory).map_err(fail)?;
        let prefix = if name == "." { String::new() } else { format!("{name}/") };
        Ok(Listing { directory, entries, prefix, path })
    }

    /// The next entries; none at the end.
    pub fn page(&mut self) -> MicrosandboxResult<Vec<FsEntry>> {
        let mut page = Vec::new();
        while page.len() < PAGE {
            let Some(entry) = self.entries.read() else { break };
            let entry = entry.map_err(|errno| failed("list", &self.path, errno))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // The entry may have been removed since it was listed.
            let Ok(stat) = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            page.push(FsEntry {
                path: format!("{}{}", self.prefix, names::to_text(name.to_bytes())),
                kind: kind_of(&stat),
                size: u64::try_from(stat.st_size).unwrap_or_default(),
                mode: stat.st_mode,
                modified_ms: millis(stat.st_mtime, stat.st_mtime_nsec),
            });
        }
        Ok(page)
    }
}
