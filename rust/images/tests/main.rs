//! The tests of this crate, in one binary.

mod archive;
mod loaded;
mod refused;
