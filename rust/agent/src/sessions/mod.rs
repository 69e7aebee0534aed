//! Running programs, and what is kept of them after their client has left.

pub mod jobs;
pub mod oom;
pub mod procfs;
pub mod session;
pub mod tree;
