//! This process's terminal bound to a program in a sandbox: what `msb exec -t` does, for Python.

use std::sync::Arc;

use microsandbox_cli::{DEFAULT_SIZE, DetachKeys, has_terminal, terminal_size};
use microsandbox_core::Sandbox;
use microsandbox_core::model::{ExecOptions, StdinSource};
use pyo3::prelude::*;

use crate::arguments::{Text, optional};
use crate::errors::invalid_config;
use crate::runtime::Pending;

/// Starts the program with a terminal of the size of this one, or without one where there is none here: an end of file
/// is then an end of file. The status of the program, 0 when the user detached.
pub fn attach(
    py: Python<'_>,
    sandbox: Arc<Sandbox>,
    (cmd, args): (String, Option<Vec<String>>),
    mut options: ExecOptions,
    detach_keys: &Bound<'_, PyAny>,
) -> PyResult<Pending> {
    let keys = match optional::<Text>(detach_keys, "detach_keys")? {
        Some(Text(keys)) => {
            DetachKeys::parse(&keys).map_err(|why| invalid_config(py, format!("detach_keys: {why}")))?
        }
        None => DetachKeys::default(),
    };
    options.args = args.unwrap_or(options.args);
    let tty = has_terminal();
    options.tty = tty;
    options.stdin = StdinSource::Pipe;
    // Without a terminal there are no keys to detach with: then the program ends with this client.
    options.detachable = tty;
    (options.rows, options.cols) = terminal_size().unwrap_or(DEFAULT_SIZE);
    if tty
        && let Ok(term) = std::env::var("TERM")
        && !options.env.iter().any(|(key, _)| key == "TERM")
    {
        options.env.push(("TERM".into(), term));
    }
    Ok(Pending::new(async move {
        let program = sandbox.exec_stream(cmd, options).await?;
        let exit = microsandbox_cli::bind_terminal(&program, tty, keys).await?;
        Ok(exit.map_or(0, |exit| exit.code))
    }))
}
