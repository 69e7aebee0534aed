//! The jail: what separates a tenant (the agent of a container, or the monitor of a virtual machine) from its host. Each
//! mechanism is a module of its own; the steps that combine them are the runtime's (`driver/jailed.rs`).
//!
//! | module | holds |
//! |---|---|
//! | [`namespaces`] | the namespaces of a sandbox |
//! | [`ids`], [`idmapped`] | id mappings, and mounts that show files of the host through one |
//! | [`mounts`], [`rootfs`] | detached mounts, and the root file system made of them |
//! | [`pinned`], [`targets`] | where mounts come from and go to, each resolved once |
//! | [`views`] | read-only mounts that show the content of host files and nothing else of them |
//! | [`devices`] | device nodes |
//! | [`caps`] | capabilities and resource limits |
//! | [`seccomp`] | system call filters, compiled by `build.rs` |
//! | [`landlock`] | what files a supervisor, an unpacker or a monitor reaches |
#![forbid(unsafe_code)]

pub mod caps;
pub mod devices;
pub mod idmapped;
pub mod ids;
pub mod landlock;
pub mod mounts;
pub mod namespaces;
pub mod pinned;
pub mod rootfs;
pub mod seccomp;
pub mod targets;
pub mod views;
