//! The tests of this crate, in one binary.

mod agent_real;
#[path = "../../core/tests/peer/mod.rs"]
mod peer;
