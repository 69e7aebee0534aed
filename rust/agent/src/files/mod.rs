//! File operations beneath the guest root. One verb or noun a file; [`task`] is what [`crate::workers`] run.

pub mod attributes;
pub mod copy;
pub mod entries;
pub mod error;
pub mod handles;
pub mod names;
pub mod pack;
pub mod reader;
pub mod remove;
pub mod rename;
pub mod root;
pub mod task;
pub mod trail;
pub mod unpack;
pub mod watch;
pub mod writer;
