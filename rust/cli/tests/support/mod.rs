//! Running the command in process, with streams that are looked at afterwards, and plain files as snapshots.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub mod fixed_backend;

use microsandbox_cli::{Console, Input};
use microsandbox_core::SharedBackend;

/// What one run of the command left.
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

/// For what must not ask for a backend.
pub fn msb_alone(words: &[&str]) -> Ran {
    msb_with_input(|| panic!("{words:?} asked for the backend"), words, b"")
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
    assert_eq!(actual, expected, "{} differs; look at it, then run with MSB_UPDATE_SNAPSHOTS=1", path.display());
}
