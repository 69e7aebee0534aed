//! Did the kernel kill something here for lack of memory? Only where the sandbox can see its own control group; the
//! host looks from outside as well.

use std::fs::File;
use std::io::Read;

use crate::files::root::Root;

/// Where the counter may be: the unified hierarchy, then the memory controller of the old one.
const FILES: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

/// Where a kernel counts all of its kills: only a machine of the sandbox's own may be asked.
const MACHINE_FILES: [&str; 1] = ["/proc/vmstat"];

/// Remembers the kill counter between looks.
#[derive(Default)]
pub struct OomWatch {
    last: Option<u64>,
    files: &'static [&'static str],
}

impl OomWatch {
    pub fn new(root: &Root, owns_machine: bool) -> OomWatch {
        let files: &[&str] = if owns_machine { &MACHINE_FILES } else { &FILES };
        OomWatch { last: counter(root, files), files }
    }

    /// True if the counter grew since the last look.
    pub fn killed_since(&mut self, root: &Root) -> bool {
        let now = counter(root, self.files);
        let grew = matches!((self.last, now), (Some(before), Some(now)) if now > before);
        self.last = now.or(self.last);
        grew
    }
}

fn counter(root: &Root, files: &[&str]) -> Option<u64> {
    files.iter().find_map(|path| {
        let mut text = String::new();
        File::from(root.open_regular(path).ok()?).take(16 << 10).read_to_string(&mut text).ok()?;
        parse(&text)
    })
}

fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn both_formats_are_read() {
        assert_eq!(parse("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\n"), None);
    }
}
