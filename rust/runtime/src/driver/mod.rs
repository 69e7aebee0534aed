//! Drivers: what turns a launch specification into a running guest. Above this trait nothing knows which one runs.

pub mod container;

use microsandbox_protocol::launch::{self, IsolationReport, LaunchSpec};
use rustix::fd::OwnedFd;

use crate::directory::SandboxDir;
use crate::failure::Failure;
use crate::jail::cgroups::Cgroups;
use crate::steps::{Step, Steps};

/// What every driver starts from.
pub struct Boot<'a> {
    pub spec: &'a LaunchSpec,
    pub dir: &'a SandboxDir,
    /// The agent's program; without one (a probe) the child ends where it would execute it.
    pub agent: Option<OwnedFd>,
    /// Its listening socket.
    pub listener: OwnedFd,
    /// Its end of the private channel.
    pub private: OwnedFd,
}

/// A guest whose first process has been started.
pub struct Guest {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// [`Note`]s of the child until it executes its program; ends then. Non-blocking.
    pub notes: Option<OwnedFd>,
    /// What the guest's first process and its kernel say; for `kernel.log`. Non-blocking.
    pub console: Option<OwnedFd>,
    pub cgroups: Cgroups,
    pub isolation: IsolationReport,
}

/// A way to run a guest.
pub trait Driver {
    /// Starts the guest's first process; its further steps are told by notes.
    fn boot(&self, boot: Boot<'_>, steps: &mut Steps) -> Result<Guest, Failure>;
}

/// What the child tells the runtime, as JSON lines.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    Done(Step, u64),
    Mechanism(launch::Mechanism),
    Failed(Failure),
    /// The test's failpoint is reached: the runtime has to end here.
    Failpoint,
}

/// The driver of this kind.
pub fn of_kind(kind: launch::Driver) -> Result<Box<dyn Driver>, Failure> {
    match kind {
        launch::Driver::Container => Ok(Box::new(container::Container)),
        launch::Driver::Microvm => Err(Failure::new(
            Step::ReadSpec,
            "this build has no microVM driver",
            "use isolation=\"container\", or \"auto\"",
        )),
    }
}
