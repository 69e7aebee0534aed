//! What the state database says when something is wrong with its file, its disk or its neighbours.
#![allow(unsafe_code, reason = "system calls that no safe wrapper makes")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::home::{Home, assert_passed, config, error_of, finish, inherited, raw, spec, timed};
use futures::FutureExt;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::config::DatabaseConfig;
use microsandbox_core::model::SandboxStatus;
use microsandbox_store::Store;

const CREATED: SandboxStatus = SandboxStatus::Created;
const NOBODY: u32 = 65534;

/// Done to the bytes of a closed database.
type Damage = fn(&mut Vec<u8>);
/// Done to the files of an open one.
type Change = fn(&Home);

/// A child that prints `holding` and releases the lock when its standard input closes.
struct Holder {
    child: Child,
    stdin: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Holder {
    fn start(home: &Home, test: &str) -> Holder {
        let mut child =
            home.child(test).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("holding") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "the holder ended early");
        }
        let stdin = child.stdin.take();
        Holder { child, stdin, output }
    }
    fn pid(&self) -> u32 {
        self.child.id()
    }
    fn release(mut self) {
        drop(self.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(finish(self.child).status.success(), "{rest}");
    }
}

fn hold_until_told() {
    println!("holding");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
#[ignore = "a child of the tests of a busy database"]
fn child_holds_the_write_lock() {
    timed(async {
        let db = raw::raw(&inherited()).await;
        raw::run(&db, "BEGIN IMMEDIATE").await;
        hold_until_told();
        raw::run(&db, "COMMIT").await;
    });
}

#[test]
#[ignore = "a child of a_migration_by_another_process_is_waited_for_with_a_deadline"]
fn child_holds_the_migration_lock() {
    let path = inherited().with_file_name("msb.db.migration.lock");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    hold_until_told();
}

#[test]
fn a_busy_database_is_an_error_with_path_and_holder() {
    timed(async {
        let home = Home::with_one_sandbox().await;
        let store = home.open().await.unwrap();
        let holder = Holder::start(&home, "faults::child_holds_the_write_lock");
        let start = Instant::now();
        let error = error_of(store.insert_sandbox(&spec("a"), CREATED).await);
        assert!(start.elapsed() < Duration::from_secs(5), "took {:?} of a deadline of 1 s", start.elapsed());
        let text = error.to_string();
        assert!(matches!(error, MicrosandboxError::StateBusy { .. }) && error.is_retryable(), "{error:?}");
        assert!(text.contains(home.database().to_str().unwrap()), "{text}");
        assert!(text.contains(&format!("process {}", holder.pid())), "{text}");
        assert!(store.sandbox("first").await.unwrap().is_some(), "readers do not wait for a writer");
        holder.release();
        store.insert_sandbox(&spec("a"), CREATED).await.unwrap();
    });
}

#[test]
fn a_write_waits_for_a_short_one_of_another_process() {
    timed(async {
        let home = Home::with_one_sandbox().await;
        let patient = DatabaseConfig { busy_timeout_secs: 30, ..config() };
        let store = Store::open(&home.database(), &patient).await.unwrap();
        let holder = Holder::start(&home, "faults::child_holds_the_write_lock");
        let write = async { store.insert_sandbox(&spec("a"), CREATED).await.map(|_| ()) };
        let release = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            holder.release();
            Ok(())
        };
        tokio::try_join!(write, release).unwrap();
    });
}

#[test]
fn a_migration_by_another_process_is_waited_for_with_a_deadline() {
    timed(async {
        let home = Home::new();
        let holder = Holder::start(&home, "faults::child_holds_the_migration_lock");
        let hasty = DatabaseConfig { connect_timeout_secs: 1, ..config() };
        let error = error_of(Store::open(&home.database(), &hasty).await);
        assert!(
            matches!(&error, MicrosandboxError::StateBusy { message, .. } if message.contains("migrated")),
            "{error:?}"
        );
        assert!(error.to_string().contains(&holder.pid().to_string()), "{error}");
        holder.release();
        home.open().await.unwrap();
    });
}

/// Opens, reads and writes: the first error of these.
async fn use_it(home: &Home) -> Result<(), MicrosandboxError> {
    let store = home.open().await?;
    store.sandboxes(None, 100, &Default::default()).await?;
    store.insert_sandbox(&spec("new"), CREATED).await?;
    store.images().await?;
    Ok(())
}

fn assert_corrupt(what: &str, home: &Home, result: Result<(), MicrosandboxError>) {
    let error = error_of(result);
    let MicrosandboxError::StateCorrupt { path, message } = &error else { panic!("{what}: {error:?}") };
    assert_eq!(*path, home.database(), "{what}");
    for advice in ["Keep a copy", "backup", ".recover"] {
        assert!(message.contains(advice), "{what}: {message}");
    }
}

// hazard: DB1
#[test]
fn a_file_that_is_no_database_any_more_is_damage() {
    timed(async {
        let damages: [(&str, Damage); 7] = [
            ("header overwritten", |bytes| bytes[..16].fill(0xff)),
            ("page size field", |bytes| bytes[16..18].fill(0x77)),
            ("first page zeroed", |bytes| bytes[..4096].fill(0)),
            ("first page garbled behind the header", |bytes| bytes[100..4096].fill(0xa5)),
            ("cut to half", |bytes| bytes.truncate(bytes.len() / 2 / 4096 * 4096)),
            ("emptied", Vec::clear),
            ("another kind of file", |bytes| *bytes = b"[section]\nkey = value\n".repeat(500)),
        ];
        for (what, damage) in damages {
            let home = Home::with_one_sandbox().await;
            let mut bytes = std::fs::read(home.database()).unwrap();
            damage(&mut bytes);
            std::fs::write(home.database(), bytes).unwrap();
            assert_corrupt(what, &home, use_it(&home).await);
        }
    });
}

/// Not every flipped byte can be seen (it may be free space or text); what is seen must be called by its name, and nothing
/// may hang, crash or become another kind of error.
// hazard: DB1
#[test]
fn damage_anywhere_is_found_or_harmless() {
    timed(async {
        let original = Home::with_one_sandbox().await;
        let bytes = std::fs::read(original.database()).unwrap();
        let (mut found, mut harmless) = (0, 0);
        for page in 0..bytes.len() / 4096 {
            for length in [1, 100, 1000] {
                let home = Home::new();
                std::fs::create_dir_all(home.database().parent().unwrap()).unwrap();
                let mut damaged = bytes.clone();
                damaged[page * 4096 + 5..][..length].iter_mut().for_each(|byte| *byte ^= 0xff);
                std::fs::write(home.database(), damaged).unwrap();
                match use_it(&home).await {
                    Ok(()) => harmless += 1,
                    Err(MicrosandboxError::StateCorrupt { .. }) => found += 1,
                    Err(error) => panic!("page {page}, {length} bytes: {error:?}"),
                }
            }
        }
        assert!(found > harmless / 10, "{found} found, {harmless} harmless");
    });
}

// hazard: DB1
#[test]
fn a_log_of_garbage_is_ignored_and_the_rows_are_there() {
    timed(async {
        let home = Home::with_one_sandbox().await;
        std::fs::write(home.beside("-wal"), [0x5a; 20_000]).unwrap();
        let store = home.open().await.unwrap();
        assert!(store.sandbox("first").await.unwrap().is_some());
        store.insert_sandbox(&spec("a"), CREATED).await.unwrap();
    });
}

/// SQLite ties a log to nothing but its own checksums: the log of another database is taken for ours. What matters is that
/// the outcome is one whole state or a named error, never a mix that passes.
// hazard: DB1
#[test]
fn a_foreign_log_gives_one_whole_state_or_an_error() {
    timed(async {
        let foreign = Home::new();
        let other = foreign.open().await.unwrap();
        for n in 0..40 {
            other.insert_sandbox(&spec(&format!("foreign-{n}")), CREATED).await.unwrap();
        }
        let home = Home::with_one_sandbox().await;
        std::fs::copy(foreign.beside("-wal"), home.beside("-wal")).unwrap();
        match use_it(&home).await {
            Err(MicrosandboxError::StateCorrupt { .. }) => {}
            Err(error) => panic!("{error:?}"),
            Ok(()) => {
                let db = raw::raw(&home.database()).await;
                assert_eq!(raw::integrity(&db).await, ["ok"]);
                let own = raw::column(&db, "SELECT name FROM sandbox WHERE name = 'first'").await.len();
                let others = raw::column(&db, "SELECT name FROM sandbox WHERE name LIKE 'foreign-%'").await.len();
                assert!(
                    (own, others) == (1, 0) || (own, others) == (0, 40),
                    "{own} own rows and {others} of the other"
                );
            }
        }
    });
}

#[test]
fn a_database_that_was_moved_away_begins_anew() {
    timed(async {
        let home = Home::with_one_sandbox().await;
        std::fs::remove_file(home.database()).unwrap();
        let store = home.open().await.unwrap();
        assert!(store.sandbox("first").await.unwrap().is_none());
    });
}

// hazard: DB6
#[test]
fn a_file_replaced_while_open_is_noticed() {
    timed(async {
        let changes: [(&str, Change); 4] = [
            ("replaced", |home| {
                std::fs::copy(home.database(), home.beside(".copy")).unwrap();
                std::fs::rename(home.beside(".copy"), home.database()).unwrap();
            }),
            ("removed", |home| std::fs::remove_file(home.database()).unwrap()),
            ("log removed", |home| std::fs::remove_file(home.beside("-wal")).unwrap()),
            ("index removed", |home| std::fs::remove_file(home.beside("-shm")).unwrap()),
        ];
        for (what, change) in changes {
            let home = Home::with_one_sandbox().await;
            let store = home.open().await.unwrap();
            store.insert_sandbox(&spec("a"), CREATED).await.unwrap();
            change(&home);
            let error = error_of(store.insert_sandbox(&spec("b"), CREATED).await);
            assert!(
                matches!(&error, MicrosandboxError::StateLost { path, .. } if *path == home.database()),
                "{what}: {error:?}"
            );
        }
    });
}

/// A runtime that ends before it has returned the connection to the pool closes it, and SQLite then removes log and index: what
/// happens when the interpreter ends right after a call.
#[test]
fn a_connection_closed_by_the_end_of_its_runtime_is_no_loss() {
    // With one thread nothing that the write leaves behind has run when `block_on` returns.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = Home::new();
    let mut last = runtime();
    let store = last.block_on(home.open()).unwrap();
    for turn in 0..3 {
        last.block_on(store.insert_sandbox(&spec(&format!("s{turn}")), CREATED)).unwrap();
        drop(last);
        last = runtime();
        last.block_on(home.settle());
    }
    let all = last.block_on(store.sandboxes(None, 100, &Default::default())).unwrap();
    assert_eq!(all.rows.len(), 3, "acknowledged writes are there");
    last.block_on(store.insert_sandbox(&spec("now"), CREATED)).unwrap();
    std::fs::remove_file(home.beside("-wal")).unwrap();
    let error = error_of(last.block_on(store.insert_sandbox(&spec("lost"), CREATED)));
    assert!(matches!(error, MicrosandboxError::StateLost { .. }), "of a connection made later, too: {error:?}");
}

// hazard: DB2
#[test]
fn a_home_that_cannot_be_written_can_be_read() {
    timed(async {
        for (directory, file) in [(0o555, 0o644), (0o555, 0o444), (0o755, 0o444)] {
            let home = Home::with_one_sandbox().await;
            let mode = |path: &std::path::Path, mode| {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            };
            mode(&home.path(), 0o755);
            mode(&home.database(), file);
            mode(home.database().parent().unwrap(), directory);
            let mut child = home.child("faults::child_reads_only");
            if rustix::process::geteuid().is_root() {
                child.uid(NOBODY).gid(NOBODY);
            }
            let output = finish(child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
            mode(home.database().parent().unwrap(), 0o755);
            assert_passed(&output, &format!("directory {directory:o}, file {file:o}"));
        }
    });
}

#[test]
#[ignore = "a child of a_home_that_cannot_be_written_can_be_read"]
fn child_reads_only() {
    timed(async {
        let store = Store::open(&inherited(), &config()).await.unwrap();
        assert!(store.sandbox("first").await.unwrap().is_some());
        let error = error_of(store.insert_sandbox(&spec("a"), CREATED).await);
        assert!(matches!(&error, MicrosandboxError::StateReadOnly { path, .. } if *path == inherited()), "{error:?}");
    });
}

// hazard: DB2
#[test]
fn a_place_where_nothing_can_be_made_is_read_only() {
    timed(async {
        let home = Home::new();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
        let mut child = home.child("faults::child_cannot_create");
        if rustix::process::geteuid().is_root() {
            child.uid(NOBODY).gid(NOBODY);
        }
        let output = finish(child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_passed(&output, "a directory without write permission");
    });
}

#[test]
#[ignore = "a child of a_place_where_nothing_can_be_made_is_read_only"]
fn child_cannot_create() {
    timed(async {
        let error = error_of(Store::open(&inherited(), &config()).await);
        assert!(matches!(error, MicrosandboxError::StateReadOnly { .. }), "{error:?}");
    });
}

/// On a file system of 600 KiB that exists only for the child.
// hazard: DB4
#[test]
fn a_full_disk_is_an_error_that_loses_nothing_and_passes() {
    timed(async {
        let home = Home::new();
        let inner = home.child("faults::child_fills_its_disk");
        let mount = "mount -t tmpfs -o size=600k tmpfs \"$0\" && exec \"$@\"";
        #[allow(clippy::disallowed_methods, reason = "a file system of one's own needs a namespace of one's own")]
        let mut outer = Command::new("unshare");
        outer.args(["--user", "--map-root-user", "--mount", "sh", "-c", mount]).arg(home.path());
        outer.arg(std::env::current_exe().unwrap()).args(inner.get_args());
        outer.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let child = outer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let output = finish(child.expect("util-linux is needed"));
        assert_passed(&output, "a full disk");
    });
}

#[test]
#[ignore = "a child of a_full_disk_is_an_error_that_loses_nothing_and_passes"]
fn child_fills_its_disk() {
    timed(async {
        let store = Store::open(&inherited(), &config()).await.unwrap();
        let filler = inherited().with_file_name("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        drop(file);
        let mut stored = Vec::new();
        let error = loop {
            let name = format!("s{}", stored.len());
            match store.insert_sandbox(&spec(&name), CREATED).await {
                Ok(_) => stored.push(name),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&error, MicrosandboxError::ResourceExhausted { resource, .. } if resource == "disk"),
            "{error:?}"
        );
        for name in &stored {
            assert!(store.sandbox(name).await.unwrap().is_some(), "{name} was acknowledged");
        }
        assert!(store.sandbox(&format!("s{}", stored.len())).await.unwrap().is_none(), "refused, yet there");
        std::fs::remove_file(filler).unwrap();
        store.insert_sandbox(&spec("after"), CREATED).await.unwrap();
        let db = raw::raw(&inherited()).await;
        assert_eq!(raw::integrity(&db).await, ["ok"]);
    });
}

// hazard: L7
#[test]
fn a_forked_child_is_refused_and_the_parent_works() {
    timed(async {
        let home = Home::with_one_sandbox().await;
        let store = home.open().await.unwrap();
        assert!(store.sandbox("first").await.unwrap().is_some());
        // SAFETY: the child polls two futures that end before any lock or thread of the parent is needed, and leaves with
        // `_exit`, which runs nothing of the parent's.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let read = store.sandbox("first").now_or_never();
            let write = store.delete_sandbox(1).now_or_never();
            let refused = matches!(read, Some(Err(MicrosandboxError::InvalidState(_))))
                && matches!(write, Some(Err(MicrosandboxError::InvalidState(_))));
            drop(store);
            // SAFETY: ends the child; see above.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) };
        }
        let child = rustix::process::Pid::from_raw(pid).expect("fork failed");
        let start = Instant::now();
        let status = loop {
            let waited = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::NOHANG).unwrap();
            if let Some((_, status)) = waited {
                break status;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the child hangs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(status.exit_status(), Some(0));
        store.insert_sandbox(&spec("a"), CREATED).await.unwrap();
    });
}
