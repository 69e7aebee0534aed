//! The tests of this crate, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod client;
mod faults;
mod handles;
mod logs;
mod options;
mod relay;
mod service;
mod tls;
