//! The agent: PID 1 inside a sandbox. One thread, one `poll` loop; only blocking file work leaves it.
//!
//! | module | holds |
//! |---|---|
//! | [`init`] | what must be true before the first frame: signals, descriptors, limits; reaping |
//! | [`handover`] | the same where the first process is an init of the image's |
//! | [`machine`] | the same on a kernel of its own, and the end of that |
//! | [`server`] | the loop: who may be polled, what happens when it is ready, which deadline comes next |
//! | [`connection`], [`hello`], [`queue`] | one client: token, id range, frames in, bounded frames out |
//! | [`control`] | the private channel to the runtime: bootstrap, captured output, activity |
//! | [`session`] | one running program: streams, credit, exit, drain |
//! | [`jobs`] | programs that are known after their client has left |
//! | [`handlers`] | what a frame makes the agent do: exec, jobs, files, watches, signals, stats, shutdown |
//! | [`exec`] | from a request to a process: environment, user, limits, program, terminal, clone |
//! | [`files`] | file operations beneath the root, run by [`workers`] |
//! | [`tree`] | finding and killing a session's whole process tree |
//!
//! Nothing here asks libc for names (no NSS in a static binary) and nothing reads the agent's own environment.
#![forbid(unsafe_code)]

pub mod connection;
pub mod control;
pub mod errno;
pub mod exec;
pub mod files;
pub mod handlers;
pub mod handover;
pub mod hello;
pub mod init;
pub mod jobs;
pub mod machine;
pub mod oom;
pub mod procfs;
pub mod queue;
pub mod server;
pub mod session;
pub mod tree;
pub mod workers;

/// Status of an agent that could not begin (`EX_SOFTWARE` of sysexits.h).
pub(crate) const FAILED: u8 = 70;

/// Runs the agent to its end; the exit status of the process.
pub fn run() -> u8 {
    let owns_machine = machine::is_ours();
    let successor = match handover::is_wanted().then(handover::split).transpose() {
        Ok(Some(None)) => return FAILED,
        Ok(successor) => Ok(successor.flatten()),
        Err(error) => Err(error),
    };
    let serve = |successor| {
        let (setup, control) = init::prepare(owns_machine, successor)?;
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
