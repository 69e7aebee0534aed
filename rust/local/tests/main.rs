//! The tests of this crate, in one binary.

#[path = "../../images/tests/archive/mod.rs"]
mod archive;
mod doctor;
