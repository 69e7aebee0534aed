//! The agent, run as it is shipped: one binary, a module for each subject.

mod connections;
mod exec;
mod exec_failures;
mod files;
mod lifecycle;
mod support;
