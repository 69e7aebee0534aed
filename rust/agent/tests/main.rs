//! The agent, run as it is shipped: one binary, a module for each subject.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod connections;
mod exec;
mod exec_failures;
mod files;
mod fuzz;
mod lifecycle;
mod support;
