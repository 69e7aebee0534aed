//! From an [`ExecRequest`](microsandbox_protocol::message::ExecRequest) to a running process.

pub mod environment;
pub mod failure;
pub mod launch;
pub mod limits;
pub mod program;
pub mod terminal;
pub mod user;
