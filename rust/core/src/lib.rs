//! The microsandbox core: one API for sandboxes on this machine and elsewhere. It knows no implementation of a backend.
//!
//! | module | holds |
//! |---|---|
//! | [`api`] | what users hold: [`Sandbox`] (live) and [`SandboxHandle`] (record) |
//! | [`backend`] | the traits [`Backend`], [`SandboxBackend`], `Agent`, `VolumeBackend`, `ImageBackend`, and their requests |
//! | [`files`] | the trait `Files`, for sandboxes and volumes |
//! | [`collected`] | streams collected into memory, within a bound |
//! | [`lifecycle`] | stop and its escalation, replacing: in terms of the traits, once for every backend |
//! | [`agent`] | the client of the agent protocol, over any stream |
//! | [`undo`] | work that leaves nothing behind when its caller stops waiting |
//! | [`model`] | plain data: configuration, status, results |
//! | [`validate`] | what a specification must satisfy |
//! | [`config`] | the configuration document, profiles |
//! | [`error`] | [`MicrosandboxError`] |
//! | [`log_cursor`] | the text of a position in a log |
//! | [`guest_dirs`] | the directories of this machine in which a guest may have put links |
//! | [`host_tree`] | a tree of the host as an archive, an archive as a tree of the host |
//! | [`host_target`], [`writing`] | a host file that is being written; whether a file can still become complete |
//! | [`private`], [`random`] | files of mode 0600; random bits |
//! | [`seconds`] | numbers of seconds as durations |
//! | [`names`] | file names as text, also those that are not UTF-8 |

pub mod agent;
pub mod api;
pub mod backend;
pub mod collected;
pub mod config;
pub mod error;
pub mod files;
pub mod guest_dirs;
pub mod host_target;
pub mod host_tree;
pub mod lifecycle;
pub mod log_cursor;
pub mod model;
pub mod private;
pub mod random;
pub mod seconds;
pub mod undo;
pub mod validate;
pub mod writing;

pub use api::{Sandbox, SandboxHandle};
pub use backend::{Backend, BackendKind, ListQuery, SandboxBackend, SharedBackend};
pub use error::{MicrosandboxError, MicrosandboxResult};
pub use microsandbox_protocol::names;
