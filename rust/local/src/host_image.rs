//! The `host` image: this machine's own system directories as a root file system.
//!
//! What is in it is an allow-list. `/usr` and its companions are bound read-only; of `/etc` only named files that every
//! user of this machine may read are copied, and accounts are made up. Homes, keys, shadow files, the machine-id and
//! the name of the host are never in it. The running interpreter's prefixes are bound as they are, with all their
//! content: a socket or a key in a virtual environment is visible inside the sandbox.
//!
//! | module | holds |
//! |---|---|
//! | `machine` | the machine it is taken from: paths resolved beneath a root, homes |
//! | `etc` | the allow-list of `/etc` and the made-up accounts |
//! | `prefix` | which interpreter prefixes may be shown, and the directory to which an interpreter resolves |

mod etc;
mod machine;
mod prefix;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use microsandbox_contract::{BindSpec, IdMap};
use sha2::{Digest, Sha256};

use self::machine::Machine;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::EnvVar;
use microsandbox_home::Home;
use microsandbox_home::layer_tree::{self, LayerTree};

/// Number of the rules in this module; raised whenever they change what a skeleton holds.
const LAYOUT: u32 = 1;
/// `PATH` of a root file system that names none.
const STANDARD_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// System directories, where they are directories; on merged-`/usr` machines all but the first are symlinks.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/libo32"];
/// Empty directories that programs expect, beyond those of the runtime layer.
const DIRECTORIES: [(&str, u32); 13] = [
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/media", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/srv", 0o755),
    ("/tmp", 0o1777),
    ("/var", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
    (EMPTY, 0o755),
];
/// Shown in place of a directory that lies beneath a bound one and must not be seen.
const EMPTY: &str = "/.msb/empty";
/// Never a place for mount points in the skeleton: other layers or fresh file systems are there.
const VOLATILE: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// What makes a `host` root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoot {
    /// A cached lower layer with the generated files and the mount points.
    pub skeleton: PathBuf,
    /// Outer ones first.
    pub binds: Vec<BindSpec>,
    /// `PATH`, with the prefixes' programs in front.
    pub env: Vec<EnvVar>,
}

/// The parts of a `host` image, the skeleton cached under `<home>/cache/host/`. `prefixes`: the running interpreter's
/// `sys.prefix` and `sys.base_prefix`.
pub async fn prepare(home: &Home, prefixes: &[PathBuf]) -> MicrosandboxResult<HostRoot> {
    let product = vec![home.config().home.clone(), home.cache_dir(), home.sandboxes_dir(), home.volumes_dir()];
    let (cache, ids, prefixes) = (home.cache_dir().join("host"), home.id_map()?, prefixes.to_vec());
    microsandbox_home::blocking(move || prepare_from(&Machine::this(&product), &cache, &ids, &prefixes)).await
}

fn prepare_from(machine: &Machine, cache: &Path, ids: &IdMap, prefixes: &[PathBuf]) -> MicrosandboxResult<HostRoot> {
    microsandbox_home::make_private_directory(cache)?;
    let mut plan = Plan::of(machine, ids, prefixes)?;
    let etc = etc::digest(machine, &cache.join("etc-index.json"));
    let name = plan.fingerprint(ids, &etc);
    let skeleton = layer_tree::publish(cache, OsStr::new(&name), ids, |tree| {
        plan.add_etc(machine);
        plan.build(machine, tree)
    })?;
    for bind in &mut plan.binds {
        // The stand-in for hidden directories is part of the skeleton, whose place is known only now.
        if bind.source == Path::new(EMPTY) {
            bind.source = skeleton.join(relative(EMPTY));
        }
    }
    Ok(HostRoot { skeleton, binds: plan.binds, env: plan.env })
}

/// Everything that will be visible, before a single file is made; `/etc` joins with [`Plan::add_etc`].
#[derive(Debug, Default)]
struct Plan {
    /// By absolute path inside.
    entries: BTreeMap<PathBuf, Entry>,
    binds: Vec<BindSpec>,
    env: Vec<EnvVar>,
}

/// One thing in the skeleton.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Dir {
        mode: u32,
    },
    /// Belongs to this inside id.
    Home {
        id: u32,
    },
    /// A mount point for a single file.
    MountFile,
    /// Content made up here.
    Text(String),
    /// A copy of the machine's file of the same path; the stamp identifies the version of that file.
    Copy {
        stamp: String,
    },
    Link {
        target: PathBuf,
    },
}

impl Plan {
    fn of(machine: &Machine, ids: &IdMap, prefixes: &[PathBuf]) -> MicrosandboxResult<Plan> {
        let mut plan = Plan::default();
        for (path, mode) in DIRECTORIES {
            plan.entries.insert(path.into(), Entry::Dir { mode });
        }
        plan.entries.insert("/var/run".into(), Entry::Link { target: "/run".into() });
        plan.system(machine);
        etc::accounts(ids, &mut plan.entries);
        let shown = prefix::collect(machine, &mut plan.binds, prefixes)?;
        // Programs of a prefix beneath /root must be able to reach it whatever user they run as.
        let beneath_root = plan.binds.iter().any(|bind| bind.target.starts_with("/root/"));
        plan.entries.insert("/root".into(), Entry::Dir { mode: if beneath_root { 0o711 } else { 0o700 } });
        plan.hide(machine);
        plan.mount_points(machine);
        plan.env = vec![EnvVar { key: "PATH".into(), value: search_path(&shown) }];
        plan.binds.sort_by_key(|bind| Path::new(&bind.target).components().count());
        Ok(plan)
    }

    /// `/usr` and its companions: directories are bound, links into what is bound stay links.
    fn system(&mut self, machine: &Machine) {
        for path in SYSTEM.map(Path::new) {
            let Some(real) = machine.resolve(path).filter(|real| machine.is_dir(real)) else { continue };
            match machine.read_link(path) {
                Some(target) if is_bound(&self.binds, &real) => {
                    self.entries.insert(path.into(), Entry::Link { target });
                }
                _ => self.binds.push(readonly(machine, &real, path)),
            }
        }
    }

    /// Covers homes and the product home where they lie beneath a bound directory.
    fn hide(&mut self, machine: &Machine) {
        let covers: Vec<BindSpec> = machine
            .private_dirs()
            .filter(|path| is_bound(&self.binds, path))
            .map(|path| BindSpec {
                source: EMPTY.into(),
                target: path.to_string_lossy().into_owned(),
                readonly: true,
                view: true,
                noexec: true,
                host_ids: false,
                home_ids: false,
                optional: true,
                shown_as: None,
                set_ids: false,
            })
            .collect();
        self.binds.extend(covers);
    }

    /// Makes the places where binds are attached, so that a boot has nothing to create in the upper directory.
    fn mount_points(&mut self, machine: &Machine) {
        for bind in &self.binds {
            let target = Path::new(&bind.target);
            let covered = self.binds.iter().any(|b| b.target != bind.target && target.starts_with(&b.target));
            if covered || VOLATILE.iter().any(|dir| target.starts_with(dir)) {
                continue;
            }
            let source = machine.outside_to_inside(&bind.source);
            let entry = if machine.is_dir(&source) { Entry::Dir { mode: 0o755 } } else { Entry::MountFile };
            self.entries.entry(target.into()).or_insert(entry);
        }
    }

    /// The costly part, needed only when the skeleton is built.
    fn add_etc(&mut self, machine: &Machine) {
        etc::collect(machine, &mut self.entries);
    }

    /// Names the skeleton: equal plans of equal sources for equal ids.
    fn fingerprint(&self, ids: &IdMap, etc: &str) -> String {
        let all = format!("{} {LAYOUT} {ids:?} {etc} {}", env!("CARGO_PKG_VERSION"), digest_of(&self.entries));
        hex::encode(&Sha256::digest(all)[..16])
    }

    fn build(&self, machine: &Machine, tree: &LayerTree) -> MicrosandboxResult<()> {
        for (path, entry) in &self.entries {
            let inside = relative(path);
            match entry {
                Entry::Dir { mode } => tree.dir(inside, *mode)?,
                Entry::Home { id } => tree.home(inside, *id)?,
                Entry::MountFile => tree.file(inside, b"", 0o644)?,
                Entry::Text(text) => tree.file(inside, text.as_bytes(), 0o644)?,
                Entry::Link { target } => tree.symlink(inside, target)?,
                Entry::Copy { .. } => {
                    if let Some(content) = etc::public_content(machine, path) {
                        tree.file(inside, &content, 0o644)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn digest_of(entries: &BTreeMap<PathBuf, Entry>) -> String {
    let mut hash = Sha256::new();
    for (path, entry) in entries {
        hash.update(path.as_os_str().as_bytes());
        hash.update(format!("\0{entry:?}\0"));
    }
    hex::encode(hash.finalize())
}

/// `/usr/bin` → `usr/bin`.
fn relative(path: &(impl AsRef<Path> + ?Sized)) -> &Path {
    let path = path.as_ref();
    path.strip_prefix("/").unwrap_or(path)
}

fn is_bound(binds: &[BindSpec], path: &Path) -> bool {
    binds.iter().any(|bind| path.starts_with(&bind.target))
}

/// Shows `real`, a path of the machine without symlinks in it, at `target`.
fn readonly(machine: &Machine, real: &Path, target: &Path) -> BindSpec {
    BindSpec {
        source: machine.outside(real),
        target: target.to_string_lossy().into_owned(),
        readonly: true,
        view: true,
        noexec: false,
        host_ids: false,
        home_ids: false,
        optional: true,
        shown_as: None,
        set_ids: false,
    }
}

/// The prefixes' program directories, then the standard ones.
fn search_path(prefixes: &[PathBuf]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let own = prefixes.iter().map(|prefix| prefix.join("bin").to_string_lossy().into_owned());
    let own = own.filter(|dir| !STANDARD_PATH.contains(&dir.as_str()));
    for dir in own.chain(STANDARD_PATH.map(str::to_owned)) {
        if !parts.contains(&dir) {
            parts.push(dir);
        }
    }
    parts.join(":")
}

/// Reads a file of at most `limit` bytes; `None` when it is larger, not a file, or not there.
fn read_bounded(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let meta = fs::symlink_metadata(path).ok()?;
    if !meta.is_file() || meta.len() > limit {
        return None;
    }
    fs::read(path).ok().filter(|content| content.len() as u64 <= limit)
}

/// Refuses a prefix, in words.
fn refused(path: &Path, why: &str) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(format!(
        "the host image cannot show the interpreter prefix {}: {why}; use an interpreter installed elsewhere, or pass \
         the prefixes yourself",
        path.display()
    ))
}
