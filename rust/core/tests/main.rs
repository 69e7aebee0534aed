//! The tests of this crate, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod agent_exec;
mod agent_files;
mod agent_protocol;
mod config_document;
mod handle_races;
mod handle_rules;
mod peer;
mod scripted;
mod warnings;
