//! All tests of the command line that need no machine: sandboxes live in memory, and the command runs in this process,
//! or, where signals and terminals matter, in a process of its own (`process`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod copy;
mod errors;
mod exec;
mod grammar;
mod images;
mod install;
mod lifecycle;
mod logs;
mod process;
mod run;
mod support;
mod tables;
