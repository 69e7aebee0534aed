//! What the processes of this project hand to each other on the host: the SDK, `msb-runtime` and `msb-vmm`. Host side
//! only: nothing of this enters a sandbox except the [`Bootstrap`](microsandbox_protocol::message::Bootstrap) that the
//! runtime forwards to the agent.
//!
//! | module | holds |
//! |---|---|
//! | [`job`] | the job of one `msb-runtime` process, and the descriptors it inherits |
//! | [`launch`] | the job that boots and supervises a sandbox |
//! | [`report`] | what `msb-runtime` reports to the SDK |
//! | [`step`] | the named steps of a boot and the stages that they belong to |
//! | [`note`] | what a booting guest reports to its runtime |
//! | [`monitor`] | what the runtime hands to `msb-vmm` |
//! | [`identity`] | which processes run a sandbox: `runtime/identity.json` |
//! | [`exit`] | how a run ended: `runtime/exit.json` |
//! | [`headroom`] | the free space of a file system that is left to the host |
//! | [`isolation`] | what separates a sandbox from its host |
//! | [`text`] | enums that are written as text, one text per value |
//!
//! Closed sets are enums; each value has one text, which is what files, the database and users see. Files of a newer or
//! older version may hold a text that this build does not know. Such a text becomes the `Unknown` value of its enum, so the
//! rest of the document stays readable and the sandbox reachable; the text itself is kept in the free text beside it.

mod text;

pub mod exit;
pub mod headroom;
pub mod identity;
pub mod isolation;
pub mod job;
pub mod launch;
pub mod monitor;
pub mod note;
pub mod report;
pub mod step;

pub use exit::{ExitReason, ExitRecord};
pub use headroom::{Headroom, Shortage};
pub use identity::{Identity, ProcessIdentity};
pub use isolation::{Accelerator, IsolationDriver, IsolationReport, Mechanism, MechanismName, MechanismState};
pub use job::{Compression, ImageLimits, Job, LAUNCH_VERSION, LayerSource, ProbeSpec, RemoveTreeSpec, UnpackSpec, fd};
pub use launch::{
    BindSpec, Driver, HostIds, IdMap, KernelSpec, LaunchSpec, Lifecycle, LogLevel, LogLimits, Lower, Pinned,
    ResourceLimits, RootSpec, TmpfsSpec,
};
pub use report::{BootError, JobError, JobErrorKind, LaunchReady, Report, Timing};
pub use step::{Stage, Step};
