//! Runs the command in this process with captured streams; plain files as snapshots.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub mod fixed_backend;

use microsandbox_cli::{Console, Input};
use microsandbox_core::SharedBackend;
use microsandbox_core::config::LocalConfig;
use microsandbox_fake::MemoryBackend;
use microsandbox_local::LocalBackend;

/// The result of one run of the command.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Everything on one page, for snapshots.
    pub fn page(&self) -> String {
        format!("status: {}\n--- stdout\n{}--- stderr\n{}", self.code, self.out, self.err)
    }
}

/// Runs `msb` with `words`; standard input is `input`, nothing is a terminal.
pub fn msb_with_input(backend: impl FnOnce() -> SharedBackend, words: &[&str], input: &[u8]) -> Ran {
    let (out, err) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let console = Console {
        input: Input::Bytes(input.to_vec().into()),
        out: out.clone(),
        err: err.clone(),
        in_is_terminal: false,
        out_is_terminal: false,
        err_is_terminal: false,
        may_color: false,
    };
    let args = std::iter::once("msb").chain(words.iter().copied()).map(OsString::from).collect();
    let code = microsandbox_cli::run_with(args, console, backend);
    let text = |sink: &Arc<Mutex<Vec<u8>>>| String::from_utf8_lossy(&sink.lock().unwrap()).into_owned();
    Ran { code, out: text(&out), err: text(&err) }
}

/// Runs `msb` with `words` and no input.
pub fn msb(backend: &SharedBackend, words: &[&str]) -> Ran {
    msb_with_input(|| backend.clone(), words, b"")
}

/// Runs `msb` with `words`; fails if it uses a backend.
pub fn msb_alone(words: &[&str]) -> Ran {
    msb_with_input(|| panic!("{words:?} used the backend"), words, b"")
}

/// Compares with `tests/snapshots/<name>.txt`; with `MSB_UPDATE_SNAPSHOTS=1` writes it.
#[track_caller]
pub fn snapshot(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("MSB_UPDATE_SNAPSHOTS").is_some_and(|value| value == "1") {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        actual,
        expected,
        "{} differs; if the change is intended, run with MSB_UPDATE_SNAPSHOTS=1",
        path.display()
    );
}

/// Names of the snapshots that begin with `prefix`, sorted.
pub fn snapshots(prefix: &str) -> Vec<String> {
    let files = std::fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".txt")?.to_owned())).collect();
    names.retain(|name| name.starts_with(prefix));
    names.sort();
    names
}

/// A backend with sandboxes in memory: the object that tests script, and the same object for the command line.
pub fn memory() -> (MemoryBackend, SharedBackend) {
    let memory = MemoryBackend::new();
    let shared: SharedBackend = std::sync::Arc::new(memory.clone());
    (memory, shared)
}

/// The sandboxes of this machine below `home`.
pub fn local(home: &std::path::Path) -> SharedBackend {
    LocalBackend::from_config(LocalConfig::default_for_home(home)).into()
}

/// Creates a running sandbox `name`.
pub fn created(backend: &SharedBackend, name: &str, more: &[&str]) {
    let words = [&["create", "host", "-q", "-n", name][..], more].concat();
    assert_eq!(msb(backend, &words), Ran { code: 0, out: format!("{name}\n"), err: String::new() });
}

/// Names of all sandboxes, newest first.
pub fn names(backend: &SharedBackend) -> Vec<String> {
    msb(backend, &["list", "-q"]).out.lines().map(str::to_owned).collect()
}

/// The status that `inspect` shows.
pub fn status(backend: &SharedBackend, name: &str) -> String {
    let ran = msb(backend, &["inspect", name, "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    report["status"].as_str().unwrap().to_owned()
}
