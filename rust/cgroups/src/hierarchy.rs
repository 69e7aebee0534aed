//! The mounted hierarchies of control groups, version 1, version 2 and both (`/proc/self/mountinfo`, `/proc/self/cgroup`).

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A mounted hierarchy and where in it this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub v2: bool,
    pub controllers: Vec<String>,
    pub mount: PathBuf,
    pub own: PathBuf,
}

/// The hierarchies that this process is in.
pub fn read() -> io::Result<Vec<Hierarchy>> {
    of("self")
}

/// Those that another process is in, by its number.
pub fn of(pid: impl Display) -> io::Result<Vec<Hierarchy>> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?, &groups))
}

fn parse(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let (Some(kind), _, options) = (right.next(), right.next(), right.next().unwrap_or("")) else { continue };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(mount)) = (left.next(), left.next()) else { continue };
        let v2 = kind == "cgroup2";
        if !v2 && kind != "cgroup" {
            continue;
        }
        let Some(path) = own_path(own, v2, options) else { continue };
        // The mount may show a part of the hierarchy only; what lies outside of it is out of reach.
        let Ok(beneath) = Path::new(path).strip_prefix(root) else { continue };
        let mount = PathBuf::from(mount.replace("\\040", " "));
        let own = mount.join(beneath);
        let controllers = if v2 { v2_controllers(&mount) } else { options.split(',').map(str::to_owned).collect() };
        if !found.iter().any(|h| h.v2 == v2 && h.controllers == controllers) {
            found.push(Hierarchy { v2, controllers, mount, own });
        }
    }
    found
}

fn v2_controllers(mount: &Path) -> Vec<String> {
    let text = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// The path of this process in the hierarchy with these mount options, from `/proc/self/cgroup`.
fn own_path<'a>(own: &'a str, v2: bool, options: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let same = if v2 {
            number == "0" && controllers.is_empty()
        } else {
            !controllers.is_empty() && controllers.split(',').all(|name| options.split(',').any(|o| o == name))
        };
        same.then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
30 29 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 /docker/x /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 30 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const HYBRID_OWN: &str = "4:memory:/docker/x/inner\n1:cpu,cpuacct:/a\n0::/b\n";

    #[test]
    fn hybrid_hosts_are_read_per_controller() {
        let found = parse(HYBRID_MOUNTS, HYBRID_OWN);
        let own: Vec<_> = found.iter().map(|h| (h.v2, h.own.to_str().unwrap())).collect();
        assert_eq!(
            own,
            [
                (false, "/sys/fs/cgroup/cpu/a"),
                (false, "/sys/fs/cgroup/memory/inner"),
                (true, "/sys/fs/cgroup/unified/b")
            ]
        );
    }

    #[test]
    fn a_group_outside_the_visible_part_is_left_alone() {
        assert!(parse(HYBRID_MOUNTS, "4:memory:/elsewhere\n").is_empty());
    }
}
