//! `msb serve`: one machine's sandboxes over the wire of the microsandbox cloud.
//!
//! | module | holds |
//! |---|---|
//! | [`serve`], [`tls`] | connections, from the first byte to the graceful end |
//! | [`limits`] | every bound |
//! | [`keys`], [`guard`] | API keys; who may do what |
//! | [`access`], [`metrics`] | what is told about requests |
//! | [`table`], [`openapi`] | every route, described once |
//! | [`routes`] | the handlers |
//! | [`convert`], [`error`] | from the wire to the core and back |
//! | [`relay`] | the agent WebSocket |
//! | [`app`], [`gates`], [`idempotency`], [`stalled`] | shared state and the bounds on it |

pub mod access_log;
mod app;
mod authorize;
mod concurrency_limit;
mod convert;
pub mod error;
mod idempotency;
pub mod keys;
pub mod limits;
mod metrics;
pub mod openapi;
mod relay;
mod routes;
pub mod serve;
mod table;
pub mod tls;

pub use access_log::AccessLog;
pub use keys::{Key, Keys, Scope};
pub use limits::Limits;
pub use serve::{Server, ServerConfig, bind};
pub use tls::Tls;
