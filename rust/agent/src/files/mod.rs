//! File operations beneath the guest root. One verb or noun a file; [`task`] is what [`crate::workers`] run.

pub mod attributes;
pub mod copy;
pub mod entries;
pub mod error;
pub mod handles;
pub mod names;
pub mod reader;
pub mod remove;
pub mod root;
pub mod tar_reader;
pub mod tar_writer;
pub mod task;
pub mod temporary;
pub mod walk;
pub mod watch;
pub mod writer;
