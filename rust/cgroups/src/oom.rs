//! The kernel's count of processes that it killed for lack of memory: `oom_kill` in `memory.events` (version 2) or in
//! `memory.oom_control` (version 1).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// The open count of one run. Its control group may be gone; then the count is unknown.
#[derive(Debug)]
pub struct OomCounter(File);

impl OomCounter {
    /// The first of these groups that counts.
    pub fn open(groups: &[PathBuf]) -> Option<OomCounter> {
        let files = groups.iter().flat_map(|group| [group.join("memory.events"), group.join("memory.oom_control")]);
        files.filter_map(|path| File::open(path).ok()).map(OomCounter).find(|counter| counter.read().is_some())
    }

    pub fn read(&self) -> Option<u64> {
        let mut buffer = [0; 512];
        let length = self.0.read_at(&mut buffer, 0).ok()?;
        parse(std::str::from_utf8(&buffer[..length]).ok()?)
    }
}

/// The count in the text of either file.
pub fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        assert_eq!(parse("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn the_group_that_counts_is_found() {
        let home = tempfile::tempdir().unwrap();
        let (plain, memory) = (home.path().join("plain"), home.path().join("memory"));
        std::fs::create_dir(&plain).unwrap();
        std::fs::create_dir(&memory).unwrap();
        std::fs::write(memory.join("memory.oom_control"), "under_oom 0\noom_kill 3\n").unwrap();
        assert!(OomCounter::open(std::slice::from_ref(&plain)).is_none());
        assert_eq!(OomCounter::open(&[plain, memory]).unwrap().read(), Some(3));
    }
}
