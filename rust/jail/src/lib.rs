//! The jail: what separates a tenant (the agent, or a VMM) from its host. Each mechanism is a file of its own.

pub mod caps;
pub mod cgroups;
pub mod idmapped;
pub mod ids;
pub mod landlock;
pub mod mounts;
pub mod namespaces;
pub mod seccomp;
