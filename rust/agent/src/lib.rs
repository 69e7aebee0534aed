//! The agent: PID 1 inside a sandbox. One thread, one `poll` loop; only blocking file work leaves it.
//!
//! | module | holds |
//! |---|---|
//! | [`server`] | the loop: who may be polled, what happens when it is ready, which deadline comes next |
//! | [`clients`] | one client: token, id range, frames in, bounded frames out; the private channel to the runtime |
//! | [`sessions`] | running programs: streams, credit, exit, drain, process trees; jobs, known after their client has left |
//! | [`exec`] | from a request to a process: environment, user, limits, program, terminal, clone |
//! | [`files`] | file operations beneath the root, run by [`workers`] |
//! | [`handlers`] | what a frame makes the agent do: exec, jobs, files, watches, signals, stats, shutdown |
//! | [`machine`] | what must be true before the first frame: in a container, beside an init of the image's, on a kernel of its own |
//!
//! Nothing here asks libc for names (no NSS in a static binary) and nothing reads the agent's own environment.
#![forbid(unsafe_code)]

pub mod clients;
pub mod errno;
pub mod exec;
pub mod files;
pub mod handlers;
pub mod machine;
pub mod server;
pub mod sessions;
pub mod workers;

/// Status of an agent that could not begin (`EX_SOFTWARE` of sysexits.h).
pub(crate) const FAILED: u8 = 70;

/// Runs the agent to its end; the exit status of the process.
pub fn run() -> u8 {
    let owns_machine = machine::is_ours();
    if owns_machine {
        machine::set_limits();
    }
    let successor = match machine::handover::is_wanted().then(machine::handover::split).transpose() {
        Ok(Some(None)) => return FAILED,
        Ok(successor) => Ok(successor.flatten()),
        Err(error) => Err(error),
    };
    let serve = |successor| {
        let (setup, control) = machine::init::prepare(owns_machine, successor)?;
        server::Server::new(setup, control)
    };
    let code = match successor.and_then(serve) {
        Ok(server) => server.run(),
        Err(error) => {
            eprintln!("agent: {error}");
            FAILED
        }
    };
    if owns_machine {
        machine::power_off(code);
    }
    code
}
