//! `msb-runtime`: reads one job from an inherited descriptor, does it, reports. See the library for what lies where.

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    // Executed through a descriptor, whose number would be its name in `ps`.
    let _ = rustix::thread::set_name(c"msb-runtime");
    // Every code of a job is 0, 1 or 2.
    ExitCode::from(microsandbox_runtime::run(Instant::now()) as u8)
}
