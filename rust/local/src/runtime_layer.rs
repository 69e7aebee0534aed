//! The cached layer beneath every sandbox: `/.msb/scripts` and mount points.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use microsandbox_contract::IdMap;
use microsandbox_core::error::MicrosandboxResult;
use microsandbox_home::layer_tree::publish;
use microsandbox_home::{Home, blocking};

/// Number of the contents below; raised whenever they change.
const LAYOUT: u32 = 1;
/// Directories of the runtime layer: the scripts directory, and the mount points that every root file system needs.
const DIRECTORIES: [(&str, u32); 7] = [
    (".msb", 0o755),
    (".msb/scripts", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("tmp", 0o1777),
    ("run", 0o755),
];

/// The bottom layer of every sandbox: `/.msb/scripts` and mount points. Made on first use, one `stat` afterwards.
pub async fn prepare(home: &Home) -> MicrosandboxResult<PathBuf> {
    let (parent, ids) = (home.cache_dir().join("runtime"), home.id_map()?);
    let target = parent.join(name(&ids));
    blocking(move || if target.is_dir() { Ok(target) } else { prepare_in(&parent, &ids) }).await
}

fn name(ids: &IdMap) -> String {
    format!("{}-{LAYOUT}-{}", env!("CARGO_PKG_VERSION"), inside_root(ids).0)
}

fn prepare_in(parent: &Path, ids: &IdMap) -> MicrosandboxResult<PathBuf> {
    publish(parent, OsStr::new(&name(ids)), ids, |tree| {
        DIRECTORIES.iter().try_for_each(|(path, mode)| tree.dir(Path::new(path), *mode))
    })
}

/// The host ids of the inside root.
pub(crate) fn inside_root(ids: &IdMap) -> (u32, u32) {
    match *ids {
        IdMap::Range { base, .. } => (base, base),
        IdMap::Subordinate { uid, gid, .. } | IdMap::Single { uid, gid } => (uid, gid),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use microsandbox_core::error::MicrosandboxError;

    use super::*;

    fn ids() -> IdMap {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid == 0 { IdMap::Range { base: 200_000, count: 65_536 } } else { IdMap::Single { uid, gid } }
    }

    #[test]
    fn runtime_layer_is_complete_and_owned_by_the_inside_root() {
        let cache = tempfile::tempdir().unwrap();
        let layer = prepare_in(&cache.path().join("runtime"), &ids()).unwrap();
        for (path, mode) in DIRECTORIES {
            let meta = fs::symlink_metadata(layer.join(path)).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.uid()), (mode, inside_root(&ids()).0), "{path}");
        }
        assert_eq!(fs::metadata(&layer).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(prepare_in(&cache.path().join("runtime"), &ids()).unwrap(), layer);
    }

    #[test]
    fn another_id_mapping_gets_a_layer_of_its_own() {
        let cache = tempfile::tempdir().unwrap();
        let one = prepare_in(cache.path(), &ids()).unwrap();
        let base = inside_root(&ids()).0;
        assert!(one.to_str().unwrap().ends_with(&format!("-{base}")));
    }

    // hazard: L1
    #[test]
    fn what_a_killed_builder_left_is_swept_and_not_used() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir_all(cache.path().join(".tmp-dead/sub")).unwrap();
        prepare_in(cache.path(), &ids()).unwrap();
        assert!(!cache.path().join(".tmp-dead").exists());
    }

    // hazard: L1
    #[test]
    fn a_failing_build_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let failed = publish(cache.path(), OsStr::new("x"), &ids(), |tree| {
            tree.dir(Path::new("a/b"), 0o755)?;
            Err(MicrosandboxError::Custom("stop".into()))
        });
        assert!(failed.is_err());
        let left: Vec<_> = fs::read_dir(cache.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [".lock"]);
    }

    // hazard: L2
    #[test]
    fn builders_at_the_same_time_agree() {
        let cache = tempfile::tempdir().unwrap();
        let layers: Vec<_> = std::thread::scope(|scope| {
            let run = || prepare_in(cache.path(), &ids()).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(layers.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 2);
    }
}
