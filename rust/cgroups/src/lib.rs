//! Control groups of sandboxes: version 1, version 2, and hosts that mix both.
//!
//! | module | holds |
//! |---|---|
//! | [`create`] | the leaves of one sandbox: made, joined, killed and removed by its runtime |
//! | [`hierarchy`] | the mounted hierarchies and where in them this process is |
//! | [`limits`] | what each controller is given at the boot, and at a resize |
//! | [`supervisor`] | the groups of the supervisor itself |
//! | [`usage`] | what the groups count |
//! | [`oom`] | processes that the kernel killed for lack of memory |
//! | [`freeze`] | freezing and thawing |
//! | [`remove`] | removing what a killed runtime left |
//!
//! The runtime works through descriptors where the kernel lets it, because a later run of the sandbox has the same paths; the
//! SDK, which reads groups of a run that it knows to be alive, works with paths.
#![forbid(unsafe_code)]

pub mod create;
pub mod freeze;
pub mod hierarchy;
pub mod limits;
pub mod oom;
pub mod remove;
pub mod supervisor;
pub mod usage;

pub use create::{Cgroups, Join, leaves_of};
pub use limits::Controller;
pub use supervisor::SupervisorGroups;
