//! The machine a `host` image is taken from. Its paths are resolved beneath a root directory, so that tests can make
//! machines of their own.

use std::fs::{self, Metadata};
use std::path::{Component, Path, PathBuf};

use super::{read_bounded, relative};

/// Symlinks followed in one path before it counts as a loop (as the kernel does).
const MAX_LINKS: usize = 40;
/// Longest account file that is read.
const MAX_PASSWD: u64 = 16 << 20;
/// First id of ordinary accounts on the usual distributions, and the id of `nobody`.
const ORDINARY_IDS: std::ops::Range<u32> = 1000..65534;
/// Directories that are a system's own even where an account calls them home.
const SYSTEM_DIRS: [&str; 9] = [
    "/usr",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/libexec",
    "/usr/share",
    "/usr/local",
    "/usr/games",
    "/usr/include",
];

/// A root directory with a system in it; every path below is one inside it.
pub struct Machine {
    root: PathBuf,
    /// Homes of people and of root.
    homes: Vec<PathBuf>,
    /// The product home, and the directories that are configured to lie elsewhere.
    product: Vec<PathBuf>,
}

impl Machine {
    /// The one this process runs on.
    pub fn this(product: &[PathBuf]) -> Machine {
        Machine::at(Path::new("/"), product, std::env::var_os("HOME").map(PathBuf::from))
    }

    /// `product` and `home` are paths inside `root`.
    pub fn at(root: &Path, product: &[PathBuf], home: Option<PathBuf>) -> Machine {
        let mut machine = Machine { root: root.to_owned(), homes: vec!["/root".into()], product: Vec::new() };
        machine.product = product.iter().map(|path| machine.resolve_existing(path)).collect();
        let passwd = read_bounded(&machine.outside(Path::new("/etc/passwd")), MAX_PASSWD).unwrap_or_default();
        let listed = String::from_utf8_lossy(&passwd);
        let homes = listed.lines().filter_map(home_of).chain(home).filter(|home| home.is_absolute());
        for home in homes {
            for path in [machine.resolve_existing(&home), home] {
                if path != Path::new("/") && !SYSTEM_DIRS.contains(&&*path.to_string_lossy()) {
                    machine.homes.push(path);
                }
            }
        }
        machine.homes.sort();
        machine.homes.dedup();
        machine
    }

    pub fn homes(&self) -> &[PathBuf] {
        &self.homes
    }

    pub fn product(&self) -> &[PathBuf] {
        &self.product
    }

    /// What must not be seen even where it lies beneath something that is shown.
    pub fn private_dirs(&self) -> impl Iterator<Item = &Path> {
        let all = self.homes.iter().chain(&self.product).map(PathBuf::as_path);
        // By their real paths: a name that leads elsewhere through a link hides nothing.
        all.filter(|path| self.is_dir(path) && self.resolve(path).is_some_and(|real| real == **path))
    }

    /// Where `path` lies for this process.
    pub fn outside(&self, path: &Path) -> PathBuf {
        self.root.join(relative(path))
    }

    /// The reverse of [`Machine::outside`].
    pub fn outside_to_inside(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).map_or_else(|_| path.to_owned(), |rest| Path::new("/").join(rest))
    }

    /// Of the path itself, links not followed.
    pub fn metadata(&self, path: &Path) -> Option<Metadata> {
        fs::symlink_metadata(self.outside(path)).ok()
    }

    pub fn is_dir(&self, path: &Path) -> bool {
        self.metadata(path).is_some_and(|meta| meta.is_dir())
    }

    pub fn read_link(&self, path: &Path) -> Option<PathBuf> {
        fs::read_link(self.outside(path)).ok()
    }

    /// The path without symlinks; `None` if it does not exist.
    pub fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let real = self.walk(path, &mut |_| {})?;
        self.metadata(&real).map(|_| real)
    }

    /// As [`Machine::resolve`], and calls `visit` with every path that a link on the way named.
    pub fn resolve_visiting(&self, path: &Path, visit: &mut dyn FnMut(&Path)) -> Option<PathBuf> {
        self.walk(path, visit)
    }

    /// As far as it exists, the rest as given.
    fn resolve_existing(&self, path: &Path) -> PathBuf {
        self.walk(path, &mut |_| {}).unwrap_or_else(|| path.to_owned())
    }

    fn walk(&self, path: &Path, visit: &mut dyn FnMut(&Path)) -> Option<PathBuf> {
        let mut real = PathBuf::from("/");
        let mut rest = path.to_owned();
        let mut links = 0;
        loop {
            let mut components = rest.components();
            let Some(component) = components.next() else { return Some(real) };
            let after = components.as_path().to_owned();
            match component {
                Component::RootDir => real = PathBuf::from("/"),
                Component::ParentDir => {
                    real.pop();
                }
                Component::Normal(name) => {
                    let next = real.join(name);
                    if let Some(target) = self.read_link(&next) {
                        links += 1;
                        if links > MAX_LINKS {
                            return None;
                        }
                        let named = real.join(&target).join(&after);
                        visit(&named);
                        rest = target.join(&after);
                        continue;
                    }
                    real = next;
                }
                Component::CurDir | Component::Prefix(_) => {}
            }
            rest = after;
        }
    }
}

/// The home directory of a line of `/etc/passwd`, if the account is root's or a person's.
fn home_of(line: &str) -> Option<PathBuf> {
    let mut fields = line.split(':');
    let id: u32 = fields.nth(2)?.parse().ok()?;
    let home = fields.nth(2)?;
    (id == 0 || ORDINARY_IDS.contains(&id)).then(|| PathBuf::from(home))
}
