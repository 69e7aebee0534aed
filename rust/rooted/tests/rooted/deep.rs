//! Trees that are deep or wide, for the tests of walking and removing; also compiled into those of home and local.
#![allow(dead_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub const DEPTH: usize = 50_000;

/// A directory in memory where there is one: some disks take a millisecond for each directory that is freed.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

pub fn open(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// `depth` directories within each other beneath `top`, each with a name of 255 bytes and a file.
pub fn nest(top: &Path, depth: usize) {
    let name = "d".repeat(255);
    let mut at = open(top);
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let file = rustix::fs::mknodat(at.as_fd(), "f", rustix::fs::FileType::Fifo, Mode::RUSR, 0);
        file.unwrap();
    }
}

/// Many links with names of 255 bytes in one directory; how many. `ROOTED_TEST_FILES` says otherwise than 50,000.
pub fn widen(top: &Path) -> usize {
    let top = open(top);
    let count: usize = std::env::var("ROOTED_TEST_FILES").map_or(50_000, |text| text.parse().unwrap());
    for number in 0..count {
        rustix::fs::symlinkat("x", &top, format!("{number:0>255}").as_str()).unwrap();
    }
    count
}

/// The most memory this process has used, in bytes.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// The variable with the descriptor limit of a test that runs itself again.
const LIMIT: &str = "ROOTED_TEST_NOFILE";

/// Runs `work` on a small thread in a process of its own for each descriptor limit.
pub fn under_each_limit(test: &str, work: impl Fn() + Send + Sync) {
    if let Some(limit) = std::env::var_os(LIMIT) {
        let limit: u64 = limit.to_str().unwrap().parse().unwrap();
        // The highest that this user may have.
        let limit = getrlimit(Resource::Nofile).maximum.map_or(limit, |hard| hard.min(limit));
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
        // A tenth of what a task of the async runtime gets.
        std::thread::scope(|scope| {
            std::thread::Builder::new().stack_size(192 << 10).spawn_scoped(scope, &work).unwrap().join().unwrap();
        });
        return;
    }
    for limit in [64, 1024, 1_048_576] {
        #[allow(clippy::disallowed_methods, reason = "a test that runs itself with another limit")]
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let status = again.args(["--exact", test, "--nocapture"]).env(LIMIT, limit.to_string()).status().unwrap();
        assert!(status.success(), "with {limit} descriptors: {status}");
    }
}
