//! PID 1 of a sandbox.

fn main() -> std::process::ExitCode {
    // Executed through a descriptor, whose number would be its name in `ps`.
    let _ = rustix::thread::set_name(c"msb-agent");
    std::process::ExitCode::from(microsandbox_agent::run())
}
