//! Who speaks to the agent: clients of the SDK, and the runtime on its private channel.

pub mod connection;
pub mod control;
pub mod hello;
pub mod queue;
