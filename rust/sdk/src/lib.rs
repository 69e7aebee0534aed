//! What a Rust program depends on: the core's types, the three backends, and the default backend.
//!
//! | module | holds |
//! |---|---|
//! | [`default_backend`] | which backend a call uses that names none |
//!
//! The default backend is resolved here and not in the core, because resolving constructs a local or a remote backend.

pub mod default_backend;

pub use microsandbox_core::*;
pub use microsandbox_fake::MemoryBackend;
pub use microsandbox_local::LocalBackend;
pub use microsandbox_remote::CloudBackend;
