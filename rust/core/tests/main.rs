//! The tests of this crate, in one binary.

mod agent_exec;
mod agent_files;
mod agent_protocol;
mod config_document;
mod handle_races;
mod handle_rules;
mod peer;
mod scripted;
mod warnings;
