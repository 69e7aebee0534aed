//! `/etc` of a `host` image: copies of named public files, and accounts that say nothing of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use microsandbox_contract::IdMap;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::{Entry, read_bounded};

/// Single files and whole trees beneath `/etc`. A name ending in `*` stands for every name with that start.
const ALLOWED: [&str; 50] = [
    "alpine-release",
    "alternatives",
    "arch-release",
    "bash.bashrc",
    "bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "ethertypes",
    "fedora-release",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "java-*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ld-musl-*",
    "locale.alias",
    "locale.conf",
    "locale.gen",
    "localtime",
    "lsb-release",
    "magic",
    "magic.mime",
    "mailcap",
    "manpath.config",
    "mime.types",
    "os-release",
    "pki/ca-trust",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "profile",
    "protocols",
    "python3*",
    "redhat-release",
    "rpc",
    "services",
    "shells",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "system-release",
    "terminfo",
    "timezone",
    "xattr.conf",
    "xml",
];
/// The directories that hold the entries above: something new in them may be one of those.
const PARENTS: [&str; 4] = ["/etc", "/etc/pki", "/etc/pki/tls", "/etc/ssl"];
/// Never, wherever the list above would lead to them.
const FORBIDDEN: [&str; 14] = [
    "private",
    "shadow",
    "shadow-",
    "gshadow",
    "gshadow-",
    "passwd",
    "passwd-",
    "group",
    "group-",
    "machine-id",
    "ssh",
    "sudoers",
    "sudoers.d",
    "hostname",
];
/// Links are kept where they lead into these; other targets could reveal paths that are not shown.
const LINK_TARGETS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc"];
const MAX_FILE: u64 = 8 << 20;
const MAX_ENTRIES: usize = 20_000;
const MAX_DEPTH: usize = 8;
/// Largest index of the last scan of `/etc` that is read.
const MAX_INDEX: u64 = 16 << 20;

const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
gshadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
";

/// Adds what the machine has of the allow-list. Gives every path whose change could change the outcome (a link changes
/// with its directory), with a stamp of what it is now.
pub fn collect(machine: &Machine, entries: &mut BTreeMap<PathBuf, Entry>) -> Vec<(PathBuf, String)> {
    let mut stamps = Vec::new();
    for directory in PARENTS.map(Path::new) {
        stamps.push((directory.into(), stamp(machine, directory)));
    }
    for allowed in ALLOWED {
        match allowed.strip_suffix('*') {
            Some(start) => {
                for name in names(machine, Path::new("/etc")).into_iter().filter(|name| name.starts_with(start)) {
                    add(machine, entries, &mut stamps, &Path::new("/etc").join(name), 0);
                }
            }
            None => {
                let path = Path::new("/etc").join(allowed);
                if parents_public(machine, &path) {
                    add(machine, entries, &mut stamps, &path, 0);
                }
            }
        }
    }
    entries.insert("/etc/mtab".into(), Entry::Link { target: "/proc/self/mounts".into() });
    entries.insert("/etc/nsswitch.conf".into(), Entry::Text(NSSWITCH.into()));
    stamps
}

/// What [`collect`] would give, as a digest. Reading all of `/etc` costs milliseconds, so the last outcome is kept in
/// `index`, with the stamps it rests on.
pub fn digest(machine: &Machine, index: &Path) -> String {
    let stored = read_bounded(index, MAX_INDEX).and_then(|text| serde_json::from_slice::<Index>(&text).ok());
    if let Some(stored) = stored
        && stored.layout == super::LAYOUT
        && stored.stamps.iter().all(|(path, known)| stamp(machine, path) == *known)
    {
        return stored.digest;
    }
    let mut entries = BTreeMap::new();
    let stamps = collect(machine, &mut entries);
    let fresh = Index { layout: super::LAYOUT, digest: super::digest_of(&entries), stamps };
    // Without the index the next call reads everything again, that is all.
    let _ = write_index(index, &fresh);
    fresh.digest
}

#[derive(Serialize, Deserialize)]
struct Index {
    layout: u32,
    digest: String,
    stamps: Vec<(PathBuf, String)>,
}

fn write_index(path: &Path, index: &Index) -> std::io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    serde_json::to_writer(&mut file, index)?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Tells versions of a file apart, without reading it; the change time cannot be set back.
fn stamp(machine: &Machine, path: &Path) -> String {
    machine.metadata(path).map_or_else(|| "absent".into(), |meta| stamp_of(&meta))
}

fn stamp_of(meta: &fs::Metadata) -> String {
    format!("{} {:o} {} {}.{}", meta.ino(), meta.mode(), meta.len(), meta.ctime(), meta.ctime_nsec())
}

/// Made-up accounts: `root`, `daemon`, `nobody`, and the ordinary `user` where that id exists.
pub fn accounts(ids: &IdMap, entries: &mut BTreeMap<PathBuf, Entry>) {
    let mut passwd = String::from("root:x:0:0:root:/root:/bin/sh\n");
    let mut group = String::from("root:x:0:\n");
    let count = match *ids {
        IdMap::Range { count, .. } => count,
        IdMap::Subordinate { count, .. } => count.saturating_add(1),
        IdMap::Single { .. } => 1,
    };
    if count > 1000 {
        // Only host root can make a home that belongs to another id.
        let home = if matches!(ids, IdMap::Range { .. }) { "/home/user" } else { "/tmp" };
        passwd.push_str("daemon:x:1:1:daemon:/:/usr/sbin/nologin\n");
        passwd.push_str(&format!("user:x:1000:1000:user:{home}:/bin/sh\n"));
        group.push_str("daemon:x:1:\ntty:x:5:\nuser:x:1000:\n");
        if home == "/home/user" {
            entries.insert(home.into(), Entry::Home { id: 1000 });
        }
    }
    passwd.push_str("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    group.push_str("nogroup:x:65534:\n");
    entries.insert("/etc/passwd".into(), Entry::Text(passwd));
    entries.insert("/etc/group".into(), Entry::Text(group));
}

/// The content of a file that every user of the machine may read; `None` for others and for private keys.
pub fn public_content(machine: &Machine, path: &Path) -> Option<Vec<u8>> {
    let meta = machine.metadata(path)?;
    if meta.mode() & 0o004 == 0 {
        return None;
    }
    read_bounded(&machine.outside(path), MAX_FILE).filter(|content| !holds_private_key(content))
}

fn holds_private_key(content: &[u8]) -> bool {
    const MARK: &[u8] = b"PRIVATE KEY-----";
    content.windows(MARK.len()).any(|window| window == MARK)
}

fn add(
    machine: &Machine,
    entries: &mut BTreeMap<PathBuf, Entry>,
    stamps: &mut Vec<(PathBuf, String)>,
    path: &Path,
    depth: usize,
) {
    if entries.len() >= MAX_ENTRIES || depth > MAX_DEPTH || is_forbidden(path) || path.to_str().is_none() {
        return;
    }
    // Links first: they are the most, and reading one is the only call they need.
    if let Some(target) = machine.read_link(path) {
        if leads_into_what_is_shown(path, &target) {
            entries.insert(path.into(), Entry::Link { target });
        }
        return;
    }
    let Some(meta) = machine.metadata(path) else { return };
    let stamp = stamp_of(&meta);
    stamps.push((path.into(), stamp.clone()));
    if meta.is_dir() && meta.mode() & 0o005 == 0o005 {
        entries.insert(path.into(), Entry::Dir { mode: 0o755 });
        for name in names(machine, path) {
            add(machine, entries, stamps, &path.join(name), depth + 1);
        }
    } else if meta.is_file() && meta.mode() & 0o004 != 0 && meta.len() <= MAX_FILE {
        entries.insert(path.into(), Entry::Copy { stamp });
    }
}

fn names(machine: &Machine, path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(machine.outside(path)) else { return Vec::new() };
    entries.flatten().take(MAX_ENTRIES).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_forbidden(path: &Path) -> bool {
    path.components().skip(2).any(|part| {
        let name = part.as_os_str().to_string_lossy();
        FORBIDDEN.contains(&&*name) || name.ends_with(".key") || name.ends_with(".keytab") || name.starts_with("ssh_")
    })
}

/// Directories between `/etc` and the entry are real directories that every user may enter.
fn parents_public(machine: &Machine, path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .take_while(|dir| *dir != Path::new("/etc"))
        .all(|dir| machine.metadata(dir).is_some_and(|meta| meta.is_dir() && meta.mode() & 0o001 != 0))
}

fn leads_into_what_is_shown(path: &Path, target: &Path) -> bool {
    let mut place = path.parent().unwrap_or(Path::new("/")).to_owned();
    for part in target.components() {
        match part {
            Component::RootDir => place = "/".into(),
            Component::ParentDir => {
                place.pop();
            }
            Component::Normal(name) => place.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let shown = LINK_TARGETS.iter().any(|dir| place.starts_with(dir));
    shown && (!place.starts_with("/etc") || !is_forbidden(&place))
}
