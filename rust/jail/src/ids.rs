//! User and group id mappings. Host id 0 is never mapped in.

use std::path::Path;
use std::process::{Command, Stdio};

use microsandbox_contract::IdMap;

/// Where `newuidmap` and `newgidmap` may lie; searched in this order, never through `PATH`.
const ID_TOOL_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];

/// The hint that belongs to a failed mapping.
pub const MAP_HINT: &str = "as root: check that the process may write id maps (CAP_SETUID, CAP_SETGID); as a user: check /etc/subuid, \
     /etc/subgid and that newuidmap and newgidmap are setuid, or use a single-id mapping";

/// One line of an id map: inside, outside, count.
pub type Line = (u32, u32, u32);

/// What one mapping means for uids and gids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    pub uid: Vec<Line>,
    pub gid: Vec<Line>,
}

/// Turns a mapping into lines, or says why it is refused.
pub fn lines(ids: &IdMap) -> Result<Lines, String> {
    let lines = match *ids {
        IdMap::Range { base, count } => Lines { uid: vec![(0, base, count)], gid: vec![(0, base, count)] },
        IdMap::Subordinate { uid, gid, sub_uid, sub_gid, count } => {
            Lines { uid: vec![(0, uid, 1), (1, sub_uid, count)], gid: vec![(0, gid, 1), (1, sub_gid, count)] }
        }
        IdMap::Single { uid, gid } => Lines { uid: vec![(0, uid, 1)], gid: vec![(0, gid, 1)] },
    };
    for (what, map) in [("uid", &lines.uid), ("gid", &lines.gid)] {
        for &(_, outside, count) in map {
            if count == 0 {
                return Err(format!("an empty {what} range"));
            }
            if outside == 0 {
                return Err(format!("host {what} 0 would be mapped in"));
            }
            // The last id of all is the "no change" value of chown and setuid.
            if outside.checked_add(count).is_none() {
                return Err(format!("{what} range {outside}+{count} ends past the largest id"));
            }
        }
    }
    Ok(lines)
}

/// The host ids of the inside root.
pub fn root_ids(ids: &IdMap) -> (u32, u32) {
    match *ids {
        IdMap::Range { base, .. } => (base, base),
        IdMap::Subordinate { uid, gid, .. } | IdMap::Single { uid, gid } => (uid, gid),
    }
}

/// How many ids exist inside.
pub fn count(ids: &IdMap) -> u32 {
    match *ids {
        IdMap::Range { count, .. } => count,
        IdMap::Subordinate { count, .. } => count.saturating_add(1),
        IdMap::Single { .. } => 1,
    }
}

/// Whether `setgroups` works inside.
pub fn allows_setgroups(ids: &IdMap) -> bool {
    !matches!(ids, IdMap::Single { .. })
}

/// Writes the maps of process `pid`, which waits in its new user namespace.
pub fn write_maps(pid: i32, ids: &IdMap) -> Result<(), String> {
    let lines = lines(ids)?;
    match ids {
        IdMap::Range { .. } => write_lines(pid, &lines),
        IdMap::Single { .. } => {
            write_proc(pid, "setgroups", "deny")?;
            write_map(pid, "uid_map", &lines.uid)?;
            write_map(pid, "gid_map", &lines.gid)
        }
        IdMap::Subordinate { .. } => {
            run_id_tool("newuidmap", pid, &lines.uid)?;
            run_id_tool("newgidmap", pid, &lines.gid)
        }
    }
}

/// With the privilege of host root, which may map anything.
pub fn write_lines(pid: i32, lines: &Lines) -> Result<(), String> {
    write_map(pid, "uid_map", &lines.uid)?;
    write_map(pid, "gid_map", &lines.gid)
}

/// Finds `newuidmap` or `newgidmap`.
pub fn id_tool(name: &str) -> Option<std::path::PathBuf> {
    ID_TOOL_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

fn write_map(pid: i32, file: &str, map: &[Line]) -> Result<(), String> {
    let text: String = map.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect();
    write_proc(pid, file, &text)
}

fn write_proc(pid: i32, file: &str, text: &str) -> Result<(), String> {
    std::fs::write(format!("/proc/{pid}/{file}"), text).map_err(|error| format!("write {file}: {error}"))
}

fn run_id_tool(name: &str, pid: i32, map: &[Line]) -> Result<(), String> {
    let path = id_tool(name).ok_or_else(|| format!("{name} is not installed"))?;
    #[allow(
        clippy::disallowed_methods,
        reason = "setuid helpers of the system, by absolute path, without environment or input"
    )]
    let mut command = Command::new(&path);
    command.arg(pid.to_string());
    for (inside, outside, count) in map {
        command.args([inside.to_string(), outside.to_string(), count.to_string()]);
    }
    let output = command
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("execute {}: {error}", path.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect();
    Err(format!("{name} refused the mapping: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_root_is_never_mapped() {
        for ids in [
            IdMap::Range { base: 0, count: 10 },
            IdMap::Single { uid: 0, gid: 5 },
            IdMap::Single { uid: 5, gid: 0 },
            IdMap::Subordinate { uid: 1000, gid: 1000, sub_uid: 0, sub_gid: 1, count: 1 },
            IdMap::Subordinate { uid: 1000, gid: 1000, sub_uid: 1, sub_gid: 0, count: 1 },
        ] {
            assert!(lines(&ids).is_err(), "{ids:?}");
        }
    }

    #[test]
    fn ranges_stay_below_the_last_id() {
        assert!(lines(&IdMap::Range { base: u32::MAX - 1, count: 2 }).is_err());
        assert!(lines(&IdMap::Range { base: 5, count: 0 }).is_err());
        assert!(lines(&IdMap::Range { base: 100_000, count: 65_536 }).is_ok());
    }
}
