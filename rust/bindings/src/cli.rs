//! The `msb` command, for the console scripts.

use std::ffi::OsString;

use std::path::PathBuf;

use pyo3::prelude::*;

/// Runs a command line, the program's name first, and gives the exit status.
#[pyfunction]
pub fn cli_main(py: Python<'_>, argv: Vec<OsString>) -> i32 {
    // Empty or None where an application embeds the interpreter.
    let python = py.import("sys").and_then(|sys| sys.getattr("executable")?.extract::<PathBuf>()).ok();
    let python = python.filter(|path| !path.as_os_str().is_empty());
    py.detach(|| microsandbox_cli::main(argv, python))
}
