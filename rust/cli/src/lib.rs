//! The `msb` command: the whole program as one function, called by the Python console scripts.
//!
//! | module | holds |
//! |---|---|
//! | [`app`] | the command line: global flags, the list of verbs, which function each one is |
//! | `run` … `completion` | one verb each |
//! | [`box_flags`], [`patch_flags`], [`unsupported`], [`image_source`], [`selection`] | arguments that several verbs share |
//! | [`timings`] | what `run --timings` prints |
//! | [`duration`], [`size`], [`pairs`] | how values are written |
//! | [`attach`], [`input`], [`outlet`], [`terminal`], [`signals`] | a program bound to this terminal |
//! | [`console`], [`output`], [`progress`], [`logging`], [`failure`] | what the user reads, and the exit status |
//!
//! It never ends the process, and leaves signal handlers and the terminal as it found them.

mod app;
mod attach;
mod box_flags;
mod commands;
mod completion;
mod console;
mod context;
mod copy;
mod create;
mod doctor;
mod duration;
mod exec;
mod failure;
mod image;
mod image_source;
mod images;
mod input;
mod inspect;
mod install;
mod invocation;
mod jobs;
mod kill;
mod list;
mod load;
mod logging;
mod logs;
mod metrics;
mod modify;
mod mount_flags;
mod outlet;
mod output;
mod pairs;
mod patch_flags;
mod pause;
mod ping;
mod profile;
mod progress;
mod remove;
mod restart;
mod run;
mod selection;
mod serve;
mod serve_key;
mod session;
mod signals;
mod size;
mod start;
mod status;
mod stop;
mod terminal;
mod timings;
mod touch;
mod tree;
mod unsupported;
mod volume;
mod wait;

use std::ffi::OsString;
use std::path::PathBuf;

use microsandbox_core::SharedBackend;
use microsandbox_sdk::default_backend::{BackendInfo, default_backend, default_backend_info};

pub use attach::bind_terminal;
pub use console::{Console, Input, Sink};
use invocation::Home;
pub use terminal::{DEFAULT_SIZE, DetachKeys, is_present as has_terminal, size as terminal_size};

/// Runs the command line `args`, whose first word is the program's own name, and returns the exit status. `python` is the
/// interpreter that runs it; unknown, the `python3` of the search path is asked where one is needed.
pub fn main(args: Vec<OsString>, python: Option<PathBuf>) -> i32 {
    let python = python.unwrap_or_else(some_python);
    app::run(args, Console::host(), || Home { backend: default_backend(), info: default_backend_info(), python })
}

fn some_python() -> PathBuf {
    PathBuf::from("python3")
}

/// As [`main`], with streams and backend of the caller's choice. `backend` is asked at most once, and not at all by what
/// needs none (`--help`, `completion`).
pub fn run_with(args: Vec<OsString>, console: Console, backend: impl FnOnce() -> SharedBackend) -> i32 {
    app::run(args, console, || {
        let backend = backend();
        let info = BackendInfo { kind: backend.kind(), api_url: None, source: "programmatic", profile: None };
        Home { backend, info, python: some_python() }
    })
}
