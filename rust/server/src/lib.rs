//! `msb serve`: the sandboxes of one machine, over the wire of the microsandbox cloud.
//!
//! | module | holds |
//! |---|---|
//! | [`serve`], [`tls`] | connections, from the handshake to the shutdown |
//! | [`limits`] | every limit |
//! | [`keys`], [`authorize`] | API keys; which key may use which route |
//! | [`tenancy`] | whose objects a request means; names of clients |
//! | [`access_log`], [`metrics`] | what is recorded of each request |
//! | [`table`], [`openapi`] | every route, described once |
//! | [`routes`] | the handlers |
//! | [`convert`], [`error`] | from the wire to the core and back |
//! | [`relay`], [`gate`] | the agent WebSocket; which frames a key may send |
//! | [`slots`] | how many sandboxes there may be |
//! | [`records`] | all records, page by page, in reads that requests share |
//! | [`budgets`] | what the objects of one key, and of all, may use |
//! | [`connections`] | the places of connections: known clients and strangers |
//! | [`app`], [`concurrency_limit`], [`idempotency`] | state that all requests share |

pub mod access_log;
mod app;
mod authorize;
mod budgets;
mod concurrency_limit;
mod connections;
mod convert;
pub mod error;
mod gate;
mod head_limit;
mod idempotency;
pub mod keys;
pub mod limits;
mod metrics;
pub mod openapi;
mod records;
mod relay;
mod routes;
pub mod serve;
mod slots;
mod table;
mod tenancy;
pub mod tls;

pub use access_log::AccessLog;
pub use keys::{Key, Keys, Scope};
pub use limits::Limits;
pub use serve::{Policy, Server, ServerConfig, bind};
pub use tls::Tls;
