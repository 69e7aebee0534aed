//! The tests of this crate, in one binary.

mod crash;
mod faults;
mod home;
mod rows;
mod schema;
