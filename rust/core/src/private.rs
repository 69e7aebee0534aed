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

/// Refuses a file or directory that decides what sandboxes may do and that another user could have written, as ssh(1) does with
/// its own. `what` names it, `instead` is the way around it.
pub fn check_owner(path: &Path, what: &str, instead: &str) -> MicrosandboxResult<()> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = path.metadata() else { return Ok(()) };
    let own = rustix::process::geteuid().as_raw();
    let refused = |why: String| Err(MicrosandboxError::InvalidConfig(format!("{what} {}: {why}", path.display())));
    if meta.uid() != own && meta.uid() != 0 {
        return refused(format!(
            "it belongs to user {}, and this process runs as user {own}: that user could decide what the sandboxes of this one \
             may do; change its owner (chown {own}), or {instead}",
            meta.uid()
        ));
    }
    if meta.mode() & 0o022 != 0 {
        return refused(format!(
            "other users may write to it (mode {:04o}), and could decide what sandboxes may do; forbid that (chmod go-w), or \
             {instead}",
            meta.mode() & 0o7777
        ));
    }
    Ok(())
}
