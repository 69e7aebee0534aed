//! The process that holds a lock, according to `/proc/locks`; for error texts only.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::identity::sibling;

/// Byte of the `-shm` file that a writer locks (<https://www.sqlite.org/walformat.html#wal_locks>).
const WAL_WRITE_LOCK: u64 = 120;

/// The process that is writing to the database.
pub(super) fn of_database(path: &Path) -> Option<u32> {
    let file = file_id(&sibling(path, "-shm"))?;
    find(|lock| lock.file == file && lock.exclusive && (lock.start..=lock.end).contains(&WAL_WRITE_LOCK))
}

/// The process that holds `flock` on this file exclusively.
pub(super) fn of_lock_file(path: &Path) -> Option<u32> {
    let file = file_id(path)?;
    find(|lock| lock.file == file && lock.exclusive)
}

/// Major and minor device number, inode. Some file systems show another device here than `stat` does; then no process is
/// found, which is better than a wrong one.
type FileId = (u32, u32, u64);

fn file_id(path: &Path) -> Option<FileId> {
    let meta = path.metadata().ok()?;
    Some((rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()), meta.ino()))
}

struct Lock {
    exclusive: bool,
    pid: u32,
    file: FileId,
    start: u64,
    end: u64,
}

fn find(wanted: impl Fn(&Lock) -> bool) -> Option<u32> {
    let table = std::fs::read_to_string("/proc/locks").ok()?;
    table.lines().filter_map(parse).find(wanted).map(|lock| lock.pid)
}

/// `1: POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120`; waiters have `->` and are no holders.
fn parse(line: &str) -> Option<Lock> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, mode, pid, file, start, end] = fields.as_slice() else { return None };
    let [major, minor, inode] = file.split(':').collect::<Vec<_>>()[..] else { return None };
    let file = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?, inode.parse().ok()?);
    Some(Lock {
        exclusive: *mode == "WRITE",
        pid: pid.parse().ok()?,
        file,
        start: start.parse().ok()?,
        end: if *end == "EOF" { u64::MAX } else { end.parse().ok()? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_locks_is_read_and_a_waiter_is_not_a_holder() {
        let lock = parse("12: POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120").unwrap();
        assert_eq!((lock.pid, lock.file, lock.start, lock.end, lock.exclusive), (4711, (8, 1, 1234), 120, 120, true));
        assert_eq!(parse("3: FLOCK  ADVISORY  READ 9 00:2a:77 0 EOF").map(|lock| lock.end), Some(u64::MAX));
        assert!(parse("12: -> POSIX  ADVISORY  WRITE 4712 08:01:1234 120 120").is_none());
        assert!(parse("").is_none());
    }
}
