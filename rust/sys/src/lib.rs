//! The system calls that no safe wrapper covers: all `unsafe` of the workspace, except the memory mappings of msb-vmm.
//!
//! | module | holds |
//! |---|---|
//! | [`descriptor`] | inherited descriptors, descriptor numbers for another program, bulk closing, reads into a buffer |
//! | [`process`] | clone, fork, unshare, exec, signals to processes, the end of this process |
//! | [`spawn`] | a program of the agent's, started in memory that the child shares |
//! | [`posix_spawn`] | a program started in a session of its own from a process with threads |
//! | [`inherited`] | what a process passes on to the programs it starts, put back |
//! | [`signal`] | masks, default actions, signals as a descriptor |
//! | [`handler`] | signal handlers that are put back |
//! | [`poll`] | `poll(2)` on descriptor numbers |
//! | [`readable`] | a descriptor in the async runtime |
//! | [`file`] | calls on files: `fchmodat2`, the exit status of a guest kernel |
//! | [`kvm`] | requests to `/dev/kvm` |
//! | [`krunfw`] | the guest kernel's library, asked |
//! | [`mount`] | attributes of mounts |
//! | [`seccomp`] | installing a filter |
//! | [`network`] | the loopback interface, vsock |
//! | [`sqlite`] | SQLite in a forked child |
//! | [`heap`] | tuning and trimming of the C library's heap |
#![allow(unsafe_code, reason = "this crate is the home of unsafe code")]
#![deny(unsafe_op_in_unsafe_fn)]

use std::io;

use rustix::io::{Errno, Result};

pub mod descriptor;
pub mod file;
pub mod handler;
pub mod heap;
pub mod inherited;
#[cfg(feature = "host")]
pub mod krunfw;
pub mod kvm;
pub mod mount;
pub mod network;
pub mod poll;
pub mod posix_spawn;
pub mod process;
#[cfg(feature = "host")]
pub mod readable;
pub mod seccomp;
pub mod signal;
pub mod spawn;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// The result of a call that returns a negative number on failure and sets `errno`.
fn check<T: Copy + Into<i64>>(value: T) -> Result<T> {
    if value.into() < 0 { Err(last_error()) } else { Ok(value) }
}

/// `errno` of this thread.
fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
