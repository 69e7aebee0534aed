//! Which host ids a sandbox's ids become. Host id 0 is never mapped in.
//!
//! A home of host root has a range that its files carry. The processes of each run have another one, which the runtime takes
//! for as long as the run lasts ([`for_runs`] says where).

use std::ops::Range;
use std::path::{Path, PathBuf};

use microsandbox_contract::{HostIds, IdMap};
use serde::{Deserialize, Serialize};

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::private;

/// Ids in one sandbox: 0 to 65535.
pub use microsandbox_core::validate::ID_RANGE as RANGE;
/// Ranges for files of homes of host root lie here: above what distributions hand out in `/etc/subuid` by default and
/// below the sign bit.
const FIRST_BASE: u32 = 0x3000_0000;
const SLOTS: u32 = 8192;
/// Ranges for runs lie here: above what SSSD and FreeIPA give to users by default (up to 2,000,200,000) and systemd to containers
/// (up to 0x6fff_ffff), and below what systemd gives to files of foreign images (0x7ffe_0000, systemd.io/UIDS-GIDS).
const RUNS: Range<u32> = 0x7740_0000..0x7ffe_0000;
/// Files whose lines name ids that belong to others: the number of the field with the first one, and of the field with their count.
const NAMED_IDS: [(&str, usize, Option<usize>); 4] =
    [("/etc/passwd", 2, None), ("/etc/group", 2, None), ("/etc/subuid", 1, Some(2)), ("/etc/subgid", 1, Some(2))];

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    base: u32,
    count: u32,
}

impl Stored {
    fn map(&self) -> IdMap {
        IdMap::Range { base: self.base, count: self.count }
    }

    fn is_mapped(&self, mapped: &[Range<u32>]) -> bool {
        mapped.iter().any(|ids| ids.start <= self.base && self.base + self.count <= ids.end)
    }
}

/// The mapping for sandboxes of `home`. As root it is a range private to the home, chosen once and kept in
/// `<home>/idmap.json`, because the files of images and sandboxes carry these ids. In a user namespace that maps only some ids (a
/// rootless container, a CI runner) the range is taken from those, but for id 0. An ordinary user gets the ranges of
/// `/etc/subuid` and `/etc/subgid` if there are any and `newuidmap` is installed, else a single id.
pub fn resolve(home: &Path) -> MicrosandboxResult<IdMap> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    if uid == 0 {
        return private_range(home);
    }
    Ok(subordinate(uid, gid).unwrap_or(IdMap::Single { uid, gid }))
}

/// Ids of which a run of a home with this mapping may have a range of its own: whole ranges that nothing on this machine names
/// and that this process can map. None for anybody but host root.
pub fn for_runs(ids: &IdMap) -> MicrosandboxResult<Vec<HostIds>> {
    match ids {
        IdMap::Range { count: RANGE, .. } if !ids.is_shared() => Ok(free_within(&RUNS, &mapped_ids()?, &named_ids())),
        _ => Ok(Vec::new()),
    }
}

/// The whole ranges in `place` that are mapped and not named, neighbours as one.
fn free_within(place: &Range<u32>, mapped: &[Range<u32>], named: &[Range<u32>]) -> Vec<HostIds> {
    let mut free: Vec<HostIds> = Vec::new();
    for first in place.clone().step_by(RANGE as usize) {
        let is_free = (Stored { base: first, count: RANGE }).is_mapped(mapped) && !is_named(first, named);
        match free.last_mut() {
            _ if !is_free => {}
            Some(last) if last.first + last.count == first => last.count += RANGE,
            _ => free.push(HostIds { first, count: RANGE }),
        }
    }
    free
}

fn is_named(first: u32, named: &[Range<u32>]) -> bool {
    named.iter().any(|ids| ids.start < first + RANGE && first < ids.end)
}

/// Ids of the users, groups and subordinate ranges of this machine that lie where ours do. A directory service is not asked: it
/// may have to be waited for, and it cannot be asked for a range.
fn named_ids() -> Vec<Range<u32>> {
    let of_file = |(path, first, count): (&str, usize, Option<usize>)| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = |line: &str| {
            let fields: Vec<&str> = line.trim().split(':').collect();
            let start: u32 = fields.get(first)?.parse().ok()?;
            let count = count.map_or(Some(1), |count| fields.get(count)?.parse().ok())?;
            Some(start..start.saturating_add(count))
        };
        text.lines().filter_map(line).filter(|ids| ids.end > FIRST_BASE).collect::<Vec<_>>()
    };
    NAMED_IDS.into_iter().flat_map(of_file).collect()
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
    let mapped = mapped_ids()?;
    if let Some(stored) = read(&path)? {
        if stored.base < SYSTEM_IDS && whole(&mapped) {
            return Err(MicrosandboxError::InvalidConfig(format!(
                "{}: the range from {} holds ids of users of this machine, which a sandbox must not have; move the home away, or \
                 use another one (MSB_HOME)",
                path.display(),
                stored.base
            )));
        }
        if !stored.is_mapped(&mapped) {
            return Err(MicrosandboxError::InvalidConfig(format!(
                "{}: its files belong to the ids {} to {}, and the user namespace of this process maps {}: use another home \
                 here (MSB_HOME), or map these ids",
                path.display(),
                stored.base,
                stored.base + stored.count - 1,
                in_words(&mapped)
            )));
        }
        return Ok(stored.map());
    }
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(home.as_os_str().as_encoded_bytes());
    let slot = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) % SLOTS;
    let named = named_ids();
    let mut preferred = (0..SLOTS).map(|step| FIRST_BASE + (slot + step) % SLOTS * RANGE);
    let preferred = preferred.find(|first| !is_named(*first, &named)).unwrap_or(FIRST_BASE + slot * RANGE);
    let stored = choose(&mapped, preferred)?;
    let text = serde_json::to_vec(&stored).map_err(|e| MicrosandboxError::json("id map", e))?;
    crate::make_private_directory(home)?;
    let mut file =
        tempfile::NamedTempFile::new_in(home).map_err(|e| MicrosandboxError::io("create a file in", home, e))?;
    std::io::Write::write_all(&mut file, &text).map_err(|e| MicrosandboxError::io("write", &path, e))?;
    match file.persist_noclobber(&path) {
        Ok(_) => Ok(stored.map()),
        // Another process was first: its choice counts.
        Err(_) => read(&path)?
            .map(|theirs| theirs.map())
            .ok_or_else(|| MicrosandboxError::Runtime(format!("{} vanished", path.display()))),
    }
}

/// The preferred range if all of it is mapped, else the end of the longest one that is.
fn choose(mapped: &[Range<u32>], preferred: u32) -> MicrosandboxResult<Stored> {
    let preferred = Stored { base: preferred, count: RANGE };
    if preferred.is_mapped(mapped) {
        return Ok(preferred);
    }
    let usable = mapped.iter().map(|ids| ids.start.max(1)..ids.end);
    match usable.max_by_key(|ids| ids.len()).filter(|ids| !ids.is_empty()) {
        Some(ids) => {
            let count = RANGE.min(ids.end - ids.start);
            Ok(Stored { base: ids.end - count, count })
        }
        None => Err(MicrosandboxError::InvalidConfig(format!(
            "the user namespace of this process maps {} and no other id: a sandbox needs ids besides 0; map subordinate ids \
             (newuidmap, `--userns` of a container engine), or run as the ordinary user",
            in_words(mapped)
        ))),
    }
}

/// Ids that exist as users and as groups in the user namespace of this process (user_namespaces(7)).
fn mapped_ids() -> MicrosandboxResult<Vec<Range<u32>>> {
    let read = |file: &str| {
        let path = Path::new("/proc/self").join(file);
        let text = std::fs::read_to_string(&path).map_err(|e| MicrosandboxError::io("read", &path, e))?;
        Ok::<_, MicrosandboxError>(ranges_of(&text))
    };
    Ok(common(&read("uid_map")?, &read("gid_map")?))
}

/// Ids below are those of users and daemons of the machine.
const SYSTEM_IDS: u32 = 65_536;

/// Whether there are ids enough that no sandbox needs one of a user.
fn whole(mapped: &[Range<u32>]) -> bool {
    Stored { base: FIRST_BASE, count: RANGE }.is_mapped(mapped)
}

fn ranges_of(map: &str) -> Vec<Range<u32>> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u32>().ok());
        let (start, _outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(start..start.saturating_add(count))
    };
    let mut ranges: Vec<Range<u32>> = map.lines().filter_map(line).collect();
    ranges.sort_by_key(|ids| ids.start);
    // Neighbours are one range: a container engine may map each of them by a line of its own.
    ranges.dedup_by(|next, before| {
        let is_next = before.end == next.start;
        before.end = if is_next { next.end } else { before.end };
        is_next
    });
    ranges
}

fn common(users: &[Range<u32>], groups: &[Range<u32>]) -> Vec<Range<u32>> {
    let both = users
        .iter()
        .flat_map(|users| groups.iter().map(move |groups| users.start.max(groups.start)..users.end.min(groups.end)));
    both.filter(|ids| !ids.is_empty()).collect()
}

fn in_words(mapped: &[Range<u32>]) -> String {
    let words: Vec<String> = mapped.iter().map(|ids| format!("{} to {}", ids.start, ids.end - 1)).collect();
    format!("the ids {}", words.join(", "))
}

fn read(path: &Path) -> MicrosandboxResult<Option<Stored>> {
    private::check_owner(path, "id map", "move it away together with the home")?;
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
    Ok(Some(stored))
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

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "         0          0 4294967295\n";

    #[test]
    fn a_machines_root_gets_the_range_of_its_home() {
        let ids = common(&ranges_of(WHOLE), &ranges_of(WHOLE));
        let chosen = choose(&ids, FIRST_BASE).unwrap();
        assert_eq!((chosen.base, chosen.count), (FIRST_BASE, RANGE));
    }

    #[test]
    fn a_rootless_container_gets_the_ids_that_are_mapped() {
        let users = ranges_of("0 1000 1\n1 100000 65536\n");
        let groups = ranges_of("0 1000 1\n1 100000 5000\n");
        let chosen = choose(&common(&users, &users), FIRST_BASE).unwrap();
        assert_eq!((chosen.base, chosen.count), (1, 65_536));
        let chosen = choose(&common(&users, &groups), FIRST_BASE).unwrap();
        assert_eq!((chosen.base, chosen.count), (1, 5_000));
        let lines = ranges_of("0 1 100\n200 300 50\n100 101 50\n150 500 50\n");
        assert_eq!(lines.first(), Some(&(0..250)));
        assert_eq!(lines.len(), 1);
        let wide = ranges_of("0 100000 200000\n");
        let chosen = choose(&common(&wide, &wide), FIRST_BASE).unwrap();
        assert_eq!((chosen.base, chosen.count), (200_000 - RANGE, RANGE));
    }

    #[test]
    fn ranges_for_runs_avoid_what_is_named_or_not_mapped() {
        let whole = ranges_of(WHOLE);
        let place = 10 * RANGE..14 * RANGE;
        let all = [HostIds { first: 10 * RANGE, count: 4 * RANGE }];
        assert_eq!(free_within(&place, &whole, &[]), all);
        // A user, and a subordinate range that ends at the first id of another slot.
        let named = [12 * RANGE + 7..12 * RANGE + 8, 9 * RANGE..10 * RANGE + 1];
        let left = [HostIds { first: 11 * RANGE, count: RANGE }, HostIds { first: 13 * RANGE, count: RANGE }];
        assert_eq!(free_within(&place, &whole, &named), left);
        let mapped = 0..11 * RANGE;
        let left = [HostIds { first: 10 * RANGE, count: RANGE }];
        assert_eq!(free_within(&place, std::slice::from_ref(&mapped), &[]), left);
        const { assert!(RUNS.start.is_multiple_of(RANGE) && RUNS.end.is_multiple_of(RANGE)) };
        const { assert!(FIRST_BASE + SLOTS * RANGE <= RUNS.start) };
    }

    #[test]
    fn a_namespace_that_maps_one_id_is_refused_by_name() {
        let one = ranges_of("0 1000 1\n");
        let error = choose(&common(&one, &one), FIRST_BASE).unwrap_err().to_string();
        assert!(error.contains("maps the ids 0 to 0") && error.contains("newuidmap"), "{error}");
    }
}
