//! The `msb` command: the whole program as one function, called by the Python console scripts.
//!
//! | module | holds |
//! |---|---|
//! | [`app`] | the command line: global flags, the list of verbs, which function each verb is |
//! | [`verbs`] | one verb a file |
//! | [`flags`] | arguments that several verbs share, and the notations of values |
//! | [`terminal`] | the standard streams, the terminal's mode, signals; a program bound to them |
//! | [`output`] | tables, progress, log, errors and the exit status |
//! | [`invocation`] | what every verb receives: backend, streams, signals |
//!
//! It never ends the process, and it restores signal handlers and the terminal's mode.

mod app;
mod flags;
mod invocation;
mod output;
mod terminal;
mod verbs;

use std::ffi::OsString;
use std::path::PathBuf;

use microsandbox_core::SharedBackend;
use microsandbox_sdk::default_backend::{BackendInfo, default_backend, default_backend_info};

use invocation::Home;
pub use terminal::attach::bind_terminal;
pub use terminal::console::{Console, Input, Sink};
pub use terminal::detach_keys::DetachKeys;
pub use terminal::raw_mode::{DEFAULT_SIZE, is_present as has_terminal, size as terminal_size};

/// Runs the command line `args`, whose first word is the program's own name, and returns the exit status. `python` is
/// the interpreter that runs this function; without it, verbs that need one use the `python3` of the search path.
pub fn main(args: Vec<OsString>, python: Option<PathBuf>) -> i32 {
    let python = python.unwrap_or_else(some_python);
    app::run(args, Console::host(), || Home { backend: default_backend(), info: default_backend_info(), python })
}

fn some_python() -> PathBuf {
    PathBuf::from("python3")
}

/// As [`main`], with streams and backend of the caller's choice. `backend` is called at most once, and never by
/// invocations that need no backend (`--help`, `completion`).
pub fn run_with(args: Vec<OsString>, console: Console, backend: impl FnOnce() -> SharedBackend) -> i32 {
    app::run(args, console, || {
        let backend = backend();
        let info = BackendInfo { kind: backend.kind(), api_url: None, source: "programmatic", profile: None };
        Home { backend, info, python: some_python() }
    })
}
