//! What the other crates rely on: one binary for all modules, a module each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod copies;
mod deep;
#[path = "../fuzz/mod.rs"]
mod fuzz;
mod named;
mod open;
mod remove;
mod tar;
mod walk;
