//! The command as a program of its own, for trying it without the Python package:
//! `cargo run --release -p microsandbox-cli --example msb -- doctor`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Statuses are those of a shell: 0 to 255.
    ExitCode::from(microsandbox_cli::main(std::env::args_os().collect(), None) as u8)
}
