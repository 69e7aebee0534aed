//! Removing the groups of a run whose runtime was killed.

use std::path::Path;

use rustix::io::Errno;

/// Where control groups are mounted; a path that a damaged file names elsewhere is left alone.
const MOUNT: &str = "/sys/fs/cgroup";

/// Tries to remove the group once: `false` while processes in it are still exiting.
pub fn try_remove(group: &Path) -> std::io::Result<bool> {
    let is_plain = group.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !group.starts_with(MOUNT) || !is_plain {
        return Ok(true);
    }
    match rustix::fs::rmdir(group) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_control_groups_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let around = Path::new(MOUNT).join("../../..").join(home.path().strip_prefix("/").unwrap());
        for path in [home.path(), around.as_path()] {
            assert!(try_remove(path).unwrap());
            assert!(home.path().is_dir(), "{path:?} was removed");
        }
        assert!(try_remove(Path::new("/sys/fs/cgroup/msb-test-absent")).unwrap());
    }
}
