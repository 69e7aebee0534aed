//! The runtime, run as it is shipped: one binary, a module for each subject.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod boot;
#[cfg(target_arch = "x86_64")]
mod calls;
mod confined;
mod escape;
#[cfg(feature = "failpoints")]
mod failpoints;
mod jobs;
mod life;
mod logs;
mod sockets;
mod support;
mod unpack;
