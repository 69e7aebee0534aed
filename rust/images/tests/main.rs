//! The tests of this crate, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod archive;
mod loaded;
mod pulled;
mod refused;
mod registry;
