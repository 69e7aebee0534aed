//! Removing directories.

use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicBool;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::error::FsError;
use super::names::parent;
use super::root::Root;

/// Removes a directory; links inside are removed, never followed, and other file systems are not entered.
pub fn remove_dir(root: &Root, path: &str, recursive: bool, cancel: &AtomicBool) -> Result<(), FsError> {
    let (dir, name) = parent(root, path, "cannot remove")?;
    let failed = |e| FsError::at(e, "cannot remove", path);
    if !recursive {
        return rustix::fs::unlinkat(&dir, &*name, AtFlags::REMOVEDIR).map_err(failed);
    }
    microsandbox_rooted::remove::directory(&dir, name.as_bytes(), cancel).map_err(|error| match error {
        // Something is mounted inside.
        Errno::XDEV => failed(Errno::BUSY),
        error => failed(error),
    })
}
