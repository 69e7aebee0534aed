//! The tests of this crate, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod crash;
mod faults;
mod home;
mod rows;
mod schema;
