//! What every HTTPS client of this project shares; what a request means belongs to the clients.
//!
//! | module | holds |
//! |---|---|
//! | [`tls`] | the certificates that are accepted, and the failures of a handshake |
//! | [`cause`] | why there is no response |
//! | [`pause`] | how long to wait before a retry |

pub mod cause;
pub mod pause;
pub mod tls;
