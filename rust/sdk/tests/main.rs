//! The tests of this crate, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod backend_cases;
mod default_backend;
#[path = "../../store/tests/home/mod.rs"]
mod home;
#[path = "../../core/tests/scripted/mod.rs"]
mod scripted;
#[path = "../../remote/tests/service/mod.rs"]
mod service;
#[path = "../../core/tests/warnings/mod.rs"]
mod warnings;
