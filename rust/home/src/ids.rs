//! Which host ids a sandbox's ids become. Host id 0 is never mapped in.

use std::path::{Path, PathBuf};

use microsandbox_contract::IdMap;
use serde::{Deserialize, Serialize};

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

/// Ids in one sandbox: 0 to 65535.
pub use microsandbox_core::validate::ID_RANGE as RANGE;
/// Private ranges for homes of host root lie here: above what distributions hand out in `/etc/subuid` by default and
/// below the sign bit.
const FIRST_BASE: u32 = 0x3000_0000;
const SLOTS: u32 = 8192;

#[derive(Serialize, Deserialize)]
struct Stored {
    base: u32,
    count: u32,
}

/// The mapping for sandboxes of `home`. As host root it is a range private to the home, chosen once and kept in
/// `<home>/idmap.json`, because the files of images and sandboxes carry these ids. An ordinary user gets the ranges of
/// `/etc/subuid` and `/etc/subgid` if there are any and `newuidmap` is installed, else a single id.
pub fn resolve(home: &Path) -> MicrosandboxResult<IdMap> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    if uid == 0 {
        return private_range(home);
    }
    Ok(subordinate(uid, gid).unwrap_or(IdMap::Single { uid, gid }))
}

/// The host ids of root inside, where files can be given away.
pub fn inside_root(ids: &IdMap) -> Option<(u32, u32)> {
    match ids {
        IdMap::Range { base, .. } => Some((*base, *base)),
        IdMap::Subordinate { .. } | IdMap::Single { .. } => None,
    }
}

fn private_range(home: &Path) -> MicrosandboxResult<IdMap> {
    let path = home.join("idmap.json");
    if let Some(stored) = read(&path)? {
        return Ok(stored);
    }
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(home.as_os_str().as_encoded_bytes());
    let slot = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) % SLOTS;
    let stored = Stored { base: FIRST_BASE + slot * RANGE, count: RANGE };
    let text = serde_json::to_vec(&stored).map_err(|e| MicrosandboxError::json("id map", e))?;
    std::fs::create_dir_all(home).map_err(|e| MicrosandboxError::io("create", home, e))?;
    let mut file =
        tempfile::NamedTempFile::new_in(home).map_err(|e| MicrosandboxError::io("create a file in", home, e))?;
    std::io::Write::write_all(&mut file, &text).map_err(|e| MicrosandboxError::io("write", &path, e))?;
    match file.persist_noclobber(&path) {
        Ok(_) => Ok(IdMap::Range { base: stored.base, count: stored.count }),
        // Another process was first: its choice counts.
        Err(_) => read(&path)?.ok_or_else(|| MicrosandboxError::Runtime(format!("{} vanished", path.display()))),
    }
}

fn read(path: &Path) -> MicrosandboxResult<Option<IdMap>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(MicrosandboxError::io("read", path, e)),
    };
    let stored: Stored = serde_json::from_slice(&text).map_err(|e| MicrosandboxError::json(path.display(), e))?;
    if stored.base == 0 || stored.count == 0 || stored.base.checked_add(stored.count).is_none() {
        return Err(MicrosandboxError::InvalidConfig(format!(
            "{}: the range {}+{} is not usable",
            path.display(),
            stored.base,
            stored.count
        )));
    }
    Ok(Some(IdMap::Range { base: stored.base, count: stored.count }))
}

fn subordinate(uid: u32, gid: u32) -> Option<IdMap> {
    // Under no_new_privs a set-uid helper has no more rights than we have.
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return None;
    }
    if !["newuidmap", "newgidmap"].iter().all(|program| find_program(program).is_some()) {
        return None;
    }
    let user = user_name(uid)?;
    let (sub_uid, uids) = range(Path::new("/etc/subuid"), &user, uid)?;
    let (sub_gid, gids) = range(Path::new("/etc/subgid"), &user, uid)?;
    let count = uids.min(gids).min(RANGE - 1) + 1;
    Some(IdMap::Subordinate { uid, gid, sub_uid, sub_gid, count })
}

/// Where a set-uid helper lives; `PATH` is not asked, it belongs to the caller's environment.
pub fn find_program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The first usable line `name-or-uid:start:count`; one that begins at host id 0 is not.
fn range(file: &Path, user: &str, uid: u32) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        ((owner == user || owner.parse() == Ok(uid)) && start > 0 && count > 0).then_some((start, count))
    })
}
