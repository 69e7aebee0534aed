//! A specification as a create request, and the calls that differ; one file per dialect of the wire.

pub mod flat;
pub mod spec;
