//! `disk.host_headroom`: the free space of the host's file systems that the product never uses up. Sandboxes have
//! no quota, so a guest can still do so; what we write for it or for a caller is refused before.

use std::os::fd::AsFd;
use std::path::Path;

use microsandbox_contract::Headroom;
use microsandbox_core::config::DiskConfig;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use rustix::io::Errno;

use crate::Home;

const MIB: u64 = 1 << 20;

/// What this configuration keeps free.
pub fn of(config: &DiskConfig) -> Headroom {
    config.host_headroom_mib.map_or(Headroom::Usual, |mib| Headroom::Bytes(mib.saturating_mul(MIB)))
}

/// Refuses what would write to the file system of `place` while less than the headroom is free there. Before `place` exists,
/// the directory counts in which it will be made. `what` is the operation: "create sandbox web".
pub fn check(home: &Home, place: &Path, what: impl FnOnce() -> String) -> MicrosandboxResult<()> {
    for directory in place.ancestors() {
        match rustix::fs::statvfs(directory) {
            Ok(stat) => return verdict(of(&home.config().disk), directory, &stat, what),
            Err(Errno::NOENT) => {}
            // What comes next reports the error of its own call.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// As [`check`], of the file system of an open file or directory; `place` is for the error.
pub fn check_open(
    headroom: Headroom,
    file: impl AsFd,
    place: &Path,
    what: impl FnOnce() -> String,
) -> MicrosandboxResult<()> {
    match rustix::fs::fstatvfs(file) {
        Ok(stat) => verdict(headroom, place, &stat, what),
        Err(_) => Ok(()),
    }
}

fn verdict(
    headroom: Headroom,
    place: &Path,
    stat: &rustix::fs::StatVfs,
    what: impl FnOnce() -> String,
) -> MicrosandboxResult<()> {
    headroom.check(stat).map_err(|shortage| MicrosandboxError::ResourceExhausted {
        resource: "disk".into(),
        message: format!("{}: the file system of {} has {shortage}", what(), place.display()),
    })
}
