//! The microsandbox core: one API for sandboxes on this machine and elsewhere.
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | plain data: configuration, status, results |
//! | [`sandbox`] | [`Sandbox`] (live) and [`SandboxHandle`] (record) |
//! | [`backend`] | the [`Backend`] trait, the ambient default, the local and the memory backend |
//! | [`krunfw`] | the library that holds the guest kernel of a microVM |
//! | [`private`], [`random`] | files of mode 0600; random bits |
//! | [`names`] | file names as text, also those that are not UTF-8 |
//! | [`error`] | [`MicrosandboxError`] |

pub mod agent;
pub mod backend;
pub mod config;
pub mod error;
pub mod images;
pub mod krunfw;
pub mod model;
pub mod private;
pub mod random;
pub mod sandbox;
pub mod store;

pub use backend::{
    Backend, BackendKind, ListQuery, LocalBackend, MemoryBackend, SandboxBackend, SandboxList, SharedBackend,
};
pub use error::{MicrosandboxError, MicrosandboxResult};
pub use microsandbox_protocol::names;
pub use sandbox::{Sandbox, SandboxHandle};
