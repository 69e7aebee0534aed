//! Drivers: what turns a launch specification into a running guest. Above this trait nothing knows which one runs.

pub mod container;
mod jailed;
pub mod microvm;
mod refresh;

use microsandbox_contract::{self as contract, IsolationReport, LaunchSpec};
use microsandbox_protocol::message::Machine;
use rustix::fd::OwnedFd;

use crate::directory::SandboxDir;
use crate::own_ids::OwnIds;
use crate::steps::Steps;
use microsandbox_cgroups::Cgroups;
use microsandbox_contract::note::Failure;

/// What every driver starts from.
pub struct Boot<'a> {
    pub spec: &'a LaunchSpec,
    pub dir: &'a SandboxDir,
    /// As whom its processes run.
    pub own_ids: &'a mut OwnIds,
    /// The agent's program; without one (a probe) the child ends where it would execute it.
    pub agent: Option<OwnedFd>,
    /// The virtual machine monitor's program.
    pub vmm: Option<OwnedFd>,
    /// The library with the guest kernel.
    pub kernel: Option<OwnedFd>,
}

/// The runtime's end of the private channel.
pub enum Control {
    /// The agent has the other end. Non-blocking.
    Connected(OwnedFd),
    /// The agent will connect here, once. Non-blocking.
    Awaited(OwnedFd),
}

/// A guest whose first process has been started.
pub struct Guest {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// [`Note`](microsandbox_contract::note::Note)s of the child until it executes its program, or of a monitor until its machine runs; ends then.
    /// Non-blocking.
    pub notes: Option<OwnedFd>,
    /// What the guest's first process and its kernel say; for `kernel.log`. Non-blocking.
    pub console: Option<OwnedFd>,
    /// Ends with the guest.
    pub _refresher: Option<refresh::Refresher>,
    /// Taken by the supervisor.
    pub control: Option<Control>,
    /// Where a monitor has bound `agent.sock`: it is moved into the runtime's own directory once the agent is ready.
    pub sockets: Option<OwnedFd>,
    pub cgroups: Cgroups,
    pub isolation: IsolationReport,
}

/// A way to run a guest.
pub trait Driver {
    /// Starts the guest's first process, which reports its later steps as notes.
    fn boot(&self, boot: Boot<'_>, steps: &mut Steps) -> Result<Guest, Failure>;

    /// What the agent has to set up itself, because this driver cannot do it from outside.
    fn machine(&self, _spec: &LaunchSpec) -> Option<Machine> {
        None
    }
}

/// The driver of this kind.
pub fn of_kind(kind: contract::Driver) -> Box<dyn Driver> {
    match kind {
        contract::Driver::Container => Box::new(container::Container),
        contract::Driver::Microvm => Box::new(microvm::Microvm),
    }
}

/// The limit of shared memory, set on its mount: there may be no control group that limits it.
fn shm_bytes(spec: &LaunchSpec) -> u64 {
    spec.limits.memory_mib.saturating_mul(1 << 20) / 2
}
