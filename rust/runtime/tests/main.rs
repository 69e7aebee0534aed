//! The runtime, run as it is shipped: one binary, a module for each subject.

mod boot;
mod confined;
mod escape;
#[cfg(feature = "failpoints")]
mod failpoints;
mod jobs;
mod life;
mod logs;
mod support;
mod unpack;
