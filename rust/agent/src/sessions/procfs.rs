//! Reading `/proc` through one descriptor, checked once to be a real procfs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// Largest file read from procfs.
const MAX_READ: usize = 64 << 10;

/// The process file system, if this sandbox has one.
pub struct Procfs {
    dir: Option<OwnedFd>,
}

/// The fields of `/proc/<pid>/stat` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcStat {
    pub state: u8,
    pub ppid: i32,
    /// Clock ticks.
    pub utime: u64,
    pub stime: u64,
    pub cutime: u64,
    pub cstime: u64,
    pub start_time: u64,
    /// Resident pages.
    pub rss: u64,
}

impl Procfs {
    pub fn open() -> Procfs {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open("/proc", flags, Mode::empty()).ok();
        let genuine = |fd: &OwnedFd| rustix::fs::fstatfs(fd).is_ok_and(|fs| fs.f_type as u64 == PROC_SUPER_MAGIC);
        Procfs { dir: dir.filter(genuine) }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.dir.as_ref().map(|fd| fd.as_fd())
    }

    /// A file relative to `/proc`.
    pub fn read(&self, path: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(self.fd()?, path, flags, Mode::empty()).ok()?;
        let mut text = Vec::with_capacity(2048);
        loop {
            let start = text.len();
            text.resize(start + 2048, 0);
            let got = rustix::io::read(&file, &mut text[start..]).ok()?;
            text.truncate(start + got);
            if got == 0 || text.len() >= MAX_READ {
                break;
            }
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// Every process id visible here.
    pub fn pids(&self) -> Vec<i32> {
        let Some(dir) = self.fd().and_then(|fd| Dir::read_from(fd).ok()) else { return Vec::new() };
        dir.flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect()
    }

    pub fn stat(&self, pid: i32) -> Option<ProcStat> {
        parse_stat(&self.read(&format!("{pid}/stat"))?)
    }

    /// The soft limit of file locks: our tag.
    pub fn lock_limit(&self, pid: i32) -> Option<u64> {
        let text = self.read(&format!("{pid}/limits"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Direct children of this process, where the kernel lists them.
    pub fn own_children(&self) -> Option<Vec<i32>> {
        let text = self.read("thread-self/children").or_else(|| {
            let own = rustix::process::getpid().as_raw_nonzero();
            self.read(&format!("{own}/task/{own}/children"))
        })?;
        Some(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
    }
}

/// The command name may hold anything, so fields are counted behind the last parenthesis.
fn parse_stat(text: &str) -> Option<ProcStat> {
    let rest = &text[text.rfind(')')? + 1..];
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(ProcStat {
        state: *fields.first()?.as_bytes().first()?,
        ppid: fields.get(1)?.parse().ok()?,
        utime: number(11)?,
        stime: number(12)?,
        cutime: number(13)?,
        cstime: number(14)?,
        start_time: number(19)?,
        rss: number(21)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_command_name_does_not_shift_the_fields() {
        let text = "7 (a) R 1 (x) S 42 7 7 0 -1 4194560 1 2 3 4 11 12 13 14 20 0 1 0 999 1000 55 18446744073709551615";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.ppid, stat.state, stat.start_time, stat.rss), (42, b'S', 999, 55));
        assert_eq!((stat.utime, stat.stime, stat.cutime, stat.cstime), (11, 12, 13, 14));
        assert_eq!(parse_stat("7 (x"), None);
        assert_eq!(parse_stat("7 (x) R"), None);
    }

    #[test]
    fn own_process_is_listed_with_its_start_time() {
        let procfs = Procfs::open();
        let own = std::process::id() as i32;
        assert!(procfs.pids().contains(&own));
        assert!(procfs.stat(own).unwrap().start_time > 0);
    }
}
