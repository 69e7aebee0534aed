//! PID 1 of a sandbox.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(microsandbox_agent::run())
}
