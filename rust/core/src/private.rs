//! Files that only their owner may read or write.

use std::io::Write as _;
use std::path::Path;

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Replaces a file in one step; mode 0600, whatever mode the file had before. The file has the whole new content, or is
/// unchanged.
pub fn write(path: &Path, content: &[u8]) -> MicrosandboxResult<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let write = || -> std::io::Result<()> {
        // Temporary files are made with mode 0600.
        let mut fresh = tempfile::NamedTempFile::new_in(directory)?;
        fresh.write_all(content)?;
        fresh.as_file().sync_all()?;
        fresh.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(directory)?.sync_all()
    };
    write().map_err(|e| MicrosandboxError::io("write", path, e))
}
