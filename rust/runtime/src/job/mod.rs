//! Jobs that end: they work inside a sandbox's id mapping, supervise nothing and report what they did.

pub mod in_user_namespace;
pub mod probe;
pub mod remove;
pub mod unpack;
