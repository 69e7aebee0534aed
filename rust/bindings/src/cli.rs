//! The `msb` command, for the console scripts.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs a command line, the program's name first, and gives the exit status.
#[pyfunction]
pub fn cli_main(py: Python<'_>, argv: Vec<OsString>) -> i32 {
    py.detach(|| microsandbox_cli::main(argv))
}
