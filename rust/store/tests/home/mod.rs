//! A home of one test: its directory, its database, and a time limit.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod raw;

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use microsandbox_core::config::DatabaseConfig;
use microsandbox_core::model::SandboxSpec;
use microsandbox_core::{MicrosandboxError, MicrosandboxResult};
use microsandbox_store::Store;

/// Longer than any test should take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Tells a child process of a test where its home is.
const HOME_VARIABLE: &str = "STORE_TEST_HOME";

pub struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Home {
        Home { dir: tempfile::tempdir().unwrap() }
    }
    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
    pub fn database(&self) -> PathBuf {
        self.dir.path().join("db").join("msb.db")
    }
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.database().into_os_string();
        name.push(suffix);
        name.into()
    }
    pub async fn open(&self) -> MicrosandboxResult<Store> {
        Store::open(&self.database(), &config()).await
    }
    /// A complete, closed database with one sandbox `first`.
    pub async fn with_one_sandbox() -> Home {
        let home = Home::new();
        let store = home.open().await.unwrap();
        store.insert_sandbox(&spec("first"), microsandbox_core::model::SandboxStatus::Created).await.unwrap();
        drop(store);
        home.settle().await;
        home
    }
    /// Closing happens on the driver's threads; the last one to close removes the log.
    pub async fn settle(&self) {
        let start = Instant::now();
        while self.beside("-wal").exists() {
            assert!(start.elapsed() < Duration::from_secs(10), "the log is still there");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    /// This test binary again, running only `test`, its path in this binary (marked `#[ignore]`), on this home.
    pub fn child(&self, test: &str) -> Command {
        #[allow(clippy::disallowed_methods, reason = "only another process can be killed, limited or waited for")]
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"])
            .env(HOME_VARIABLE, self.dir.path())
            .stdin(Stdio::null());
        command
    }
}

/// The database of the parent's home, in a child.
pub fn inherited() -> PathBuf {
    let home = std::env::var_os(HOME_VARIABLE).expect("runs only as a child of another test");
    PathBuf::from(home).join("db").join("msb.db")
}

/// Short waits, so that a busy database is an answer and not a pause.
pub fn config() -> DatabaseConfig {
    DatabaseConfig { busy_timeout_secs: 1, ..DatabaseConfig::default() }
}

pub fn spec(name: &str) -> SandboxSpec {
    SandboxSpec { name: name.into(), id: format!("id-of-{name}"), ..SandboxSpec::default() }
}

/// Runs a test with a time limit, on two threads.
pub fn timed<F: Future<Output = ()>>(test: F) {
    timed_for(DEADLINE, test);
}

/// As [`timed`], for runs that are asked to be longer.
pub fn timed_for<F: Future<Output = ()>>(limit: Duration, test: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("the test took too long") });
}

/// The end of a child, which is killed when it takes too long.
pub fn finish(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("the child took too long");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// A child that ran its one test and passed it; a misspelt name would run none.
pub fn assert_passed(output: &Output, what: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{what}: {}\n{out}\n{err}", output.status);
}

pub fn error_of<T>(result: MicrosandboxResult<T>) -> MicrosandboxError {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error,
    }
}
