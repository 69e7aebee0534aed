//! Space kept for cleaning up when the disk is full: ending a run and deleting a row must work without free space.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Enough for the log pages of many small transactions.
const BYTES: usize = 256 << 10;

fn path(database: &Path) -> PathBuf {
    database.with_file_name("reserve")
}

/// Creates the reserve if the disk allows it: without it only cleaning up on a full disk fails.
pub(super) fn keep(database: &Path) {
    let path = path(database);
    let Ok(mut file) = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path) else { return };
    if file.write_all(&[0xa5; BYTES]).is_err() {
        // Half a reserve would use the last free bytes and help no write.
        let _ = std::fs::remove_file(&path);
    }
}

/// Frees the reserve; false when there was none.
pub(super) fn give_up(database: &Path) -> bool {
    std::fs::remove_file(path(database)).is_ok()
}
