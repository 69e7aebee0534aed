//! The protocol from outside: one binary, a module for each subject.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod fuzz;
mod hostile_frames;
mod round_trips;
